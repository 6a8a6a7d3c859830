//! One connection: what it is in the middle of, and what it still has to send.
//!
//! It is ready for a request, follows a command, sends a file or receives one. Absent: polling and
//! the ledger's life (both belong to `serve`); closing a connection here touches no command.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::files::{self, Incoming, Source};
use crate::frame::{self, CHUNK_BYTES, Decoder, Frame, Kind};
use crate::ledger::Ledger;
use crate::wire::{Failure, FailureCode, PROTOCOL, Reply, Request};

/// Above this much unsent, a connection is not given more.
const UNSENT_BYTES: usize = 4 * CHUNK_BYTES;

#[derive(Debug)]
enum State {
    Ready,
    Following {
        exec_id: String,
        offset: u64,
    },
    Sending {
        source: Source,
        remaining: u64,
        sent: u64,
    },
    /// Without a file where it could not be made: the announced bytes are read and dropped.
    Receiving {
        incoming: Result<Incoming, Failure>,
        remaining: u64,
    },
}

/// What the loop has to do after a peer was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Stay,
    /// Close this connection.
    Close,
    /// End the box; milliseconds between TERM and KILL.
    Shutdown(u64),
}

/// A connection.
#[derive(Debug)]
pub struct Peer {
    /// Its socket.
    pub stream: UnixStream,
    decoder: Decoder,
    unsent: Vec<u8>,
    state: State,
    greeted: bool,
}

