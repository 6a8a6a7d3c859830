//! The blocking half of the provider: folders, the launcher, kills.
//!
//! Each operation can be cut off at any point and called again; what it had done is found on disk.
//! Absent: turns (the provider gives one caller at a time an id).

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use domain::id::{Digest, SandboxId};

use crate::error::StorageContext as _;
use crate::local::cgroup::{self, Cgroups, Group};
use crate::local::explain::{Machine, explain};
use crate::local::inside::{Bind, IdMap, Plan, Report, RootMount};
use crate::local::launchers::Launchers;
use crate::local::layers::{self, RANGE};
use crate::local::layout::{Layout, Record, layer_name};
use crate::local::provider::{Found, LocalConfig};
use crate::local::sandbox::LocalSandbox;
use crate::local::shelf::{Budget, Shelf};
use crate::local::skeleton::{HOST_HOME, OWN_HOME, Skeletons};
use crate::local::suspend;
use crate::local::toolchains::{BOX_CARGO_HOME, SYSTEM, Toolchain};
use crate::local::usage::Sizes;
use crate::local::watch::Watched;
use crate::port::{Owners, Problem, Root, SandboxError, SnapshotRef, StartSpec, StartedAs};
use crate::walk;

/// How long a killed box may take to vanish.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Whose users the boxes' are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// A range of the host's users, from this one on.
    Range { start: u32 },
    /// Only this program's own.
    Single { uid: u32, gid: u32 },
}

impl Users {
    /// A range if this program may map one and mount overlays with the host's rights.
    pub fn detect(start: u32) -> Self {
        use rustix::thread::CapabilitySet as Set;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let wanted = Set::SYS_ADMIN | Set::SETUID | Set::SETGID | Set::CHOWN | Set::DAC_OVERRIDE;
        let able = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted));
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let outermost = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        if uid == 0 && able && outermost { Self::Range { start } } else { Self::Single { uid, gid } }
    }

    /// To whom the files of layers are given, if not to this program's user.
    pub const fn owner(self) -> Option<u32> {
        match self {
            Self::Range { start } => Some(start),
            Self::Single { .. } => None,
        }
    }

    const fn map(self) -> IdMap {
        match self {
            Self::Range { start } => IdMap { outer_uid: start, outer_gid: start, count: RANGE },
            Self::Single { uid, gid } => IdMap { outer_uid: uid, outer_gid: gid, count: 1 },
        }
    }

    /// What is lacking.
    pub fn problem(self) -> Option<Problem> {
        matches!(self, Self::Single { .. }).then(|| Problem {
            what: "sandboxes have one user only, and folders of a snapshot cannot be renamed in one step".into(),
            why: "the server does not run as root: chown to others, su and package installation fail inside, and rename(2) of such a folder gives EXDEV".into(),
            fix: "Run the server as root if tasks need it; most builds do not.".into(),
            fatal: false,
        })
    }
}

/// Everything that boxes have in common.
#[derive(Debug)]
pub struct Boxes {
    pub layout: Layout,
    pub shelf: Shelf,
    pub machine: Machine,
    pub users: Users,
    pub skeletons: Skeletons,
    pub label: String,
    pub cgroups: Cgroups,
    pub launchers: Launchers,
    pub config: LocalConfig,
    pub sizes: Sizes,
    pub watched: Watched,
}

impl Boxes {
    /// The box with this id, if it is alive.
    pub fn open(&self, id: &SandboxId) -> Result<Option<LocalSandbox>, SandboxError> {
        if self.layout.living(id).is_none() {
            return Ok(None);
        }
        let record = self.layout.record(id)?;
        self.watched.add(id, record.as_ref().and_then(|record| record.limits.disk_bytes));
        let cgroups = record.map(|record| record.cgroups).unwrap_or_default();
        LocalSandbox::open(id.clone(), &self.layout.run(id), cgroups).map(Some)
    }

