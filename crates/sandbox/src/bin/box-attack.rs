//! Does its worst from inside a box, for the tests: each attack prints `name blocked ERRNO` or
//! `name OPEN`. Other words make trouble of another sort (processes, memory). Absent: any use
//! outside of tests.
#![expect(unsafe_code, reason = "asks the kernel for what no safe wrapper offers")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test program")]

use std::ffi::CString;
use std::io::Write as _;

type Answer = Result<(), i32>;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn call(number: libc::c_long, a: [usize; 6]) -> Answer {
    // SAFETY: the attacks pass null or valid pointers only; what the kernel makes of it is the test.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

fn open(path: &str, flags: i32) -> Answer {
    let path = CString::new(path).unwrap();
    // SAFETY: the path is a C string.
    if unsafe { libc::open(path.as_ptr(), flags) } < 0 { Err(errno()) } else { Ok(()) }
}

fn link(path: &str) -> Answer {
    std::fs::read_link(path).map(drop).map_err(|error| error.raw_os_error().unwrap_or(-1))
}

fn c(text: &'static std::ffi::CStr) -> usize {
    text.as_ptr() as usize
}

fn socket(family: i32, kind: i32, protocol: i32) -> Answer {
    call(libc::SYS_socket, [family as usize, kind as usize, protocol as usize, 0, 0, 0])
}

fn connect(address: &str) -> Answer {
    match std::net::TcpStream::connect(address) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}

/// A clone into new namespaces; a child that came about ends at once.
fn clone(flags: i32) -> Answer {
    // SAFETY: like fork; the child calls only _exit.
    let pid = unsafe { libc::syscall(libc::SYS_clone, (flags | libc::SIGCHLD) as usize, 0, 0, 0, 0) };
    match pid {
        0 => unsafe { libc::_exit(0) },
        pid if pid > 0 => Ok(()),
        _ => Err(errno()),
    }
}

fn clone3(flags: u64) -> Answer {
    let arguments: [u64; 11] = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, 0];
    // SAFETY: the structure is valid; the child calls only _exit.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    match pid {
        0 => unsafe { libc::_exit(0) },
        pid if pid > 0 => Ok(()),
        _ => Err(errno()),
    }
}

fn terminal_injection() -> Answer {
    // SAFETY: plain calls with valid arguments.
    unsafe {
        let terminal = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        if terminal < 0 {
            return Err(errno());
        }
        let byte = b'x';
        if libc::ioctl(terminal, libc::TIOCSTI, &raw const byte) < 0 { Err(errno()) } else { Ok(()) }
    }
}

/// A 32-bit call of an x86 kernel; the filter kills whoever makes one.
#[cfg(target_arch = "x86_64")]
fn other_architecture() -> Answer {
    // SAFETY: the child makes one call without arguments and ends.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            std::arch::asm!("int 0x80", inout("eax") 20 => _);
            libc::_exit(0);
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, 0);
        if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(()) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn other_architecture() -> Answer {
    Err(libc::SIGSYS)
}

