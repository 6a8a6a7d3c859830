//! The attacks, by what they are on. Each is tried when its turn comes; the answer is the error
//! number with which the kernel refused, or [`NOTHING`] where there was nothing to be had.
//!
//! Absent: whatever ends this program or the box; trouble with limits is in `trouble`.

use std::ffi::{CStr, CString};

use crate::files::{self, foreign_home, has_bytes, has_entries, sysrq};
use crate::sockets;

/// Blocked without an error: what was asked for is empty or not there.
pub const NOTHING: i32 = -2;

pub type Answer = Result<(), i32>;

/// One attack and what came of it.
pub struct Attack {
    pub kind: &'static str,
    pub name: String,
    /// Ok if it succeeded.
    pub answer: Answer,
}

type Try = (&'static str, fn() -> Answer);

/// Tries everything.
pub fn all() -> impl Iterator<Item = Attack> {
    let fixed: [(&'static str, &'static [Try]); 8] = [
        ("namespaces", &NAMESPACES),
        ("mounts", &MOUNTS),
        ("the hand", &HAND),
        ("kernel", &KERNEL),
        ("machine", &MACHINE),
        ("network", &NETWORK),
        ("devices", &DEVICES),
        ("host", &HOST),
    ];
    let fixed = fixed.into_iter().flat_map(|(kind, tries)| {
        tries.iter().map(move |(name, attempt)| Attack { kind, name: (*name).to_owned(), answer: attempt() })
    });
    fixed.chain(sockets::families()).chain(sockets::netlink()).chain(files::written_files()).chain(files::read_files())
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn call(number: libc::c_long, a: [usize; 6]) -> Answer {
    // SAFETY: the attacks pass null or valid pointers only; what the kernel makes of it is the test.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    if result < 0 { Err(errno()) } else { Ok(()) }
}

/// A call without arguments, or with one.
fn bare(number: libc::c_long) -> Answer {
    call(number, [0; 6])
}
fn with(number: libc::c_long, first: usize) -> Answer {
    call(number, [first, 0, 0, 0, 0, 0])
}

fn open(path: &str, flags: i32) -> Answer {
    let path = CString::new(path).unwrap();
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_NONBLOCK) };
    if fd < 0 {
        return Err(errno());
    }
    // SAFETY: the descriptor was just opened here.
    unsafe { libc::close(fd) };
    Ok(())
}

fn link(path: &str) -> Answer {
    std::fs::read_link(path).map(drop).map_err(|error| error.raw_os_error().unwrap_or(-1))
}

fn c(text: &'static CStr) -> usize {
    text.as_ptr() as usize
}

/// Asks for a socket.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Answer {
    call(libc::SYS_socket, [family as usize, kind as usize, protocol as usize, 0, 0, 0])
}

fn connect(address: &str) -> Answer {
    match std::net::TcpStream::connect_timeout(&address.parse().unwrap(), std::time::Duration::from_secs(2)) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}

