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

/// All processes in the boxes of a provider's data folder, as this machine numbers them.
///
/// Beside each box's files lies the number of its first process; the others share its namespace.
pub fn of_boxes(data: &Path) -> Outcome<HashSet<u32>> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let mut boxes = HashSet::new();
    for entry in std::fs::read_dir(data.join("run"))?.flatten() {
        let first = std::fs::read_to_string(entry.path().join("pid")).unwrap_or_default();
        boxes.extend(first.split_ascii_whitespace().next().and_then(namespace));
    }
    let pids = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let pid = name.to_str()?;
        let inside = boxes.contains(&namespace(pid)?);
        pid.parse().ok().filter(|_| inside)
    });
    Ok(pids.collect())
}

/// Proportional share of memory of these processes together, in MB.
pub fn pss_mb(pids: &HashSet<u32>) -> Outcome<f64> {
    if pids.is_empty() {
        return Err("the processes of the boxes were not found".into());
    }
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
