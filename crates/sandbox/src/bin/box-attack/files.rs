//! Attacks by files that must not be written, or must not tell anything. Absent: files of the hand, see
//! `attacks`.

use crate::attacks::{Answer, Attack, NOTHING};

/// Levers under `/proc` that must not move.
pub fn written_files() -> impl Iterator<Item = Attack> {
    let paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/kernel/usermodehelper/bset",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/kernel/randomize_va_space",
        "/proc/sys/kernel/unprivileged_bpf_disabled",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sysrq-trigger",
        "/proc/irq/0/smp_affinity",
        "/proc/irq/default_smp_affinity",
        "/proc/acpi/wakeup",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
        "/proc/self/setgroups",
        "/proc/pressure/cpu",
    ];
    paths.into_iter().map(|path| Attack { kind: "levers", name: format!("write {path}"), answer: write_byte(path) })
}

/// Writes what would change nothing, were it taken. A null device takes everything and does nothing.
fn write_byte(path: &str) -> Answer {
    use std::io::Write as _;
    use std::os::unix::fs::FileTypeExt as _;
    if std::fs::metadata(path).is_ok_and(|about| about.file_type().is_char_device()) {
        return Err(NOTHING);
    }
    let before = std::fs::read(path).unwrap_or_default();
    let written = std::fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(&before));
    written.map_err(|error| error.raw_os_error().unwrap_or(-1))
}

/// What `/proc` and `/sys` must not tell.
pub fn read_files() -> impl Iterator<Item = Attack> {
    let paths = [
        "/proc/cmdline",
        "/proc/config.gz",
        "/proc/diskstats",
        "/proc/interrupts",
        "/proc/iomem",
        "/proc/ioports",
        "/proc/kallsyms",
        "/proc/kcore",
        "/proc/key-users",
        "/proc/keys",
        "/proc/kmsg",
        "/proc/kpagecount",
        "/proc/kpageflags",
        "/proc/modules",
        "/proc/mtrr",
        "/proc/pagetypeinfo",
        "/proc/partitions",
        "/proc/sched_debug",
        "/proc/scsi/scsi",
        "/proc/slabinfo",
        "/proc/timer_list",
        "/proc/vmallocinfo",
        "/proc/self/stack",
        "/sys/class/dmi/id/product_uuid",
        "/sys/kernel/security/lsm",
        "/sys/firmware/acpi/tables/DSDT",
    ];
    paths.into_iter().map(|path| Attack { kind: "facts", name: format!("read {path}"), answer: has_bytes(path) })
}

/// Open only if there is something in it.
pub fn has_bytes(path: &str) -> Answer {
    use std::io::Read as _;
    let mut byte = [0];
    match std::fs::File::open(path).and_then(|mut file| file.read(&mut byte)) {
        Ok(read) if read > 0 => Ok(()),
        Ok(_) => Err(NOTHING),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}

pub fn has_entries(path: &str) -> Answer {
    let entries = std::fs::read_dir(path).map_err(|error| error.raw_os_error().unwrap_or(-1))?;
    if entries.count() > 0 { Ok(()) } else { Err(NOTHING) }
}

pub fn foreign_home() -> Answer {
    let others = std::fs::read_dir("/home").map_err(|error| error.raw_os_error().unwrap_or(-1))?;
    if others.flatten().any(|entry| entry.file_name() != "agent") { Ok(()) } else { Err(NOTHING) }
}

/// The trigger is covered by the null device: a write goes nowhere.
pub fn sysrq() -> Answer {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::metadata("/proc/sysrq-trigger") {
        Ok(about) if about.file_type().is_char_device() => Err(NOTHING),
        Ok(_) => Ok(()),
        Err(error) => Err(error.raw_os_error().unwrap_or(-1)),
    }
}