fn attacks() -> Vec<(&'static str, Answer)> {
    let no = [0; 6];
    let first = |value: usize| [value, 0, 0, 0, 0, 0];
    let device = libc::makedev(1, 1) as usize;
    vec![
        ("unshare a user namespace", call(libc::SYS_unshare, first(libc::CLONE_NEWUSER as usize))),
        ("unshare a mount namespace", call(libc::SYS_unshare, first(libc::CLONE_NEWNS as usize))),
        ("clone into a user namespace", clone(libc::CLONE_NEWUSER)),
        ("clone3 into a user namespace", clone3(libc::CLONE_NEWUSER as u64)),
        ("setns", call(libc::SYS_setns, first(0))),
        ("mount a tmpfs", call(libc::SYS_mount, [c(c"x"), c(c"/mnt"), c(c"tmpfs"), 0, 0, 0])),
        (
            "remount /usr writable",
            call(libc::SYS_mount, [0, c(c"/usr"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0, 0]),
        ),
        ("uncover /proc/sys", call(libc::SYS_umount2, [c(c"/proc/sys"), 2, 0, 0, 0, 0])),
        ("fsopen", call(libc::SYS_fsopen, [c(c"tmpfs"), 0, 0, 0, 0, 0])),
        ("open_tree", call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, c(c"/"), 1, 0, 0, 0])),
        ("mount_setattr", call(libc::SYS_mount_setattr, no)),
        ("move_mount", call(libc::SYS_move_mount, no)),
        ("pivot_root", call(libc::SYS_pivot_root, [c(c"/"), c(c"/mnt"), 0, 0, 0, 0])),
        ("chroot", call(libc::SYS_chroot, first(c(c"/tmp")))),
        ("ptrace the hand", call(libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, 1, 0, 0, 0, 0])),
        ("read the hand's memory", call(libc::SYS_process_vm_readv, first(1))),
        ("open the hand's memory", open("/proc/1/mem", libc::O_RDWR)),
        ("open a descriptor of the hand", open("/proc/1/fd/0", libc::O_RDONLY)),
        ("read where a descriptor of the hand leads", link("/proc/1/fd/1")),
        ("enter the hand's root", open("/proc/1/root/etc/passwd", libc::O_RDONLY)),
        ("write the hand's program", open("/.hand", libc::O_WRONLY)),
        ("write the hand's program through /proc", open("/proc/1/exe", libc::O_WRONLY)),
        ("take a descriptor of the hand", call(libc::SYS_pidfd_getfd, no)),
        ("bpf", call(libc::SYS_bpf, no)),
        ("perf_event_open", call(libc::SYS_perf_event_open, no)),
        ("userfaultfd", call(libc::SYS_userfaultfd, no)),
        ("io_uring", call(libc::SYS_io_uring_setup, first(1))),
        ("keyctl", call(libc::SYS_keyctl, no)),
        ("add_key", call(libc::SYS_add_key, [c(c"user"), c(c"k"), c(c"v"), 1, (-3_isize) as usize, 0])),
        ("open_by_handle_at", call(libc::SYS_open_by_handle_at, no)),
        ("fanotify", call(libc::SYS_fanotify_init, no)),
        ("load a module", call(libc::SYS_finit_module, no)),
        ("reboot", call(libc::SYS_reboot, no)),
        ("set the clock", call(libc::SYS_clock_settime, no)),
        ("rename the host", call(libc::SYS_sethostname, [c(c"x"), 1, 0, 0, 0, 0])),
        ("a vsock socket", socket(40, libc::SOCK_STREAM, 0)),
        ("a packet socket", socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("a crypto socket", socket(38, libc::SOCK_SEQPACKET, 0)),
        ("an audit socket", socket(libc::AF_NETLINK, libc::SOCK_RAW, 9)),
        ("a raw socket", socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
        ("connect to 1.1.1.1", connect("1.1.1.1:80")),
        ("connect to the metadata address", connect("169.254.169.254:80")),
        ("connect by IPv6", connect("[2606:4700:4700::1111]:80")),
        ("make a device", call(libc::SYS_mknodat, [libc::AT_FDCWD as usize, c(c"/tmp/mem"), 0o020_666, device, 0, 0])),
        (
            "make a whiteout outside of overlay",
            call(
                libc::SYS_mknodat,
                [libc::AT_FDCWD as usize, c(c"/tmp/full"), 0o020_666, libc::makedev(1, 7) as usize, 0, 0],
            ),
        ),
        ("open /dev/kvm", open("/dev/kvm", libc::O_RDWR)),
        ("open /dev/mem", open("/dev/mem", libc::O_RDONLY)),
        ("open /dev/vda", open("/dev/vda", libc::O_RDONLY)),
        ("write core_pattern", open("/proc/sys/kernel/core_pattern", libc::O_WRONLY)),
        ("allow user namespaces again", open("/proc/sys/user/max_user_namespaces", libc::O_WRONLY)),
        ("write into /usr", open("/usr/x", libc::O_WRONLY | libc::O_CREAT)),
        ("inject into a terminal", terminal_injection()),
        ("an x32 call", call(0x4000_0000 + 39, no)),
        ("a call of another architecture", other_architecture()),
        ("the docker socket", open("/var/run/docker.sock", libc::O_RDWR)),
        ("the host's homes", open("/home", libc::O_RDONLY).and_then(|()| foreign_home())),
        ("the host's init environment", open("/proc/1/environ", libc::O_RDONLY)),
        ("kernel memory", open("/proc/kcore", libc::O_RDONLY).and_then(|()| has_bytes("/proc/kcore"))),
        ("keys", open("/proc/keys", libc::O_RDONLY).and_then(|()| has_bytes("/proc/keys"))),
        ("the kernel's command line", has_bytes("/proc/cmdline")),
        ("sysrq", sysrq()),
    ]
}

