//! What the machine itself costs: a bare process, memory as the kernel counts it.
//!
//! Absent: boxes.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::report::Outcome;

/// A bare `echo`, from before its start to its end with its output read.
pub fn bare_echo() -> Outcome<Duration> {
    let begun = Instant::now();
    let output = Command::new("/bin/echo").arg("x").stdin(Stdio::null()).output()?;
    let took = begun.elapsed();
    if output.stdout == b"x\n" { Ok(took) } else { Err("a bare `echo` did not answer".into()) }
}

/// So many bare `echo`s at once, until all have ended and answered.
pub fn bare_echoes(count: usize) -> Outcome<Duration> {
    let begun = Instant::now();
    let start = |_| Command::new("/bin/echo").arg("x").stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let all = (0..count).map(start).collect::<Result<Vec<Child>, _>>()?;
    for one in all {
        if one.wait_with_output()?.stdout != b"x\n" {
            return Err("a bare `echo` did not answer".into());
        }
    }
    Ok(begun.elapsed())
}

/// Memory that programs could still have, in MB.
pub fn available_mb() -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    Ok(kilobytes(&text, "MemAvailable:").ok_or("/proc/meminfo does not say what is available")? / 1000.0)
}

/// All processes of boxes and of this program besides this one: in another pid namespace than ours,
/// or running our file.
pub fn of_boxes() -> Outcome<HashSet<u32>> {
    let ours = std::fs::read_link("/proc/self/ns/pid")?;
    let program = std::fs::read_link("/proc/self/exe")?;
    let is_of_box = |pid: u32| {
        let about = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}"));
        about("ns/pid").is_ok_and(|other| other != ours) || about("exe").is_ok_and(|exe| exe == program)
    };
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| *pid != std::process::id() && is_of_box(*pid)).collect())
}

/// Proportional share of memory of these processes together, in MB.
pub fn pss_mb<'p>(pids: impl IntoIterator<Item = &'p u32>) -> Outcome<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        let text = text.map_err(|error| format!("can't see the memory of process {pid}: {error}"))?;
        sum += kilobytes(&text, "Pss:").ok_or("no Pss in smaps_rollup")?;
    }
    // The kernel's kB are 1024 bytes.
    Ok(sum * 1024.0 / 1e6)
}

fn kilobytes(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

/// Free bytes of a folder's filesystem for this user.
pub fn free_bytes(folder: &Path) -> Outcome<u64> {
    let about = rustix::fs::statvfs(folder)?;
    Ok(about.f_bavail * about.f_frsize)
}

/// Waits until what was written to a folder's filesystem is on its disk.
pub fn settle(folder: &Path) -> Outcome {
    Ok(rustix::fs::syncfs(std::fs::File::open(folder)?)?)
}