fn datagram(address: &str) -> Answer {
    let socket = std::net::UdpSocket::bind(if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
    let sent = socket.and_then(|socket| socket.send_to(b"canary.example.invalid", address));
    sent.map(drop).map_err(|error| error.raw_os_error().unwrap_or(-1))
}

/// A clone into new namespaces; a child that came about ends at once.
fn clone(flags: i32) -> Answer {
    // SAFETY: like fork; the child calls only _exit.
    let pid = unsafe { libc::syscall(libc::SYS_clone, (flags | libc::SIGCHLD) as u32 as usize, 0, 0, 0, 0) };
    match pid {
        // SAFETY: ends the child without running anything of the parent's.
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
        // SAFETY: ends the child without running anything of the parent's.
        0 => unsafe { libc::_exit(0) },
        pid if pid > 0 => Ok(()),
        _ => Err(errno()),
    }
}

fn unshare(flag: i32) -> Answer {
    with(libc::SYS_unshare, flag as u32 as usize)
}

const NAMESPACES: [Try; 18] = [
    ("unshare a user namespace", || unshare(libc::CLONE_NEWUSER)),
    ("unshare a mount namespace", || unshare(libc::CLONE_NEWNS)),
    ("unshare a network namespace", || unshare(libc::CLONE_NEWNET)),
    ("unshare a process namespace", || unshare(libc::CLONE_NEWPID)),
    ("unshare a time namespace", || unshare(0x80)),
    ("unshare user and mount namespaces at once", || unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)),
    ("clone into a user namespace", || clone(libc::CLONE_NEWUSER)),
    ("clone into a mount namespace", || clone(libc::CLONE_NEWNS)),
    ("clone into a control group namespace", || clone(libc::CLONE_NEWCGROUP)),
    ("clone3 into a user namespace", || clone3(libc::CLONE_NEWUSER as u64)),
    ("clone3 into a time namespace", || clone3(0x80)),
    ("clone3 into another control group", || clone3(0x2_0000_0000)),
    ("setns", || bare(libc::SYS_setns)),
    ("enter the hand's user namespace", || open("/proc/1/ns/user", libc::O_RDONLY)),
    ("enter the hand's mount namespace", || open("/proc/1/ns/mnt", libc::O_RDONLY)),
    ("more than no user namespaces", || match std::fs::read_to_string("/proc/sys/user/max_user_namespaces") {
        Ok(text) if text.trim() == "0" => Err(NOTHING),
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }),
    ("chroot", || with(libc::SYS_chroot, c(c"/tmp"))),
    ("pivot_root", || call(libc::SYS_pivot_root, [c(c"/"), c(c"/mnt"), 0, 0, 0, 0])),
];

