//! The way out: takes connections on the box's loopback and carries their bytes to and from the
//! unix socket of a proxy outside.
//!
//! It understands nothing of what it carries; what may pass is decided outside. When nobody listens
//! outside, connections are held and tried again; only after [`PATIENCE`] they are answered with 503
//! and a sentence: paused, never open. It is a thread of the hand, not a process: commands cannot
//! kill a part of the box's first process. And not a part of the hand's own loop: a download is not
//! to stand between a command and its end, whatever its speed. It shares nothing with that loop.
//!
//! Bounds: [`CONNECTIONS`] at a time (more wait in the listener's queue), and [`CHUNK_BYTES`] of
//! unsent bytes for each direction of each; what is at rest holds no buffer. Absent: names, hosts,
//! TLS, and any way to another address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::frame::CHUNK_BYTES;

/// Where the box finds its way out, on 127.0.0.1.
pub const PORT: u16 = 3128;
/// The socket's name in the folder that the launcher hands over.
pub const SOCKET: &str = "door.sock";
/// Connections at a time.
pub const CONNECTIONS: usize = 64;
/// So long a connection is held while nobody listens outside.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries to reach the other side.
const TRY_EVERY: Duration = Duration::from_millis(100);
/// So long a connection that was answered with 503 may take to read it, and so long one whose proxy has
/// said everything may be silent before it is closed.
const LINGER: Duration = Duration::from_secs(2);

const PAUSED: &str = "The way out of this sandbox is paused: the proxy outside does not answer. \
    Nothing passes until it does. Try again later.\n";

/// Opens the port and starts carrying; the folder behind the descriptor holds the proxy's socket.
///
/// # Errors
/// If the port is taken or no thread can be made.
pub fn open(folder: OwnedFd) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    listener.set_nonblocking(true)?;
    // By descriptor: the folder is mounted nowhere in the box.
    let socket = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    let door = Door { listener, _folder: Some(folder), socket, patience: PATIENCE, carried: Vec::new() };
    std::thread::Builder::new().name("door".into()).stack_size(128 << 10).spawn(move || door.run()).map(drop)
}

/// The listening side and all connections.
struct Door {
    listener: TcpListener,
    /// Keeps the socket's path valid.
    _folder: Option<OwnedFd>,
    socket: PathBuf,
    patience: Duration,
    carried: Vec<Carried>,
}

/// One connection of the box.
struct Carried {
    inside: TcpStream,
    state: State,
}

enum State {
    /// Nobody listens outside yet.
    Held { until: Instant },
    /// Bytes go both ways.
    Joined { outside: UnixStream, out: Way, back: Way, silent: Option<Silence> },
    /// It is told that the way out is paused; what it still says is read and dropped, since closing
    /// a socket with unread bytes would take the answer back.
    Refused { unsent: Vec<u8>, until: Instant },
}

/// Since when a box says nothing to a proxy that has said everything, and how much it had said by then.
struct Silence {
    since: Instant,
    said_bytes: u64,
}

/// One direction.
#[derive(Default)]
struct Way {
    unsent: Vec<u8>,
    /// The source has said all.
    ended: bool,
    /// The target was told so.
    told: bool,
    /// Bytes read so far.
    read_bytes: u64,
}

impl Way {
    const fn wants_to_read(&self) -> bool {
        !self.ended && self.unsent.is_empty()
    }