    /// Starts or adopts a box.
    pub fn start(&self, spec: &StartSpec) -> Result<Found, SandboxError> {
        let id = &spec.id;
        let layers = &spec.snapshot.layers;
        // Until the record names them.
        let _held = self.shelf.hold(layers);
        if let Some(layer) = layers.iter().find(|layer| !self.layout.layer(layer).exists()) {
            return Err(SandboxError::LayerMissing { layer: layer.clone() });
        }
        let earlier = self.settled(id)?;
        let lost = earlier.as_ref().is_some_and(|record| record.boot != self.layout.boot());
        if let Some(record) = &earlier
            && !lost
            && record.layers != *layers
        {
            return Err(SandboxError::OtherSnapshot { id: id.clone() });
        }
        if let Some(sandbox) = self.open(id)? {
            return Ok((StartedAs::Adopted, sandbox));
        }
        let run = self.layout.run(id);
        if lost || (earlier.is_none() && run.exists()) {
            // Nothing that can be trusted: written before the machine went down, or never begun.
            self.destroy(id)?;
        }
        let found = match (&earlier, lost) {
            (Some(_), true) => StartedAs::FilesLost,
            (Some(_), false) => StartedAs::Resumed,
            (None, _) => StartedAs::Fresh,
        };
        if let Some(record) = &earlier {
            // Nothing may join a group that is frozen.
            suspend::wake(&run, &record.cgroups).doing("let go on", &run)?;
        }
        self.make_folders(&run)?;
        let groups = self.cgroups.groups(&format!("{}-{id}", self.label), spec.limits);
        let record = Record {
            layers: layers.clone(),
            limits: spec.limits,
            boot: self.layout.boot().to_owned(),
            cgroups: groups.iter().map(|group| group.folder.clone()).collect(),
            pending: None,
            points: spec.binds.iter().map(|bind| bind.at.clone()).collect(),
        };
        self.layout.write_record(id, &record)?;
        if let Err(error) = self.launch(id, &self.plan(spec, groups)) {
            if found == StartedAs::Resumed {
                self.stop(id)?;
            } else {
                self.destroy(id)?;
            }
            return Err(error);
        }
        self.watched.add(id, spec.limits.disk_bytes);
        LocalSandbox::open(id.clone(), &run, record.cgroups).map(|sandbox| (found, sandbox))
    }