const MOUNTS: [Try; 15] = [
    ("mount a tmpfs", || call(libc::SYS_mount, [c(c"x"), c(c"/mnt"), c(c"tmpfs"), 0, 0, 0])),
    ("mount a second /proc", || call(libc::SYS_mount, [c(c"x"), c(c"/mnt"), c(c"proc"), 0, 0, 0])),
    ("mount the control groups", || call(libc::SYS_mount, [c(c"x"), c(c"/mnt"), c(c"cgroup2"), 0, 0, 0])),
    ("bind the root elsewhere", || {
        call(libc::SYS_mount, [c(c"/"), c(c"/mnt"), 0, (libc::MS_BIND | libc::MS_REC) as usize, 0, 0])
    }),
    ("remount /usr writable", || {
        call(libc::SYS_mount, [0, c(c"/usr"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0, 0])
    }),
    ("share mounts with the host", || {
        call(libc::SYS_mount, [0, c(c"/"), 0, (libc::MS_SHARED | libc::MS_REC) as usize, 0, 0])
    }),
    ("uncover /proc/sys", || call(libc::SYS_umount2, [c(c"/proc/sys"), 2, 0, 0, 0, 0])),
    ("uncover /proc/cmdline", || call(libc::SYS_umount2, [c(c"/proc/cmdline"), 2, 0, 0, 0, 0])),
    ("fsopen", || call(libc::SYS_fsopen, [c(c"tmpfs"), 0, 0, 0, 0, 0])),
    ("fspick", || call(libc::SYS_fspick, [libc::AT_FDCWD as usize, c(c"/"), 0, 0, 0, 0])),
    ("open_tree", || call(libc::SYS_open_tree, [libc::AT_FDCWD as usize, c(c"/"), 1, 0, 0, 0])),
    ("open_tree_attr", || call(467, [libc::AT_FDCWD as usize, c(c"/"), 1, 0, 0, 0])),
    ("mount_setattr", || bare(libc::SYS_mount_setattr)),
    ("move_mount", || bare(libc::SYS_move_mount)),
    ("list mounts by number", || bare(458)),
];

const HAND: [Try; 30] = [
    ("ptrace it", || call(libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, 1, 0, 0, 0, 0])),
    ("seize it", || call(libc::SYS_ptrace, [0x4206, 1, 0, 0, 0, 0])),
    ("read its memory", || with(libc::SYS_process_vm_readv, 1)),
    ("write its memory", || with(libc::SYS_process_vm_writev, 1)),
    ("open its memory", || open("/proc/1/mem", libc::O_RDWR)),
    ("read its map", || has_bytes("/proc/1/maps")),
    ("read its environment", || has_bytes("/proc/1/environ")),
    ("read its stack", || has_bytes("/proc/1/stack")),
    ("read what it waits for", || has_bytes("/proc/1/syscall")),
    ("open a descriptor of it", || open("/proc/1/fd/0", libc::O_RDONLY)),
    ("read where a descriptor of it leads", || link("/proc/1/fd/1")),
    ("take a descriptor of it", || bare(libc::SYS_pidfd_getfd)),
    ("enter its root", || open("/proc/1/root/etc/passwd", libc::O_RDONLY)),
    ("enter its working folder", || open("/proc/1/cwd/.", libc::O_RDONLY)),
    ("read its program", || open("/proc/1/exe", libc::O_RDONLY)),
    ("write its program", || open("/proc/1/exe", libc::O_WRONLY)),
    ("find its program", || link("/proc/1/exe")),
    ("make it the first to go without memory", || open("/proc/1/oom_score_adj", libc::O_WRONLY)),
    ("make its group wait", || open("/proc/1/autogroup", libc::O_WRONLY)),
    ("forget its pages", || open("/proc/1/clear_refs", libc::O_WRONLY)),
    ("limit its processor time", || limit_the_hand(libc::RLIMIT_CPU as usize)),
    ("limit its open files", || limit_the_hand(libc::RLIMIT_NOFILE as usize)),
    ("make it nice", || call(libc::SYS_setpriority, [0, 1, 19, 0, 0, 0])),
    ("make its group nice", || call(libc::SYS_setpriority, [1, 1, 19, 0, 0, 0])),
    ("make everybody nice", || call(libc::SYS_setpriority, [2, 0, 19, 0, 0, 0])),
    ("let it run when nobody else does", || {
        let parameters = 0_i32;
        call(libc::SYS_sched_setscheduler, [1, libc::SCHED_IDLE as usize, &raw const parameters as usize, 0, 0, 0])
    }),
    ("keep it on no processor", || {
        let mask = 1_u64;
        call(libc::SYS_sched_setaffinity, [1, 8, &raw const mask as usize, 0, 0, 0])
    }),
    ("make its disk access idle", || call(libc::SYS_ioprio_set, [1, 1, 3 << 13, 0, 0, 0])),
    ("compare with it", || call(libc::SYS_kcmp, [1, 1, 0, 0, 0, 0])),
    ("give its memory advice", || bare(libc::SYS_process_madvise)),
];

/// Any limit set from outside would do; at worst the kernel then ends the hand.
fn limit_the_hand(resource: usize) -> Answer {
    let limit = [1_000_000_u64, 1_000_000];
    call(libc::SYS_prlimit64, [1, resource, &raw const limit as usize, 0, 0, 0])
}

