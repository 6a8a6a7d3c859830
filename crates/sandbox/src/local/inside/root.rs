//! Whether a root file system is one for this kind of machine.
//!
//! Absent: everything else about it. A root may be a single static program.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::plan::{AtStep as _, Failed, Step};

/// The number of this machine's kind in ELF headers, and those of the ones that roots are made for.
#[cfg(target_arch = "x86_64")]
const HERE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const HERE: u16 = 183;
const KINDS: [(u16, &str); 10] = [
    (3, "x86 (32 bit)"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "ppc64"),
    (22, "s390x"),
    (40, "arm (32 bit)"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// Looks at the root's shell. A root without one, or with one that is no program of a machine, is
/// the business of whoever runs commands in it. After the pivot: links in it lead nowhere else.
pub fn runs_here() -> Result<(), Failed> {
    let mut options = std::fs::OpenOptions::new();
    // A pipe under that name must not hold the start up.
    let Ok(shell) = options.read(true).custom_flags(libc::O_NONBLOCK).open("/bin/sh") else { return Ok(()) };
    let mut header = Vec::new();
    if shell.take(20).read_to_end(&mut header).is_err() {
        return Ok(());
    }
    match other_machine(&header) {
        None => Ok(()),
        Some(kind) => Err(std::io::Error::from_raw_os_error(libc::ENOEXEC))
            .at(Step::Root, || format!("its /bin/sh is a program for {kind}, this machine is {}", name(HERE))),
    }
}

/// The kind of machine that an ELF header is for, if it is not this one's.
fn other_machine(header: &[u8]) -> Option<String> {
    let (Some(b"\x7fELF"), Some(&order)) = (header.get(..4), header.get(5)) else { return None };
    let bytes: [u8; 2] = header.get(18..20)?.try_into().ok()?;
    let machine = if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    (machine != HERE).then(|| name(machine))
}

fn name(machine: u16) -> String {
    let known = KINDS.iter().find(|(number, _)| *number == machine);
    known.map_or_else(|| format!("machine number {machine}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_another_machine_is_told_by_name_in_either_byte_order() {
        let header = |order: u8, machine: [u8; 2]| {
            let mut header = b"\x7fELF\x02".to_vec();
            header.push(order);
            header.resize(18, 0);
            header.extend(machine);
            header
        };
        assert_eq!(other_machine(&header(1, HERE.to_le_bytes())), None);
        assert_eq!(other_machine(&header(2, [0, 22])).as_deref(), Some("s390x"));
        assert_eq!(other_machine(&header(1, [243, 0])).as_deref(), Some("riscv64"));
        assert_eq!(other_machine(&header(1, [9, 9])).as_deref(), Some("machine number 2313"));
        assert_eq!(other_machine(b"#!/bin/busybox sh\n..."), None);
        assert_eq!(other_machine(b"\x7fELF"), None);
    }
}
