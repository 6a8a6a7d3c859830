//! Limits by control groups, version 2 or single version 1 controllers, where this program may
//! write them.
//!
//! Found out by making a group and taking it away again. Groups are children of this program's
//! own, so a limit on the platform as a whole covers its boxes. Absent: the joining (the launcher
//! does that, before the box exists) and any library (it is a handful of files).

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::port::{CgroupSupport, Limits, Problem};

const MOUNT: &str = "/sys/fs/cgroup";
/// One processor's worth of time in a period, in microseconds.
const PERIOD_US: u64 = 100_000;

/// A group that a box joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its folder.
    pub folder: PathBuf,
    /// Files and what is written into them before the box joins. A file that is not there is
    /// skipped if its name ends with `?`.
    pub settings: Vec<(String, String)>,
    /// The file into which `0` is written to join. In version 1 that is `tasks`: a single thread
    /// that moves itself needs no machine-wide lock, where `cgroup.procs` waits for every processor
    /// (measured: up to 30 ms).
    pub join: String,
}

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Below this folder of the unified hierarchy.
    V2(PathBuf),
    /// Below these folders of single controllers.
    V1 { memory: Option<PathBuf>, pids: Option<PathBuf>, cpu: Option<PathBuf>, freezer: Option<PathBuf> },
    /// Nowhere.
    None,
}

impl Cgroups {
    /// Finds out what can be used; `label` tells groups of several data folders apart.
    pub fn detect(label: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if let Some(parent) = unified(&own, label) {
            return Self::V2(parent);
        }
        let single = |name: &str| {
            let path = own.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|controller| controller == name).then_some(path)
            })?;
            let mount = Path::new(MOUNT).join(name);
            [mount.join(path.trim_start_matches('/')), mount].into_iter().find(|parent| can_make(parent, label))
        };
        match (single("memory"), single("pids"), single("cpu")) {
            (None, None, None) => Self::None,
            (memory, pids, cpu) => Self::V1 { memory, pids, cpu, freezer: single("freezer") },
        }
    }

    /// What of it holds.
    pub const fn support(&self) -> CgroupSupport {
        match self {
            Self::V2(_) => CgroupSupport::V2,
            Self::V1 { memory, pids, cpu, .. } => {
                CgroupSupport::V1 { memory: memory.is_some(), pids: pids.is_some(), cpu: cpu.is_some() }
            }
            Self::None => CgroupSupport::None,
        }
    }

    /// What is lacking.
    pub fn problem(&self) -> Option<Problem> {
        let lacking = match self.support() {
            CgroupSupport::V2 | CgroupSupport::V1 { memory: true, pids: true, cpu: true } => return None,
            CgroupSupport::V1 { memory, pids, cpu } => {
                let names = [("memory", memory), ("pids", pids), ("cpu", cpu)];
                names.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            }
            CgroupSupport::None => "memory, pids, cpu".to_owned(),
        };
        Some(Problem {
            what: "sandboxes have no limit on memory and processor time from the system".into(),
            why: format!("no control group for {lacking} under {MOUNT} can be made by this user; processes are limited by RLIMIT_NPROC only"),
            fix: "Run the server as root, or as a systemd user service with `Delegate=yes` on a machine with control groups version 2.".into(),
            fatal: false,
        })
    }

    /// The groups of one box.
    pub fn groups(&self, name: &str, limits: Limits) -> Vec<Group> {
        let quota = limits.cpu_millis.map(|millis| (u64::from(millis) * PERIOD_US / 1000).max(1000));
        let join = if matches!(self, Self::V2(_)) { "cgroup.procs" } else { "tasks" };
        let group = |parent: &Path, settings: Vec<(&str, String)>| Group {
            join: join.to_owned(),
            folder: parent.join(name),
            settings: settings.into_iter().map(|(file, value)| (file.to_owned(), value)).collect(),
        };
        match self {
            Self::None => Vec::new(),
            Self::V2(parent) => {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                vec![group(
                    parent,
                    vec![
                        ("memory.max", limits.memory_bytes.to_string()),
                        ("memory.swap.max?", "0".into()),
                        ("pids.max", limits.pids.to_string()),
                        ("cpu.max?", format!("{quota} {PERIOD_US}")),
                    ],
                )]
            }
            Self::V1 { memory, pids, cpu, freezer } => {
                let mut groups = Vec::new();
                if let Some(parent) = memory {
                    let bytes = limits.memory_bytes.to_string();
                    let settings =
                        vec![("memory.limit_in_bytes", bytes.clone()), ("memory.memsw.limit_in_bytes?", bytes)];
                    groups.push(group(parent, settings));
                }
                if let Some(parent) = pids {
                    groups.push(group(parent, vec![("pids.max", limits.pids.to_string())]));
                }
                if let Some(parent) = cpu {
                    // Also without a quota: a box of two thousand busy processes then gets one share
                    // of the processors, not two thousand.
                    let quota = quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string()));
                    groups.push(group(parent, quota.into_iter().collect()));
                }
                groups.extend(freezer.iter().map(|parent| group(parent, Vec::new())));
                groups
            }
        }
    }
}

