//! For which machine a base's programs are.
//!
//! Judged by the first shell that is found, since that is what runs first. Absent: running
//! anything.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::land::Ground;
use super::report::ImportError;

/// Where shells lie. Links are followed by hand: inside the base, and not far.
const SHELLS: [&str; 6] = ["bin/sh", "usr/bin/sh", "bin/busybox", "bin/bash", "usr/bin/bash", "bin/dash"];

/// Compares the base's shell with this machine; without one says so in the report.
pub fn check(ground: &mut Ground) -> Result<(), ImportError> {
    let host = File::open("/proc/self/exe").ok().and_then(|program| machine(&start_of(program)?));
    let found = SHELLS.iter().find_map(|shell| read_start(ground, Path::new(shell)));
    let Some(start) = found else {
        ground.report.notes.push("there is no shell in the base, so setup and start commands cannot run".into());
        return Ok(());
    };
    match (machine(&start), host) {
        (Some(found), Some(host)) if found != host => {
            Err(ImportError::OtherArchitecture { found: name(found), host: name(host) })
        }
        _ => Ok(()),
    }
}

/// The first bytes of a program; links to it are followed as inside the base.
fn read_start(ground: &Ground, path: &Path) -> Option<[u8; 20]> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        if let Ok(fd) = ground.look(&path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK) {
            return start_of(File::from(fd));
        }
        path = step(ground, &path)?;
    }
    None
}

fn start_of(mut program: File) -> Option<[u8; 20]> {
    let mut start = [0; 20];
    program.read_exact(&mut start).ok().map(|()| start)
}

/// The path with its first link replaced by where that leads.
fn step(ground: &Ground, path: &Path) -> Option<PathBuf> {
    let mut walked = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        let folder = ground.look(&walked, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        let Ok(target) = rustix::fs::readlinkat(&folder, part.as_os_str(), Vec::new()) else {
            walked.push(part);
            continue;
        };
        let target = PathBuf::from(String::from_utf8(target.into_bytes()).ok()?);
        let mut whole = PathBuf::new();
        for part in walked.join(target).join(parts.as_path()).components() {
            match part {
                std::path::Component::Normal(part) => whole.push(part),
                std::path::Component::ParentDir => drop(whole.pop()),
                _ => {}
            }
        }
        return Some(whole);
    }
    None
}

/// Class, byte order and machine of an ELF program.
fn machine(start: &[u8]) -> Option<(u8, u16)> {
    let [0x7f, b'E', b'L', b'F', class, order, ..] = start else { return None };
    let machine: [u8; 2] = start.get(18..20)?.try_into().ok()?;
    Some((*class, if *order == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) }))
}

fn name((class, machine): (u8, u16)) -> String {
    let known = match machine {
        3 => "x86",
        8 => "mips",
        20 | 21 => "powerpc",
        22 => "s390",
        40 => "arm",
        62 => "x86-64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        _ => return format!("ELF machine {machine}"),
    };
    format!("{known} ({} bit)", if class == 2 { 64 } else { 32 })
}
