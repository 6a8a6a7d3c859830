//! System calls that the safe wrappers lack: clone with namespaces, mount attributes, the loopback
//! interface, the filter. Absent: everything that rustix has.
#![expect(unsafe_code, reason = "thin wrappers over libc, each with its argument for soundness")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// Which side of a clone this is.
pub enum Side {
    /// The child.
    Child,
    /// The parent; the child's pid.
    Parent(i32),
}

/// Clones this process into new namespaces, like fork.
///
/// The caller has one thread: the launcher starts none.
pub fn clone_into_namespaces(flags: libc::c_int) -> io::Result<Side> {
    // SAFETY: without CLONE_VM and with a null stack clone is fork; with a single thread the
    // child's copy of memory and locks is consistent.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags | libc::SIGCHLD),
            std::ptr::null_mut::<u8>(),
            std::ptr::null_mut::<u8>(),
            std::ptr::null_mut::<u8>(),
            0_usize,
        )
    };
    match i32::try_from(pid) {
        Ok(0) => Ok(Side::Child),
        Ok(pid) if pid > 0 => Ok(Side::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks this process. The caller has one thread.
pub fn fork() -> io::Result<Side> {
    clone_into_namespaces(0)
}

/// Whether children that end are waited for, or vanish by themselves.
pub fn wait_for_children(wait: bool) {
    // SAFETY: both are valid handlers that run no code of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, if wait { libc::SIG_DFL } else { libc::SIG_IGN });
    }
}

/// Kills this process as soon as the other end of a connected socket is closed. The kernel also does
/// so when something arrives: whoever calls this has read to the end.
pub fn die_when_closed(socket: &OwnedFd) -> io::Result<()> {
    /// Linux's own; the `libc` crate has it for few targets.
    const F_SETSIG: libc::c_int = 10;
    let fd = socket.as_raw_fd();
    // SAFETY: calls on a descriptor that is owned by the caller; no memory is touched.
    let done = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGKILL) == 0
            && libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const AT_RECURSIVE: libc::c_int = 0x8000;

/// Makes a mount and all below it read-only, without set-user-id and devices.
pub fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a static C string, `attr` lives across the call and has the size that is
    // passed; the kernel only reads it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: socket gives a descriptor that nobody else owns, or -1; `request` is a valid ifreq
    // whose name is NUL-terminated, and lives across both ioctls.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *place = byte.cast_signed();
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        #[expect(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
        {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Leaves the caller's session keyring for an empty one. A kernel without keyrings is fine.
pub fn empty_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>());
    }
}

/// Puts every signal back to its default, but for the one of broken pipes, and blocks none.
pub fn reset_signals() {
    // SAFETY: SIG_DFL is a valid handler for every signal; numbers that cannot be changed are
    // refused by the kernel. `by_default` has the size of the kernel's structure, whose zeros mean
    // SIG_DFL without flags. `set` is initialised by sigemptyset.
    unsafe {
        for signal in (1..=64).filter(|signal| *signal != libc::SIGPIPE) {
            libc::signal(signal, libc::SIG_DFL);
        }
        // The C library keeps two to itself and lets nobody change them, also where they came ignored.
        let by_default = [0_u64; 4];
        for signal in [32, 33] {
            libc::syscall(libc::SYS_rt_sigaction, signal, by_default.as_ptr(), std::ptr::null::<u8>(), 8_usize);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Points standard input and output nowhere and closes every other descriptor but those given,
/// whoever owns them. The caller goes on to the end of the process without using any other.
pub fn quiet(keep: &[Option<&OwnedFd>]) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let mut kept: Vec<u32> = keep.iter().flatten().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    // It is among those that are closed now.
    std::mem::forget(null);
    let mut first = 3;
    for last in kept.iter().map(|fd| fd.saturating_sub(1)).chain([u32::MAX]) {
        // SAFETY: close_range touches no memory; nobody uses what it closes, as the caller promises.
        if first <= last && unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) } != 0 {
            return Err(io::Error::last_os_error());
        }
        first = last.saturating_add(2);
    }
    Ok(())
}

/// Installs a filter for this process and all that come from it. Needs no-new-privileges.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::other("the filter is too long"))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions that live across the call; the kernel
    // copies and checks them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The version of Landlock that the kernel offers; 0 for none.
pub fn landlock_version() -> u32 {
    // SAFETY: with a null ruleset and the flag for the version no memory is touched.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) };
    u32::try_from(version).unwrap_or(0)
}

/// A set of Landlock rules that governs these rights of files and these scopes.
pub fn landlock_ruleset(rights: u64, scopes: u64) -> io::Result<OwnedFd> {
    // The kernel's `struct landlock_ruleset_attr`: files, network, scopes. A kernel that does not know
    // the later fields takes them as long as they are zero.
    let attributes: [u64; 3] = [rights, 0, scopes];
    // SAFETY: `attributes` lives across the call and has the size that is passed; the result is a
    // descriptor that nobody else owns, or -1.
    unsafe {
        let (at, bytes) = (attributes.as_ptr(), size_of_val(&attributes));
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, at, bytes, 0_u32);
        i32::try_from(fd)
            .ok()
            .filter(|fd| *fd >= 0)
            .map(|fd| OwnedFd::from_raw_fd(fd))
            .ok_or_else(io::Error::last_os_error)
    }
}

/// Allows these rights beneath a folder.
pub fn landlock_allow(ruleset: &OwnedFd, folder: &OwnedFd, rights: u64) -> io::Result<()> {
    /// The kernel's `struct landlock_path_beneath_attr`.
    #[repr(C, packed)]
    struct Beneath {
        rights: u64,
        folder: i32,
    }
    const PATH_BENEATH: u32 = 1;
    let rule = Beneath { rights, folder: folder.as_raw_fd() };
    // SAFETY: `rule` lives across the call and has the layout that its kind asks for.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0_u32)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Puts this thread and all that comes from it under a set of rules, for good.
pub fn landlock_enter(ruleset: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is touched.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