const KERNEL: [Try; 26] = [
    ("bpf", || bare(libc::SYS_bpf)),
    ("perf_event_open", || bare(libc::SYS_perf_event_open)),
    ("userfaultfd", || bare(libc::SYS_userfaultfd)),
    ("io_uring_setup", || with(libc::SYS_io_uring_setup, 1)),
    ("io_uring_enter", || bare(libc::SYS_io_uring_enter)),
    ("io_uring_register", || bare(libc::SYS_io_uring_register)),
    ("keyctl", || bare(libc::SYS_keyctl)),
    ("add_key", || call(libc::SYS_add_key, [c(c"user"), c(c"k"), c(c"v"), 1, (-3_isize) as usize, 0])),
    ("request_key", || call(libc::SYS_request_key, [c(c"user"), c(c"k"), 0, 0, 0, 0])),
    ("name_to_handle_at", || bare(libc::SYS_name_to_handle_at)),
    ("open_by_handle_at", || bare(libc::SYS_open_by_handle_at)),
    ("fanotify", || bare(libc::SYS_fanotify_init)),
    ("load a module", || bare(libc::SYS_finit_module)),
    ("load a module from memory", || bare(libc::SYS_init_module)),
    ("remove a module", || bare(libc::SYS_delete_module)),
    ("load another kernel", || bare(libc::SYS_kexec_load)),
    ("load another kernel from a file", || bare(libc::SYS_kexec_file_load)),
    ("make data run", || with(libc::SYS_personality, 0x040_0000)),
    ("map the zero page", || with(libc::SYS_personality, 0x010_0000)),
    ("move pages of others", || with(libc::SYS_move_pages, 1)),
    ("migrate pages", || with(libc::SYS_migrate_pages, 1)),
    ("remap_file_pages", || bare(libc::SYS_remap_file_pages)),
    ("an x32 call", || call(0x4000_0000 + 39, [0; 6])),
    ("an x32 call of its own", || call(0x4000_0000 + 520, [0; 6])),
    ("a call of another architecture", other_architecture),
    ("a wall of Landlock less", landlock_layers),
];

const MACHINE: [Try; 17] = [
    ("reboot", || bare(libc::SYS_reboot)),
    ("set the clock", || bare(libc::SYS_clock_settime)),
    ("set the time of day", || bare(libc::SYS_settimeofday)),
    ("adjust the clock", || bare(libc::SYS_clock_adjtime)),
    ("adjust the time", || bare(libc::SYS_adjtimex)),
    ("rename the host", || call(libc::SYS_sethostname, [c(c"x"), 1, 0, 0, 0, 0])),
    ("rename the domain", || call(libc::SYS_setdomainname, [c(c"x"), 1, 0, 0, 0, 0])),
    ("read the kernel's log", || call(libc::SYS_syslog, [3, 0, 0, 0, 0, 0])),
    ("swap on a file", || with(libc::SYS_swapon, c(c"/tmp/x"))),
    ("swap off", || with(libc::SYS_swapoff, c(c"/tmp/x"))),
    ("account processes", || with(libc::SYS_acct, c(c"/tmp/x"))),
    ("set quotas", || bare(libc::SYS_quotactl)),
    ("set quotas by descriptor", || bare(libc::SYS_quotactl_fd)),
    ("hang up the terminal", || bare(libc::SYS_vhangup)),
    ("reach ports of the processor", || ports(true)),
    ("reach one port of the processor", || ports(false)),
    ("sysrq", sysrq),
];

#[cfg(target_arch = "x86_64")]
fn ports(all: bool) -> Answer {
    if all { with(libc::SYS_iopl, 3) } else { call(libc::SYS_ioperm, [0x80, 1, 1, 0, 0, 0]) }
}
#[cfg(not(target_arch = "x86_64"))]
fn ports(_all: bool) -> Answer {
    Err(libc::ENOSYS)
}

const NETWORK: [Try; 15] = [
    ("a raw socket", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("a raw socket of IPv6", || socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)),
    ("a pair of vsock sockets", || {
        let mut pair = [0_i32; 2];
        call(libc::SYS_socketpair, [40, 1, 0, pair.as_mut_ptr() as usize, 0, 0])
    }),
    ("connect to 1.1.1.1", || connect("1.1.1.1:80")),
    ("connect to the metadata address", || connect("169.254.169.254:80")),
    ("connect to the metadata address of IPv6", || connect("[fd00:ec2::254]:80")),
    ("connect to a private address", || connect("10.0.0.1:443")),
    ("connect to a container bridge", || connect("172.17.0.1:2375")),
    ("connect by IPv6", || connect("[2606:4700:4700::1111]:80")),
    ("connect to IPv4 by IPv6", || connect("[::ffff:1.1.1.1]:80")),
    ("ask a resolver", || datagram("8.8.8.8:53")),
    ("ask a resolver by IPv6", || datagram("[2001:4860:4860::8888]:53")),
    ("ask the neighbours", || datagram("224.0.0.251:5353")),
    ("broadcast", || datagram("255.255.255.255:67")),
    ("resolve a name", || {
        use std::net::ToSocketAddrs as _;
        ("canary.example.com", 80).to_socket_addrs().map(drop).map_err(|_| NOTHING)
    }),
];