impl Peer {
    /// A connection that was just accepted; it must not block.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::default(), unsent: Vec::new(), state: State::Ready, greeted: false }
    }

    /// Whether there is something to send.
    pub const fn wants_to_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether more bytes can be taken now.
    pub const fn wants_to_read(&self) -> bool {
        matches!(self.state, State::Ready | State::Receiving { .. })
    }

    /// Whether it is being sent the output of this command.
    pub fn follows(&self, exec_id: &str) -> bool {
        matches!(&self.state, State::Following { exec_id: followed, .. } if followed == exec_id)
    }

    /// Reads what has come. False if the other side is gone.
    pub fn receive(&mut self) -> bool {
        let mut space = vec![0; CHUNK_BYTES];
        match self.stream.read(&mut space) {
            Ok(0) => false,
            Ok(read) => {
                self.decoder.push(space.get(..read).unwrap_or_default());
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Serves requests that have arrived and continues what was begun.
    pub fn step(&mut self, ledger: &mut Ledger, home: &Path, now: Instant) -> Verdict {
        loop {
            self.pump(ledger);
            if !self.flush() {
                return Verdict::Close;
            }
            if !self.wants_to_read() {
                // Waits for the command or for room in the socket, or was handed all it wants.
                if self.unsent.is_empty() && self.can_pump(ledger) {
                    continue;
                }
                return Verdict::Stay;
            }
            let frame = match self.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Verdict::Stay,
                Err(_) => return Verdict::Close,
            };
            match self.on_frame(frame, ledger, home, now) {
                Verdict::Stay => {}
                other => return other,
            }
        }
    }

    /// Tells the other side that the box is ending, as far as it still listens.
    pub fn say_done(&mut self) {
        self.reply(&Reply::Done);
        let _ = self.flush();
    }

    fn reply(&mut self, reply: &Reply) {
        frame::encode_message(reply, &mut self.unsent);
    }

    fn on_frame(&mut self, frame: Frame, ledger: &mut Ledger, home: &Path, now: Instant) -> Verdict {
        match (frame.kind, &mut self.state) {
            (Kind::Data, State::Receiving { incoming, remaining }) => {
                *remaining = remaining.saturating_sub(frame.body.len() as u64);
                if let Ok(file) = incoming
                    && let Err(failure) = file.push(&frame.body)
                {
                    *incoming = Err(failure);
                }
                self.finish_receiving();
                Verdict::Stay
            }
            (Kind::Message, State::Ready) => match frame::decode_message::<Request>(&frame.body) {
                Ok(request) => self.on_request(request, ledger, home, now),
                Err(error) => {
                    self.reply(&Reply::Failed(Failure { code: FailureCode::BadRequest, message: error.to_string() }));
                    Verdict::Stay
                }
            },
            _ => Verdict::Close,
        }
    }

    fn on_request(&mut self, request: Request, ledger: &mut Ledger, home: &Path, now: Instant) -> Verdict {
        if !self.greeted && !matches!(request, Request::Hello { .. }) {
            return Verdict::Close;
        }
        let within = |path: PathBuf| home.join(path);
        let done = match request {
            Request::Hello { .. } => {
                self.greeted = true;
                self.reply(&Reply::Hello { protocol: PROTOCOL, release: env!("CARGO_PKG_VERSION").to_owned() });
                Ok(())
            }
            Request::Exec(start) => ledger.start(&start, now).map(|repeated| self.follow(start.exec_id, repeated)),
            Request::Attach { exec_id } => ledger.get(&exec_id).map(|_| self.follow(exec_id.clone(), true)),
            Request::Acknowledge { exec_id } => ledger.acknowledge(&exec_id).map(|()| self.reply(&Reply::Done)),
            Request::Kill { exec_id } => ledger.kill(&exec_id, now).map(|()| self.reply(&Reply::Done)),
            Request::Read { path, offset, max_bytes, follow } => {
                self.send_file(&within(path), offset, max_bytes, follow)
            }
            Request::Write { path, size, mode } => {
                let incoming = Incoming::create(&within(path), size, mode);
                self.state = State::Receiving { incoming, remaining: size };
                self.finish_receiving();
                Ok(())
            }
            Request::List { path, max_entries } => files::list(&within(path), max_entries.min(LIST_ENTRIES))
                .map(|(entries, truncated)| self.reply(&Reply::Entries { entries, truncated })),
            Request::Stat { path } => files::stat(&within(path)).map(|entry| self.reply(&Reply::Stat { entry })),
            Request::Shutdown { grace_ms } => return Verdict::Shutdown(grace_ms),
        };
        if let Err(failure) = done {
            self.reply(&Reply::Failed(failure));
        }
        Verdict::Stay
    }

    fn follow(&mut self, exec_id: String, repeated: bool) {
        self.reply(&Reply::Started { repeated });
        self.state = State::Following { exec_id, offset: 0 };
    }

    fn send_file(&mut self, path: &Path, offset: u64, max_bytes: u64, follow: bool) -> Result<(), Failure> {
        use std::io::{Seek as _, SeekFrom};
        let mut source = files::open(path, follow)?;
        source.file.seek(SeekFrom::Start(offset)).map_err(|error| Failure {
            code: FailureCode::BadRequest,
            message: format!("{}: cannot read from byte {offset}: {error}", path.display()),
        })?;
        self.reply(&Reply::Content { file_bytes: source.file_bytes, mode: source.mode });
        self.state = State::Sending { source, remaining: max_bytes, sent: 0 };
        Ok(())
    }

    /// If all announced bytes have come, puts the file in place and answers.
    fn finish_receiving(&mut self) {
        if !matches!(self.state, State::Receiving { remaining: 0, .. }) {
            return;
        }
        let State::Receiving { incoming, .. } = std::mem::replace(&mut self.state, State::Ready) else { return };
        match incoming.and_then(Incoming::finish) {
            Ok(bytes) => self.reply(&Reply::Written { bytes }),
            Err(failure) => self.reply(&Reply::Failed(failure)),
        }
    }

    fn can_pump(&self, ledger: &Ledger) -> bool {
        match &self.state {
            State::Following { exec_id, offset } => {
                ledger.get(exec_id).is_ok_and(|item| *offset < item.kept() || item.outcome().is_some())
            }
            State::Sending { .. } => true,
            State::Ready | State::Receiving { .. } => false,
        }
    }

    /// Fills the unsent bytes from the command or the file.
    fn pump(&mut self, ledger: &Ledger) {
        while self.unsent.len() < UNSENT_BYTES {
            match &mut self.state {
                State::Ready | State::Receiving { .. } => return,
                State::Following { exec_id, offset } => {
                    let Ok(item) = ledger.get(exec_id) else { return };
                    let copied = item.copy_to(*offset, CHUNK_BYTES, &mut self.unsent);
                    *offset += copied;
                    if copied > 0 {
                        continue;
                    }
                    let Some(outcome) = item.outcome() else { return };
                    let ended = Reply::Ended(outcome.clone());
                    self.state = State::Ready;
                    self.reply(&ended);
                }
                State::Sending { source, remaining, sent } => {
                    let want = usize::try_from(*remaining).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                    let mut piece = vec![0; want];
                    let read = source.file.read(&mut piece).unwrap_or(0);
                    *sent += read as u64;
                    *remaining = remaining.saturating_sub(read as u64);
                    frame::encode(Kind::Data, piece.get(..read).unwrap_or_default(), &mut self.unsent);
                    if read == 0 || *remaining == 0 {
                        let reply = Reply::Sent { bytes: *sent };
                        self.state = State::Ready;
                        self.reply(&reply);
                    }
                }
            }
        }
    }

    /// Sends what the socket takes. False if the other side is gone.
    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(written) => {
                    self.unsent.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        self.unsent.shrink_to(CHUNK_BYTES);
        true
    }
}

/// More entries than this are never sent in one answer: they would not fit a frame.
const LIST_ENTRIES: u32 = 4000;
