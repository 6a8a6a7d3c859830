//! A launcher that is kept: one process with one thread that forks a launcher for each socket that it
//! is handed.
//!
//! It is the same program with the same words, with a socket as its standard input, over which come
//! messages of one byte and one descriptor ([`hand_over`]). It sees no plan: the fork reads it. So
//! nothing of one box is in the memory or among the descriptors of the next one's launcher. It ends
//! when the control plane's end of its socket is closed; forks of it go by their own sockets. Absent:
//! answers (the fork gives them; without a fork the socket is just closed) and anything that fails
//! for one box and not for all.

use std::fs::OpenOptions;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

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
        let caller = match accept(&requests) {
            Ok(Some(caller)) => caller,
            Ok(None) => return 0,
            Err(_) => return 1,
        };
        if let Ok(Side::Child) = sys::fork() {
            drop(requests);
            sys::wait_for_children(true);
            return launch_for(caller);
        }
    }
}

/// The next socket; none if no more will come.
fn accept(requests: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8; 1];
        let read = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(requests, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
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