    const fn wants_to_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Carries what can be carried now. An error means that one of the sides is gone.
    fn carry(&mut self, from: &mut impl Read, to: &mut impl Write, space: &mut [u8]) -> io::Result<()> {
        // A few rounds, so that one busy connection leaves the others their turn.
        for _ in 0..4 {
            if self.unsent.is_empty() {
                if self.ended {
                    return Ok(());
                }
                match from.read(space) {
                    Ok(0) => {
                        self.ended = true;
                        return Ok(());
                    }
                    Ok(read) => {
                        self.read_bytes = self.read_bytes.saturating_add(read as u64);
                        let bytes = space.get(..read).unwrap_or_default();
                        let written = write_some(to, bytes)?;
                        self.unsent.extend_from_slice(bytes.get(written..).unwrap_or_default());
                    }
                    Err(error) if is_later(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            } else {
                let written = write_some(to, &self.unsent)?;
                if written == 0 {
                    return Ok(());
                }
                self.unsent.drain(..written);
                if self.unsent.is_empty() {
                    self.unsent = Vec::new();
                }
            }
        }
        Ok(())
    }

    /// True once, when all was said and all of it was passed on.
    fn has_just_ended(&mut self) -> bool {
        let now = self.ended && self.unsent.is_empty() && !self.told;
        self.told |= now;
        now
    }
}

/// Connects without ever waiting: a proxy that does not accept is like one that is not there.
fn reach(socket: &Path) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&stream, &SocketAddrUnix::new(socket)?)?;
    Ok(stream.into())
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Writes what the socket takes; none if it is full.
fn write_some(to: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    match to.write(bytes) {
        Ok(0) if !bytes.is_empty() => Err(ErrorKind::WriteZero.into()),
        Ok(written) => Ok(written),
        Err(error) if is_later(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

impl Carried {
    /// Brings the connection forward. False if it is over.
    fn step(&mut self, door: &Path, now: Instant, space: &mut [u8]) -> bool {
        if let State::Held { until } = self.state {
            match reach(door) {
                Ok(outside) => {
                    self.state = State::Joined { outside, out: Way::default(), back: Way::default(), silent: None }
                }
                Err(_) if now >= until => self.state = State::Refused { unsent: refusal(), until: now + LINGER },
                Err(_) => return true,
            }
        }
        match &mut self.state {
            State::Held { .. } => true,
            State::Joined { outside, out, back, silent } => {
                let carried = out
                    .carry(&mut self.inside, outside, space)
                    .and_then(|()| back.carry(outside, &mut self.inside, space));
                if carried.is_err() {
                    return false;
                }
                if out.has_just_ended() && outside.shutdown(Shutdown::Write).is_err() {
                    return false;
                }
                if back.has_just_ended() && self.inside.shutdown(Shutdown::Write).is_err() {
                    return false;
                }
                if out.told && back.told {
                    return false;
                }
                if !back.told {
                    return true;
                }
                // A box may go on for a while; one that only keeps the connection takes a place from others.
                let said_bytes = out.read_bytes;
                match silent {
                    Some(silence) if silence.said_bytes == said_bytes => now < silence.since + LINGER,
                    _ => {
                        *silent = Some(Silence { since: now, said_bytes });
                        true
                    }
                }
            }
            State::Refused { unsent, until } => {
                match write_some(&mut self.inside, unsent) {
                    Ok(written) => drop(unsent.drain(..written)),
                    Err(_) => return false,
                }
                if unsent.is_empty() {
                    let _ = self.inside.shutdown(Shutdown::Write);
                }
                let said = match self.inside.read(space) {
                    Ok(read) => read > 0,
                    Err(error) => is_later(&error),
                };
                said && now < *until
            }
        }
    }

    /// What is to be waited for. A descriptor of which nothing is wanted is not watched: its other
    /// side's hanging up would be reported again and again.
    fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let mut add = |fd: BorrowedFd<'a>, read: bool, write: bool| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, read);
            events.set(PollFlags::OUT, write);
            if read || write {
                fds.push(PollFd::from_borrowed_fd(fd, events));
            }
        };
        match &self.state {
            State::Held { .. } => {}
            State::Joined { outside, out, back, .. } => {
                add(self.inside.as_fd(), out.wants_to_read(), back.wants_to_write());
                add(outside.as_fd(), back.wants_to_read(), out.wants_to_write());
            }
            State::Refused { unsent, .. } => add(self.inside.as_fd(), true, !unsent.is_empty()),
        }
    }
}

fn refusal() -> Vec<u8> {
    let length = PAUSED.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nRetry-After: 10\r\nConnection: close\r\n\r\n{PAUSED}"
    )
    .into_bytes()
}

impl Door {
    fn run(mut self) {
        let mut space = vec![0; CHUNK_BYTES];
        loop {
            self.wait();
            self.accept();
            let (socket, now) = (&self.socket, Instant::now());
            self.carried.retain_mut(|carried| carried.step(socket, now, &mut space));
        }
    }

