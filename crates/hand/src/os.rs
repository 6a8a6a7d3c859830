//! The few system calls that the safe wrappers lack: signal descriptors, signalling everybody, the
//! last steps before a command. Absent: everything that rustix or the standard library has.
#![expect(unsafe_code, reason = "thin wrappers over libc, each with its argument for soundness")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};

/// Blocks SIGCHLD for this process and gives a descriptor that becomes readable when one is due.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialised by sigemptyset before use, and lives across the calls; signalfd
    // gives back a descriptor that nobody else owns, or -1.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Empties a descriptor made by [`child_signals`].
pub fn drain(signals: &OwnedFd) {
    let mut space = [0_u8; 1024];
    while matches!(rustix::io::read(signals, &mut space), Ok(read) if read > 0) {}
}

/// What this process is called in lists of processes.
pub fn name_process(name: &std::ffi::CStr) {
    // SAFETY: the name is a C string; the kernel copies at most 16 bytes of it.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
}

/// Signals every process that this one may signal, except itself; inside a pid namespace that is
/// the whole box. Does nothing outside of one, where it would reach other people's processes.
pub fn signal_box(signal: i32) {
    if std::process::id() != 1 {
        return;
    }
    // SAFETY: kill takes no memory.
    unsafe {
        libc::kill(-1, signal);
    }
}

/// Signals one process; a process that is gone is no error.
pub fn signal(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: kill takes no memory; `pid` is a single process, neither 0 nor negative.
        unsafe {
            libc::kill(pid, signal);
        }
    }
}

/// Waits for any child that has ended, without blocking.
pub fn reap() -> Option<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let ended = if libc::WIFSIGNALED(status) {
        ExitStatus::Signal(libc::WTERMSIG(status))
    } else {
        ExitStatus::Code(libc::WEXITSTATUS(status))
    };
    Some((pid, ended))
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By exit.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// Lets a command start as the leader of its own session, without the hand's precedence, and with a
/// limit on the size of a file if one is given.
pub fn as_command(command: &mut std::process::Command, file_bytes: Option<u64>) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: setsid and the calls for priority and limit are bare system calls; the closure owns
    // what it reads, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            if rustix::process::getpriority_process(None).is_ok_and(|nice| nice < 0) {
                rustix::process::setpriority_process(None, 0)?;
            }
            if let Some(bytes) = file_bytes {
                let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
                rustix::process::setrlimit(rustix::process::Resource::Fsize, limit)?;
            }
            Ok(())
        });
    }
}

/// Makes reads of a descriptor return at once.
pub fn nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(())
}

/// Whether this process has children, dead ones that were not waited for included.
pub fn has_children() -> bool {
    // SAFETY: waitid writes only to `info`, which is valid; WNOWAIT leaves the children as they are.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) == 0
    }
}