    /// `u` as it is, or new; `w` always new: one that was used without syncing refuses to be used
    /// again, and nothing of worth is in it.
    fn make_folders(&self, run: &Path) -> Result<(), SandboxError> {
        let (upper, work) = (run.join("u"), run.join("w"));
        walk::remove(&work).doing("remove", &work)?;
        for folder in [run.to_owned(), upper.clone(), work.clone()] {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.doing("create", &folder)?,
            }
            use std::os::unix::fs::PermissionsExt as _;
            let mode = if folder == upper { 0o755 } else { 0o700 };
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).doing("open", &folder)?;
            if let Some(owner) = self.users.owner()
                && (folder == upper || folder == work)
            {
                std::os::unix::fs::chown(&folder, Some(owner), Some(owner)).doing("give to the box", &folder)?;
            }
        }
        Ok(())
    }

    fn plan(&self, spec: &StartSpec, groups: Vec<Group>) -> Plan {
        let lower = |layer: &Digest| Path::new("../../layers").join(layer_name(layer)).join("root");
        let lowers = spec.snapshot.layers.iter().rev().chain([self.skeletons.of(spec.root)]).map(lower).collect();
        let system = SYSTEM.iter().map(Path::new).filter(|path| path.is_dir() && !path.is_symlink());
        let system = system.map(|path| Bind { from: path.to_owned(), at: path.to_owned(), make: false });
        let toolchains = self.config.toolchains.list.iter();
        let toolchains = toolchains.map(|t| Bind { from: t.from.clone(), at: t.at.clone(), make: false });
        let of_host: Vec<Bind> = match spec.root {
            Root::Host => system.chain(toolchains).collect(),
            Root::Own => Vec::new(),
        };
        let extra = spec.binds.iter().map(|b| Bind { from: b.from.clone(), at: b.at.clone(), make: true });
        let binds = of_host.into_iter().chain(extra).collect();
        Plan {
            parent: i32::try_from(std::process::id()).unwrap_or(0),
            run: self.layout.run(&spec.id),
            lowers,
            root: RootMount {
                by_host: matches!(self.users, Users::Range { .. }),
                classic: self.config.classic_mounts || self.machine.version() < (6, 8),
            },
            ids: self.users.map(),
            binds,
            own_root: spec.root == Root::Own,
            door: spec.door.clone(),
            workdir: spec.workdir.clone(),
            env: self.environment(spec),
            groups,
            pids: spec.limits.pids,
            open_files: spec.limits.open_files,
            file_bytes: spec.limits.file_bytes,
            boot: self.layout.boot().to_owned(),
        }
    }

    /// The whole environment of a box; nothing in it comes from this program's own.
    fn environment(&self, spec: &StartSpec) -> Vec<(String, String)> {
        let toolchains: &[Toolchain] = match spec.root {
            Root::Host => &self.config.toolchains.list,
            Root::Own => &[],
        };
        let mut path: Vec<String> = Vec::new();
        if spec.root == Root::Host {
            path.extend(["/home/agent/.cargo/bin", "/home/agent/.local/bin"].map(str::to_owned));
        }
        path.extend(toolchains.iter().flat_map(|t| &t.path_dirs).map(|dir| dir.to_string_lossy().into_owned()));
        path.extend(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(str::to_owned));
        let path = path.join(":");
        let mut fixed = vec![
            ("PATH", path.as_str()),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("SHELL", "/bin/sh"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            // A git that was built with another prefix looks elsewhere for the system's settings.
            ("GIT_CONFIG_SYSTEM", "/etc/gitconfig"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("CARGO_NET_OFFLINE", "true"),
        ];
        match spec.root {
            Root::Host => fixed.extend([("HOME", HOST_HOME), ("CARGO_HOME", BOX_CARGO_HOME)]),
            Root::Own => fixed.push(("HOME", OWN_HOME)),
        }
        let mut all: Vec<(String, String)> =
            fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.extend(toolchains.iter().flat_map(|t| t.env.clone()));
        all.extend(spec.env.iter().cloned());
        all
    }

    /// Runs a launcher to its end; then the box runs.
    fn launch(&self, id: &SandboxId, plan: &Plan) -> Result<(), SandboxError> {
        let problem = |source| SandboxError::Launcher { source };
        let text = serde_json::to_vec(plan).map_err(io::Error::from).map_err(problem)?;
        let said = match self.launchers.served(&text) {
            Some(said) => said,
            // The pid file is written before a box goes on, so there is none that could be in the way.
            None if self.layout.living(id).is_none() => {
                self.make_folders(&self.layout.run(id))?;
                self.launchers.started(&text).map_err(problem)?
            }
            None => String::new(),
        };
        for line in said.lines() {
            match serde_json::from_str(line).map_err(io::Error::from).map_err(problem)? {
                Report::Running { .. } => {}
                Report::Ready => return Ok(()),
                Report::Failed(failed) => return Err(explain(failed, &self.machine)),
            }
        }
        Err(problem(io::Error::other("it ended without a word")))
    }

    /// Ends the processes of a box.
    pub fn stop(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let cgroups = self.layout.record(id)?.map(|record| record.cgroups).unwrap_or_default();
        // What is frozen does not end, also if its first process was killed by somebody else.
        let run = self.layout.run(id);
        suspend::wake(&run, &cgroups).doing("let go on", &run)?;
        if let Some(first) = self.layout.living(id)
            && !first.kill(KILL_PATIENCE)
        {
            return Err(SandboxError::Start {
                step: "kill".into(),
                detail: format!("process {} does not end", first.pid),
            });
        }
        self.watched.remove(id);
        for _ in 0..500 {
            if cgroup::remove(&cgroups) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(SandboxError::Start { step: "control groups".into(), detail: format!("{cgroups:?} cannot be removed") })
    }

    /// Ends the processes of a box and removes its files.
    pub fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.stop(id)?;
        self.layout.remove(&self.layout.run(id))
    }

    /// Makes what was staged in `holder` the layer `key`, or drops it if there is one.
    pub fn shelve(&self, holder: &Path, key: &Digest, owners: Owners) -> Result<(), SandboxError> {
        let _held = self.shelf.hold(std::slice::from_ref(key));
        layers::adopt_as(&holder.join("root"), self.users.owner(), owners)?;
        self.layout.publish(holder, key)
    }

    /// Whether the layer `key` is there; asking counts as using it.
    pub fn has(&self, key: &Digest) -> bool {
        let _held = self.shelf.hold(std::slice::from_ref(key));
        self.layout.layer(key).exists()
    }

    /// Removes layers that nobody needs, until all together are within the budget; gives how many.
    pub fn retain_layers(&self, keep: &HashSet<Digest>, budget_bytes: u64) -> Result<usize, SandboxError> {
        let mut budget = Budget { bytes: budget_bytes, ..Budget::default() };
        if budget_bytes > 0 {
            let names = self.layout.layer_names().into_iter();
            budget.sizes = names.map(|name| (name.clone(), self.layer_bytes(&name))).collect();
        }
        let own = [&self.skeletons.host, &self.skeletons.own];
        let taken = self.shelf.clear(&self.layout, keep.iter().chain(own), &budget)?;
        let count = taken.len();
        for away in taken {
            self.layout.forget(away);
        }
        Ok(count)
    }

    /// Stops a box and makes its upper the layer `key`.
    pub fn snapshot(&self, id: &SandboxId, key: &Digest) -> Result<SnapshotRef, SandboxError> {
        let gone = || SandboxError::Gone { id: id.clone(), hint: Some("it has no files here".into()) };
        let mut record = self.settled(id)?.ok_or_else(gone)?;
        if record.layers.contains(key) {
            return Ok(SnapshotRef { layers: record.layers });
        }
        if record.boot != self.layout.boot() {
            return Err(gone());
        }
        self.stop(id)?;
        if self.layout.layer(key).exists() {
            // Somebody else's layer under this key: the box's own changes stay where they are.
            return Err(SandboxError::OtherSnapshot { id: id.clone() });
        }
        record.pending = Some(key.clone());
        self.layout.write_record(id, &record)?;
        let settled = self.settled(id)?.ok_or_else(gone)?;
        Ok(SnapshotRef { layers: settled.layers })
    }

    /// The snapshot on which a box's own changes lie. Files from before the latest boot are none.
    pub fn stack(&self, id: &SandboxId) -> Result<Option<SnapshotRef>, SandboxError> {
        let record = self.settled(id)?.filter(|record| record.boot == self.layout.boot());
        Ok(record.map(|record| SnapshotRef { layers: record.layers }))
    }

    /// What is written down of a box, after a snapshot that was begun is finished. The moves are
    /// u → run/ID/s/root → layers/KEY; each is one rename, and each can be the last before a crash.
    pub fn settled(&self, id: &SandboxId) -> Result<Option<Record>, SandboxError> {
        let Some(mut record) = self.layout.record(id)? else { return Ok(None) };
        let Some(key) = record.pending.clone() else { return Ok(Some(record)) };
        if record.boot != self.layout.boot() {
            return Ok(Some(record));
        }
        let run = self.layout.run(id);
        let (upper, holder) = (run.join("u"), run.join("s"));
        let root = holder.join("root");
        if !self.layout.layer(&key).exists() {
            if !root.exists() {
                fs::create_dir_all(&holder).doing("create", &holder)?;
                fs::write(holder.join("boot"), self.layout.boot()).doing("write into", &holder)?;
                fs::rename(&upper, &root).doing("move", &upper)?;
            }
            self.layout.publish(&holder, &key)?;
        }
        record.layers.push(key);
        record.pending = None;
        self.layout.write_record(id, &record)?;
        Ok(Some(record))
    }
}