    fn accept(&mut self) {
        while self.carried.len() < CONNECTIONS {
            let Ok((inside, _)) = self.listener.accept() else { return };
            if inside.set_nonblocking(true).is_ok() {
                let _ = inside.set_nodelay(true);
                let state = State::Held { until: Instant::now() + self.patience };
                self.carried.push(Carried { inside, state });
            }
        }
    }

    fn wait(&self) {
        let mut fds = Vec::with_capacity(2 * self.carried.len() + 1);
        if self.carried.len() < CONNECTIONS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let mut timed = false;
        for carried in &self.carried {
            timed |= !matches!(&carried.state, State::Joined { back, .. } if !back.told);
            carried.watch(&mut fds);
        }
        let every = Timespec { tv_sec: 0, tv_nsec: TRY_EVERY.subsec_nanos().into() };
        if poll(&mut fds, timed.then_some(&every)).is_err() {
            // Interrupted, or no memory for a moment: the next look is not at once.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::os::unix::net::UnixListener;

    /// A door on any port that leads to a socket in `folder`.
    fn door(folder: &std::path::Path, patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door { listener, _folder: None, socket: folder.join(SOCKET), patience, carried: Vec::new() };
        std::thread::spawn(move || door.run());
        address
    }

    fn everything(mut from: impl Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn megabytes_go_both_ways_at_once_and_each_side_hears_the_others_end() {
        let folder = tempfile::tempdir().unwrap();
        let outside = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let address = door(folder.path(), PATIENCE);
        let far = std::thread::spawn(move || {
            let (stream, _) = outside.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                writer.write_all(&vec![7; 5_000_000]).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let heard = everything(stream);
            sender.join().unwrap();
            heard
        });
        let inside = TcpStream::connect(address).unwrap();
        let mut writer = inside.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            writer.write_all(&vec![9; 3_000_000]).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let heard = everything(inside);
        sender.join().unwrap();
        assert!(heard.len() == 5_000_000 && heard.iter().all(|byte| *byte == 7));
        let far = far.join().unwrap();
        assert!(far.len() == 3_000_000 && far.iter().all(|byte| *byte == 9));
    }

    #[test]
    fn a_box_that_keeps_connections_which_the_proxy_has_closed_does_not_keep_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let outside = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let address = door(folder.path(), PATIENCE);
        let kept: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        for _ in &kept {
            drop(outside.accept().unwrap());
        }
        let mut next = TcpStream::connect(address).unwrap();
        let (mut stream, _) = outside.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        next.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
        drop(kept);
    }

    #[test]
    fn a_connection_is_held_until_somebody_listens_outside_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let address = door(folder.path(), PATIENCE);
        for round in 0..3_u8 {
            let mut inside = TcpStream::connect(address).unwrap();
            inside.write_all(b"hello").unwrap();
            inside.shutdown(Shutdown::Write).unwrap();
            let outside = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
            let (mut stream, _) = outside.accept().unwrap();
            let mut heard = [0; 5];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(&[round]).unwrap();
            drop((stream, outside));
            std::fs::remove_file(folder.path().join(SOCKET)).unwrap();
            assert_eq!((&heard, everything(inside)), (b"hello", vec![round]));
        }
    }

    #[test]
    fn who_was_held_too_long_is_told_that_the_way_out_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let address = door(folder.path(), Duration::from_millis(50));
        let mut inside = TcpStream::connect(address).unwrap();
        inside.write_all(&[b'x'; 200_000]).unwrap();
        let mut answer = vec![0; refusal().len()];
        inside.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("paused"), "{answer}");
    }

    #[test]
    fn more_connections_than_are_carried_wait_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let outside = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let address = door(folder.path(), PATIENCE);
        let idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let held: Vec<UnixStream> = idle.iter().map(|_| outside.accept().unwrap().0).collect();
        let mut late = TcpStream::connect(address).unwrap();
        late.write_all(b"x").unwrap();
        outside.set_nonblocking(true).unwrap();
        assert!(outside.accept().is_err(), "one more than is carried came through");
        drop((idle, held));
        outside.set_nonblocking(false).unwrap();
        let (mut stream, _) = outside.accept().unwrap();
        let mut heard = [0];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *b"x");
    }
}