/// A folder of the unified hierarchy whose children have the memory and pids controllers: this
/// program's own group or the one above it (a group with processes has no controllers to give).
fn unified(own: &str, label: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    [Path::new(MOUNT).to_owned(), Path::new(MOUNT).join("unified")].into_iter().find_map(|mount| {
        let own = mount.join(path);
        let parents = [Some(own.clone()), own.parent().filter(|parent| parent.starts_with(&mount)).map(Path::to_owned)];
        parents.into_iter().flatten().find(|parent| {
            let wanted = parent.join("cgroup.subtree_control");
            let gives = |file: &Path| {
                let text = fs::read_to_string(file).unwrap_or_default();
                ["memory", "pids"].iter().all(|name| text.split_ascii_whitespace().any(|word| word == *name))
            };
            (gives(&wanted) || (fs::write(&wanted, "+memory +pids +cpu").is_ok() && gives(&wanted)))
                && can_make(parent, label)
        })
    })
}

fn can_make(parent: &Path, label: &str) -> bool {
    let folder = parent.join(format!("{label}-try-{}", std::process::id()));
    let made = fs::create_dir(&folder).is_ok();
    let joinable = made && fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs")).is_ok();
    let _ = fs::remove_dir(&folder);
    joinable
}

/// How often the kernel ended a process of these groups for lack of memory.
pub fn out_of_memory_kills(folders: &[PathBuf]) -> u64 {
    folders
        .iter()
        .flat_map(|folder| [folder.join("memory.events"), folder.join("memory.oom_control")])
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok()))
        .sum()
}

/// How often the kernel refused a process in these groups because of their limit.
pub fn refused_processes(folders: &[PathBuf]) -> u64 {
    folders
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join("pids.events")).ok())
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse::<u64>().ok()))
        .sum()
}

/// Takes groups away. False if one is still there, because a process in it is not quite gone.
pub fn remove(folders: &[PathBuf]) -> bool {
    folders.iter().all(|folder| match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_limits_become_the_files_of_each_version() {
        let limits = Limits {
            memory_bytes: 1 << 30,
            pids: 100,
            cpu_millis: Some(1500),
            open_files: 1,
            file_bytes: None,
            disk_bytes: None,
        };
        let v2 = Cgroups::V2("/g".into()).groups("box", limits);
        assert_eq!(v2.len(), 1);
        let settings: Vec<_> = v2[0].settings.iter().map(|(file, value)| format!("{file}={value}")).collect();
        let wanted = ["memory.max=1073741824", "memory.swap.max?=0", "pids.max=100", "cpu.max?=150000 100000"];
        assert_eq!(settings, wanted);
        let v1 =
            Cgroups::V1 { memory: Some("/m".into()), pids: None, cpu: Some("/c".into()), freezer: Some("/f".into()) };
        let folders: Vec<_> = v1.groups("box", limits).into_iter().map(|group| group.folder).collect();
        assert_eq!(folders, [PathBuf::from("/m/box"), "/c/box".into(), "/f/box".into()]);
        let shared = v1.groups("box", Limits { cpu_millis: None, ..limits });
        assert!(shared[1].settings.is_empty(), "a group of its own, without a quota");
        assert!(Cgroups::None.groups("box", limits).is_empty());
        assert!(Cgroups::None.problem().is_some_and(|problem| problem.fix.contains("Delegate=yes")));
    }

    #[test]
    fn kills_are_counted_from_either_versions_file() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for (place, file, text) in [
            (&one, "memory.events", "low 0\noom 5\noom_kill 2\noom_group_kill 0\n"),
            (&two, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            (&one, "pids.events", "max 7\n"),
        ] {
            fs::create_dir_all(place).unwrap();
            fs::write(place.join(file), text).unwrap();
        }
        assert_eq!((out_of_memory_kills(&[one.clone(), two.clone()]), refused_processes(&[one, two])), (5, 7));
    }
}
