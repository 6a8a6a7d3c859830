//! A launcher that is kept: one process with one thread that forks a launcher for each socket that it
//! is handed.
//!
//! It is the same program with the same words, with a socket as its standard input, over which come
//! messages of one byte and one descriptor ([`hand_over`]). It sees no plan: the fork reads it. So
//! nothing of one box is in the memory or among the descriptors of the next one's launcher. One fork
//! is made ahead and waits for the next socket itself, so that a start does not wait for a fork; when
//! it has a socket it is replaced, and meanwhile others are forked for. All this ends when the control
//! plane's end of the socket is closed; forks that have a caller go by their own sockets. Absent:
//! answers (the fork gives them; without a fork the socket is just closed) and anything that fails
//! for one box and not for all.

use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use rustix::pipe::PipeFlags;

use super::launch::launch_for;
use super::sys::{self, Side};

/// Whether this process is to serve.
pub fn is_asked_for() -> bool {
    let input = rustix::fs::fstat(rustix::stdio::stdin());
    input.is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Socket)
}

/// Serves until the other end of standard input is closed. Gives the exit code, also in a fork.
pub fn serve() -> i32 {
    let Ok(requests) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 10) else { return 1 };
    let Ok(null) = OpenOptions::new().read(true).open("/dev/null") else { return 1 };
    if rustix::stdio::dup2_stdin(&null).is_err() {
        return 1;
    }
    drop(null);
    // A key that ends the control plane at a terminal is the control plane's to hear.
    let _ = rustix::process::setsid();
    sys::wait_for_children(false);
    loop {
        for part in [serve_waiting, fork_ahead] {
            match part(&requests) {
                Turn::Server => {}
                Turn::Launcher(caller) => {
                    drop(requests);
                    sys::wait_for_children(true);
                    return launch_for(caller);
                }
                Turn::End(code) => return code,
            }
        }
    }
}

/// As what this process goes on.
enum Turn {
    Server,
    /// Being a fork, for this caller.
    Launcher(OwnedFd),
    /// Not at all, with this exit code.
    End(i32),
}

/// Forks for everybody who came while there was no fork ahead.
fn serve_waiting(requests: &OwnedFd) -> Turn {
    loop {
        match accept(requests, RecvFlags::DONTWAIT) {
            Ok(Some(caller)) => {
                if let Ok(Side::Child) = sys::fork() {
                    return Turn::Launcher(caller);
                }
            }
            Ok(None) => return Turn::End(0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Server,
            Err(_) => return Turn::End(1),
        }
    }
}

/// Makes a fork that waits for the next socket, and waits until it has one or is gone.
fn fork_ahead(requests: &OwnedFd) -> Turn {
    let Ok((taken, says_so)) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC) else { return Turn::End(1) };
    let waited = match sys::fork() {
        // Leaving here closes its end of the pipe, which says so.
        Ok(Side::Child) => {
            return accept(requests, RecvFlags::empty()).ok().flatten().map_or(Turn::End(0), Turn::Launcher);
        }
        Ok(Side::Parent(_)) => {
            drop(says_so);
            rustix::io::retry_on_intr(|| rustix::io::read(&taken, &mut [0_u8; 1]))
        }
        // Then it is the next round that takes it.
        Err(_) => {
            let mut fds = [PollFd::new(requests, PollFlags::IN)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))
        }
    };
    if waited.is_ok() { Turn::Server } else { Turn::End(1) }
}

/// The next socket; none if no more will come.
fn accept(requests: &OwnedFd, flags: RecvFlags) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8; 1];
        let read = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                requests,
                &mut [IoSliceMut::new(&mut byte)],
                &mut control,
                flags | RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        if read.bytes == 0 {
            return Ok(None);
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut sockets) = message
                && let Some(socket) = sockets.next()
            {
                return Ok(Some(socket));
            }
        }
    }
}

/// Hands a socket to the process that serves at the other end of `to`.
pub fn hand_over(socket: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&to, &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}
