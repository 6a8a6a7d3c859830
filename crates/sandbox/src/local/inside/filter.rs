//! The system call filter: what no program in a box may ask of the kernel.
//!
//! A list of denials in classic BPF. Denied calls fail with `EPERM`, or with `ENOSYS` where programs
//! then use an older call that can be looked into: `clone3` hides its flags in memory, so it does
//! not exist here, and `clone` is checked. Another architecture's calls kill the process. Allowed on
//! purpose: `memfd_create` (compilers of running programs need it, and it counts as memory),
//! `pidfd_open` (it finds the box's own processes only), `landlock` and further `seccomp` filters (they
//! only take away), route netlink (programs list their addresses by it; changing anything takes a
//! capability that no box has). `personality` may switch off the randomness of addresses, for debuggers
//! and sanitizers, and nothing else that weakens a program.
//!
//! The hand runs as the same user as the commands, so the kernel would let them set its limits (one on
//! processor time ends it) and its priority: calls that do so for the hand, for all of a user's
//! processes, or limits of any other process, are denied.
//! Absent: an allow-list (it would break programs that this one does not know).

use libc::{c_long, sock_filter};

/// `BPF_LD | BPF_W | BPF_ABS`
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`
const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`
#[cfg(target_arch = "x86_64")]
const IF_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`
const IF_ANY_BIT: u16 = 0x45;
/// `BPF_RET | BPF_K`
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    // The low half, on little-endian machines.
    16 + index * 8
}

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const fn fail(errno: i32) -> u32 {
    0x0005_0000 | (errno.cast_unsigned() & 0xffff)
}

#[cfg(target_arch = "x86_64")]
const OWN_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN_ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the filter knows x86_64 and aarch64 only");

/// All CLONE_NEW* bits of `clone`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// Socket families that work: unix, IPv4, IPv6. Netlink is looked at by protocol.
const FAMILIES: [u32; 3] = [libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32];

/// Calls newer than the C library's list.
const OPEN_TREE_ATTR: c_long = 467;
const STATMOUNT: c_long = 457;
const LISTMOUNT: c_long = 458;

/// Denied with `EPERM` on every architecture.
const DENIED: [c_long; 55] = [
    // mounts, roots, namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    STATMOUNT,
    LISTMOUNT,
    libc::SYS_unshare,
    libc::SYS_setns,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // large parts of the kernel that builds and tests do not need
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // the machine
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_remap_file_pages,
    libc::SYS_kexec_file_load,
];

/// Denied with `EPERM`, on x86 only.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [c_long; 5] =
    [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS__sysctl];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [c_long; 0] = [];

/// Not there: programs fall back to something else.
const UNKNOWN: [c_long; 4] =
    [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Terminal requests that put words into somebody else's mouth.
const BAD_IOCTLS: [u32; 2] = [0x5412, 0x541c];

/// What `personality` may be asked for: PER_LINUX32, UNAME26 and ADDR_NO_RANDOMIZE, or to tell.
const PERSONALITIES: u32 = 0x0006_0008;
const TELL_PERSONALITY: u32 = u32::MAX;

/// The hand's process number in its box.
const HAND: u32 = 1;

/// Calls that change how a process or a group is scheduled, with the argument that names it.
const SCHEDULING: [(c_long, u32); 6] = [
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];
/// Those of them that may also mean all processes of a user, and the first argument that says so.
/// (PRIO_USER, IOPRIO_WHO_USER)
const OF_A_USER: [(c_long, u32); 2] = [(libc::SYS_setpriority, 2), (libc::SYS_ioprio_set, 3)];

const fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The whole program.
pub fn program() -> Vec<sock_filter> {
    let mut code = vec![
        step(LOAD, ARCHITECTURE, 0, 0),
        step(IF_EQUAL, OWN_ARCHITECTURE, 1, 0),
        step(RETURN, KILL, 0, 0),
        step(LOAD, NUMBER, 0, 0),
    ];
    // The x32 calls of an x86_64 kernel are the same calls under other numbers.
    #[cfg(target_arch = "x86_64")]
    code.extend([step(IF_AT_LEAST, 0x4000_0000, 0, 1), step(RETURN, fail(libc::ENOSYS), 0, 0)]);
    for number in UNKNOWN {
        code.extend(on_call(number, vec![step(RETURN, fail(libc::ENOSYS), 0, 0)]));
    }
    for number in DENIED.into_iter().chain(DENIED_HERE) {
        code.extend(on_call(number, vec![step(RETURN, fail(libc::EPERM), 0, 0)]));
    }
    code.extend(on_call(
        libc::SYS_clone,
        vec![
            step(LOAD, argument(0), 0, 0),
            step(IF_ANY_BIT, NEW_NAMESPACES, 0, 1),
            step(RETURN, fail(libc::EPERM), 0, 0),
            step(RETURN, ALLOW, 0, 0),
        ],
    ));
    code.extend(on_call(
        libc::SYS_personality,
        vec![
            step(LOAD, argument(0), 0, 0),
            step(IF_EQUAL, TELL_PERSONALITY, 0, 1),
            step(RETURN, ALLOW, 0, 0),
            step(IF_ANY_BIT, !PERSONALITIES, 0, 1),
            step(RETURN, fail(libc::EPERM), 0, 0),
            step(RETURN, ALLOW, 0, 0),
        ],
    ));
    for (number, named_by) in SCHEDULING {
        code.extend(on_call(number, scheduling_check(number, named_by)));
    }
    code.extend(on_call(
        libc::SYS_prlimit64,
        vec![
            step(LOAD, argument(0), 0, 0),
            step(IF_EQUAL, 0, 5, 0),
            // Another process is named: its limits may be read, so a new one must be a null pointer.
            step(LOAD, argument(2), 0, 0),
            step(IF_EQUAL, 0, 0, 2),
            step(LOAD, argument(2) + 4, 0, 0),
            step(IF_EQUAL, 0, 1, 0),
            step(RETURN, fail(libc::EPERM), 0, 0),
            step(RETURN, ALLOW, 0, 0),
        ],
    ));
    let mut ioctl = vec![step(LOAD, argument(1), 0, 0)];
    for request in BAD_IOCTLS {
        ioctl.extend([step(IF_EQUAL, request, 0, 1), step(RETURN, fail(libc::EPERM), 0, 0)]);
    }
    ioctl.push(step(RETURN, ALLOW, 0, 0));
    code.extend(on_call(libc::SYS_ioctl, ioctl));
    for number in [libc::SYS_socket, libc::SYS_socketpair] {
        code.extend(on_call(number, socket_check()));
    }
    code.push(step(RETURN, ALLOW, 0, 0));
    code
}

fn scheduling_check(number: c_long, named_by: u32) -> Vec<sock_filter> {
    let mut check =
        vec![step(LOAD, argument(named_by), 0, 0), step(IF_EQUAL, HAND, 0, 1), step(RETURN, fail(libc::EPERM), 0, 0)];
    for (_, user) in OF_A_USER.into_iter().filter(|(of_a_user, _)| *of_a_user == number) {
        check.extend([
            step(LOAD, argument(0), 0, 0),
            step(IF_EQUAL, user, 0, 1),
            step(RETURN, fail(libc::EPERM), 0, 0),
        ]);
    }
    check.push(step(RETURN, ALLOW, 0, 0));
    check
}

fn socket_check() -> Vec<sock_filter> {
    let mut check = vec![step(LOAD, argument(0), 0, 0)];
    for family in FAMILIES {
        check.extend([step(IF_EQUAL, family, 0, 1), step(RETURN, ALLOW, 0, 0)]);
    }
    check.extend([
        step(IF_EQUAL, libc::AF_NETLINK as u32, 1, 0),
        step(RETURN, fail(libc::EAFNOSUPPORT), 0, 0),
        step(LOAD, argument(2), 0, 0),
        step(IF_EQUAL, libc::NETLINK_ROUTE as u32, 0, 1),
        step(RETURN, ALLOW, 0, 0),
        step(RETURN, fail(libc::EPROTONOSUPPORT), 0, 0),
    ]);
    check
}

/// `body`, skipped unless the call has this number. A body ends with a return on every path.
fn on_call(number: c_long, body: Vec<sock_filter>) -> Vec<sock_filter> {
    let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut code = vec![step(IF_EQUAL, number, 0, skip)];
    code.extend(body);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn verdict(architecture: u32, number: c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&(number as u32).to_le_bytes());
        data.extend_from_slice(&architecture.to_le_bytes());
        data.extend_from_slice(&0_u64.to_le_bytes());
        for argument in arguments {
            data.extend_from_slice(&argument.to_le_bytes());
        }
        let (code, mut at, mut value) = (program(), 0_usize, 0_u32);
        loop {
            let now = code[at];
            let jump = |taken: bool| 1 + usize::from(if taken { now.jt } else { now.jf });
            at += match now.code {
                LOAD => {
                    let place = now.k as usize;
                    value = u32::from_le_bytes(data[place..place + 4].try_into().unwrap());
                    1
                }
                IF_EQUAL => jump(value == now.k),
                IF_AT_LEAST => jump(value >= now.k),
                IF_ANY_BIT => jump(value & now.k != 0),
                RETURN => return now.k,
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    fn on(number: c_long, arguments: [u64; 6]) -> u32 {
        verdict(OWN_ARCHITECTURE, number, arguments)
    }

    #[test]
    fn ordinary_calls_pass_and_listed_ones_do_not() {
        assert_eq!(on(libc::SYS_read, [0; 6]), ALLOW);
        assert_eq!(on(libc::SYS_execve, [0; 6]), ALLOW);
        for number in DENIED.into_iter().chain(DENIED_HERE) {
            assert_eq!(on(number, [0; 6]), fail(libc::EPERM), "call {number}");
        }
        for number in UNKNOWN {
            assert_eq!(on(number, [0; 6]), fail(libc::ENOSYS), "call {number}");
        }
    }

    #[test]
    fn a_clone_makes_threads_and_processes_but_no_namespaces() {
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;
        assert_eq!(on(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        for bit in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ] {
            let flags = u64::from(bit as u32) | 17;
            assert_eq!(on(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]), fail(libc::EPERM), "bit {bit:#x}");
        }
    }

    #[test]
    fn only_unix_internet_and_route_sockets_exist() {
        for family in 0..64_u64 {
            let wanted = match i32::try_from(family).unwrap() {
                libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 => ALLOW,
                libc::AF_NETLINK => continue,
                _ => fail(libc::EAFNOSUPPORT),
            };
            assert_eq!(on(libc::SYS_socket, [family, 1, 0, 0, 0, 0]), wanted, "family {family}");
        }
        assert_eq!(on(libc::SYS_socket, [16, 3, 0, 0, 0, 0]), ALLOW);
        assert_eq!(on(libc::SYS_socket, [16, 3, 9, 0, 0, 0]), fail(libc::EPROTONOSUPPORT));
    }

    #[test]
    fn a_personality_may_fix_addresses_but_not_make_data_run() {
        for asked in [0_u64, 8, 0x4_0000, 0x2_0008, 0xffff_ffff] {
            assert_eq!(on(libc::SYS_personality, [asked, 0, 0, 0, 0, 0]), ALLOW, "{asked:#x}");
        }
        for asked in [0x40_0000_u64, 0x10_0000, 0x44_0000, 0x20_0000, 1] {
            assert_eq!(on(libc::SYS_personality, [asked, 0, 0, 0, 0, 0]), fail(libc::EPERM), "{asked:#x}");
        }
    }

    #[test]
    fn the_hands_limits_and_priority_are_out_of_reach_and_ones_own_are_not() {
        let limit = |pid: u64, new: u64| on(libc::SYS_prlimit64, [pid, 0, new, 0, 0, 0]);
        assert_eq!([limit(0, 0x7fff_0000_1000), limit(1, 0), limit(77, 0)], [ALLOW; 3]);
        let no = fail(libc::EPERM);
        assert_eq!([limit(1, 0x1000), limit(2, 0x1000), limit(1, 1 << 40), limit(1 | 1 << 32, 0x1000)], [no; 4]);
        for (number, named_by) in SCHEDULING {
            let naming = |pid: u64, which: u64| {
                let mut arguments = [which, 0, 0, 0, 0, 0];
                arguments[named_by as usize] = pid;
                on(number, arguments)
            };
            assert_eq!([naming(1, 0), naming(0, 0), naming(42, 0)], [no, ALLOW, ALLOW], "call {number}");
        }
        for (number, user) in OF_A_USER {
            assert_eq!(on(number, [u64::from(user), 0, 19, 0, 0, 0]), no, "call {number}");
        }
    }

    #[test]
    fn terminal_requests_that_type_for_others_are_refused_whatever_the_upper_half_says() {
        for request in BAD_IOCTLS {
            for high in [0_u64, 1 << 32, u64::MAX << 32] {
                assert_eq!(on(libc::SYS_ioctl, [0, high | u64::from(request), 0, 0, 0, 0]), fail(libc::EPERM));
            }
        }
        assert_eq!(on(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn another_architectures_calls_kill_and_x32_calls_do_not_exist() {
        assert_eq!(verdict(0x4000_0003, 0, [0; 6]), KILL);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(on(0x4000_0000, [0; 6]), fail(libc::ENOSYS));
    }
}