const DEVICES: [Try; 19] = [
    ("make /dev/mem", || make_device(1, 1)),
    ("make a disk", || make_device(254, 0)),
    ("make /dev/kmsg", || make_device(1, 11)),
    ("make /dev/full", || make_device(1, 7)),
    ("make a whiteout", || make_device(0, 0)),
    ("open /dev/kvm", || open("/dev/kvm", libc::O_RDWR)),
    ("open /dev/mem", || open("/dev/mem", libc::O_RDONLY)),
    ("open /dev/port", || open("/dev/port", libc::O_RDONLY)),
    ("open /dev/kmsg", || open("/dev/kmsg", libc::O_RDONLY)),
    ("open /dev/vda", || open("/dev/vda", libc::O_RDONLY)),
    ("open /dev/sda", || open("/dev/sda", libc::O_RDONLY)),
    ("open /dev/fuse", || open("/dev/fuse", libc::O_RDWR)),
    ("open /dev/net/tun", || open("/dev/net/tun", libc::O_RDWR)),
    ("open /dev/vsock", || open("/dev/vsock", libc::O_RDWR)),
    ("open /dev/loop-control", || open("/dev/loop-control", libc::O_RDWR)),
    ("open /dev/console", || open("/dev/console", libc::O_RDWR)),
    ("open the terminal", || open("/dev/tty", libc::O_RDWR)),
    ("type into a terminal", || terminal(libc::TIOCSTI as usize)),
    ("paste into a terminal", || terminal(0x541c)),
];

fn make_device(major: u32, minor: u32) -> Answer {
    let path = CString::new(format!("/tmp/device-{major}-{minor}")).unwrap();
    let device = libc::makedev(major, minor) as usize;
    call(libc::SYS_mknodat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0o020_666, device, 0, 0])
}

fn terminal(request: usize) -> Answer {
    // SAFETY: plain calls with valid arguments.
    unsafe {
        let terminal = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        if terminal < 0 {
            return Err(errno());
        }
        let byte = b'x';
        call(libc::SYS_ioctl, [terminal as usize, request, &raw const byte as usize, 0, 0, 0])
    }
}

const HOST: [Try; 11] = [
    ("the docker socket", || open("/var/run/docker.sock", libc::O_RDWR)),
    ("the containerd socket", || open("/run/containerd/containerd.sock", libc::O_RDWR)),
    ("the system bus", || open("/run/dbus/system_bus_socket", libc::O_RDWR)),
    ("homes", foreign_home),
    ("its root's home", || has_entries("/root")),
    ("its password file", || has_bytes("/etc/shadow")),
    ("its keys", || has_entries("/etc/ssh")),
    ("its devices by /sys", || has_entries("/sys/block")),
    ("its control groups by /sys", || has_entries("/sys/fs/cgroup")),
    ("write into /usr", || open("/usr/x", libc::O_WRONLY | libc::O_CREAT)),
    ("write a program of /usr", || open("/usr/bin/env", libc::O_WRONLY)),
];

/// A process can be under 16 sets of Landlock's rules; where one more than 15 fits, the box has none
/// around it. A kernel without Landlock has no such wall to be missing.
fn landlock_layers() -> Answer {
    // SAFETY: the child makes calls with valid arguments only and ends by itself.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let rights = 1_u64 << 1;
            let mut layers = 0;
            loop {
                let ruleset = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const rights, 8_usize, 0_u32);
                if ruleset < 0 || libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32) < 0 || layers > 20 {
                    libc::_exit(if ruleset < 0 { 100 } else { layers });
                }
                layers += 1;
            }
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, 0);
        match libc::WEXITSTATUS(status) {
            100 => Err(libc::ENOSYS),
            0..=15 => Err(NOTHING),
            _ => Ok(()),
        }
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