/// Open only if there is something in it.
fn has_bytes(path: &str) -> Answer {
    match std::fs::read(path) {
        Ok(bytes) if !bytes.is_empty() => Ok(()),
        Ok(_) => Err(-2),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}

fn foreign_home() -> Answer {
    let others = std::fs::read_dir("/home").unwrap().flatten().any(|entry| entry.file_name() != "agent");
    if others { Ok(()) } else { Err(-2) }
}

/// The trigger is covered by the null device: a write goes nowhere.
fn sysrq() -> Answer {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::metadata("/proc/sysrq-trigger") {
        Ok(about) if about.file_type().is_char_device() => Err(-2),
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}

/// Starts sleeping processes until the kernel says no, and says how many there were.
fn processes() {
    let mut started = 0;
    loop {
        // SAFETY: the child only sleeps.
        let pid = unsafe { libc::fork() };
        if pid < 0 || started >= 5000 {
            break;
        }
        if pid == 0 {
            loop {
                unsafe { libc::pause() };
            }
        }
        started += 1;
    }
    println!("{started}");
    // SAFETY: signals the own process group, this process included.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::kill(0, libc::SIGTERM);
    }
}

/// Forks in every process, for ever, and keeps the processor busy when the kernel says no or somebody
/// asks for an end; each process in a session of its own if `scatter`.
fn bomb(scatter: bool) {
    // SAFETY: ignoring a signal touches no memory.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    loop {
        // SAFETY: the child does what the parent does.
        match unsafe { libc::fork() } {
            // The kernel's shares of processor time are by session where nothing else groups.
            // SAFETY: touches no memory.
            0 if scatter => drop(unsafe { libc::setsid() }),
            // A fork that is under way counts as a process; without pauses half of them would be that.
            ..0 => drop((0..10_000_000_u64).map(std::hint::black_box).sum::<u64>()),
            _ => {}
        }
    }
}

/// Nests so many folders in the working folder, the last of them with a file in it, and locks each.
fn nest(depth: usize) {
    for _ in 0..depth {
        std::fs::create_dir("d").unwrap();
        std::env::set_current_dir("d").unwrap();
        std::fs::set_permissions(".", std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
    }
    std::fs::write("end", "x").unwrap();
}

/// Takes and touches memory up to so many mebibytes.
fn memory(mebibytes: usize) {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(vec![1_u8; 1 << 20]);
    }
    println!("held {}", held.iter().map(|piece| usize::from(piece[4096])).sum::<usize>());
}

/// Hides from its exec id: wipes the environment, leaves the session twice, is adopted.
fn hide(seconds: &str) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: fork and setsid in a process with one thread.
    unsafe {
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        libc::setsid();
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        libc::setsid();
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    #[expect(clippy::disallowed_methods, reason = "a test program that turns into another")]
    let error = std::process::Command::new("/usr/bin/sleep").arg(seconds).env_clear().exec();
    drop(error);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("attacks") => {
            for (name, answer) in attacks() {
                let verdict = answer.map_or_else(|errno| format!("blocked {errno}"), |()| "OPEN".to_owned());
                println!("{name}: {verdict}");
            }
        }
        Some("processes") => processes(),
        Some("memory") => memory(args[2].parse().unwrap()),
        Some("bomb") => bomb(false),
        Some("scatter") => bomb(true),
        Some("nest") => nest(args[2].parse().unwrap()),
        Some("hide") => hide(&args[2]),
        _ => std::process::exit(2),
    }
    let _ = std::io::stdout().flush();
}
