//! The provider itself: the life of boxes on disk and as processes.
//!
//! Calls about one id take turns; what they do to disk and processes runs on the blocking pool and
//! is finished even if the caller stops waiting. Absent: a table of running boxes (the folder and
//! the kernel are the table, so a restart changes nothing).

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::id::{Digest, SandboxId};
use tokio::sync::{Mutex as TurnLock, OwnedMutexGuard};

use crate::error::StorageContext as _;
use crate::local::boxes::{Boxes, Users};
use crate::local::cgroup::Cgroups;
use crate::local::explain::Machine;
use crate::local::inside;
use crate::local::launchers::Launchers;
use crate::local::layout::Layout;
use crate::local::sandbox::LocalSandbox;
use crate::local::search;
use crate::local::shelf::Shelf;
use crate::local::skeleton;
use crate::local::toolchains::Toolchains;
use crate::local::usage::Sizes;
use crate::local::watch::{self, Watched};
use crate::port::{
    Capabilities, Ended, ExecRequest, FoundBytes, Isolation, Limits, Owners, Problem, Provider, Root, Sandbox,
    SandboxError, SandboxInfo, SnapshotRef, Staging, StartSpec, Started, StartedAs, UidMap, Usage,
};

/// How long a box that was asked to stop may take before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Settings of the local provider.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Where layers and boxes lie; made if missing. Not on an overlay or a network filesystem.
    pub data_dir: PathBuf,
    /// Program and arguments that run [`crate::local::launcher_main`].
    pub launcher: Vec<OsString>,
    /// Toolchains that every box sees.
    pub toolchains: Toolchains,
    /// First of the 65,536 users of the host that are the boxes' users, when running as root.
    pub uid_range_start: u32,
    /// Use the mount call of kernels before 6.8 also on newer ones.
    pub classic_mounts: bool,
    /// Free space on the data folder's filesystem, in bytes, below which commands that still write
    /// are ended, so that others on it can go on.
    pub min_free_bytes: u64,
}

impl LocalConfig {
    /// The settings of a program that dispatches the word itself.
    #[must_use]
    pub fn of_program(program: &Path, data_dir: &Path, toolchains: Toolchains) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            launcher: vec![program.into(), super::LAUNCHER_WORD.into()],
            toolchains,
            uid_range_start: 100_000,
            classic_mounts: false,
            min_free_bytes: 512 << 20,
        }
    }
}

/// Sandboxes on this machine.
pub struct LocalProvider {
    boxes: Arc<Boxes>,
    turns: Mutex<HashMap<SandboxId, Arc<TurnLock<()>>>>,
    probes: AtomicU64,
    /// Whether limits on disk space hold.
    watching: bool,
}

impl LocalProvider {
    /// Opens the data folder. Blocks for some milliseconds; starts nothing.
    ///
    /// # Errors
    /// If the data folder cannot be made or written.
    pub fn open(config: LocalConfig) -> Result<Self, SandboxError> {
        let layout = Layout::open(&config.data_dir)?;
        let machine = Machine::look();
        let users = Users::detect(config.uid_range_start);
        let skeletons = skeleton::ensure(&layout, &config.toolchains, users.owner())?;
        let label = Digest::of(layout.root().as_os_str().as_encoded_bytes());
        let label = format!("chargehand-{}", label.as_str().get(..8).unwrap_or_default());
        let cgroups = Cgroups::detect(&label);
        let boxes = Boxes {
            layout,
            shelf: Shelf::default(),
            machine,
            users,
            skeletons,
            label,
            cgroups,
            launchers: Launchers::new(&config.launcher),
            config,
            sizes: Sizes::default(),
            watched: Watched::default(),
        };
        let boxes = Arc::new(boxes);
        let watching = watch::spawn(&boxes);
        Ok(Self { boxes, turns: Mutex::default(), probes: AtomicU64::new(0), watching })
    }

    /// What boxes see of the host's toolchains, for `doctor`.
    #[must_use]
    pub fn toolchains(&self) -> &Toolchains {
        &self.boxes.config.toolchains
    }

    /// Waits until it is this call's turn for `id`.
    async fn turn(&self, id: &SandboxId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(turns.entry(id.clone()).or_default())
        };
        lock.lock_owned().await
    }

    /// Does blocking work with the turn for `id` held to its end.
    async fn in_turn<T: Send + 'static>(
        &self,
        id: &SandboxId,
        work: impl FnOnce(&Boxes, &SandboxId) -> Result<T, SandboxError> + Send + 'static,
    ) -> Result<T, SandboxError> {
        let turn = self.turn(id).await;
        let id = id.clone();
        self.blocking(move |boxes| {
            let done = work(boxes, &id);
            drop(turn);
            done
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Boxes) -> Result<T, SandboxError> + Send + 'static,
    ) -> Result<T, SandboxError> {
        let boxes = Arc::clone(&self.boxes);
        tokio::task::spawn_blocking(move || work(&boxes)).await.map_err(|error| SandboxError::Start {
            step: "worker".into(),
            detail: format!("the work did not come to an end: {error}"),
        })?
    }

    /// Starts a box without anything in it, runs a program, takes it away.
    async fn try_all(&self) -> Result<(), SandboxError> {
        let number = self.probes.fetch_add(1, Ordering::Relaxed);
        let name = format!("probe-{}-{number}", std::process::id());
        let id = SandboxId::parse(&name)
            .map_err(|error| SandboxError::Start { step: "probe".into(), detail: error.to_string() })?;
        let spec = StartSpec {
            id: id.clone(),
            snapshot: SnapshotRef { layers: Vec::new() },
            root: Root::Host,
            door: None,
            limits: Limits::default(),
            env: Vec::new(),
            binds: Vec::new(),
            workdir: PathBuf::from("/workspace"),
        };
        let tried = async {
            let started = self.start(spec).await?;
            let outcome = started.sandbox.exec(ExecRequest::shell("probe", "exit 7"), &mut |_| {}).await?;
            match outcome.ended {
                Ended::Exited { code: 7 } => Ok(()),
                other => Err(SandboxError::Start { step: "first command".into(), detail: format!("{other:?}") }),
            }
        };
        let tried = tried.await;
        self.destroy(&id).await?;
        tried
    }
}

#[async_trait]
impl Provider for LocalProvider {
    async fn probe(&self) -> Capabilities {
        let tried = self.try_all().await;
        let mut problems = Vec::new();
        let usable = tried.is_ok();
        if let Err(error) = tried {
            problems.push(match error {
                SandboxError::Unsupported(problem) => problem,
                other => Problem {
                    what: "a sandbox could not be started".into(),
                    why: other.to_string(),
                    fix:
                        "Run `chargehand doctor` again; if it stays, the step named above says what the system refused."
                            .into(),
                    fatal: true,
                },
            });
        }
        problems.extend(self.boxes.cgroups.problem());
        problems.extend(self.boxes.users.problem());
        problems.push(if self.watching {
            Problem {
                what: "a sandbox can pass its limit on disk space by what it writes in half a second".into(),
                why: "the local provider looks at its files and sets no filesystem quota".into(),
                fix: "Put the data folder on a filesystem of its own, so that a full one stops only sandboxes.".into(),
                fatal: false,
            }
        } else {
            Problem {
                what: "sandboxes have no limit on disk space".into(),
                why: "no thread could be started to look at their files".into(),
                fix: "Raise the server's limit on threads and start it again.".into(),
                fatal: false,
            }
        });
        let range = matches!(self.boxes.users, Users::Range { .. });
        Capabilities {
            provider: "local".into(),
            usable,
            isolation: Isolation::SharedKernel,
            uid_map: if range { UidMap::Range } else { UidMap::Single },
            cgroup: self.boxes.cgroups.support(),
            folder_rename: range,
            network: false,
            disk_limit: self.watching,
            landlock: inside::landlock_version() > 0,
            problems,
        }
    }

    async fn stage(&self, _key: &Digest, at: &Path) -> Result<Staging, SandboxError> {
        let at = at.strip_prefix("/").unwrap_or(at).to_owned();
        self.blocking(move |boxes| {
            let holder = boxes.layout.new_holder()?;
            let content = holder.join("root").join(at);
            std::fs::create_dir_all(&content).doing("create", &content)?;
            Ok(Staging { content, holder, away: boxes.layout.trash_name(), taken: false })
        })
        .await
    }

    async fn prepare(&self, key: &Digest, staged: Staging, owners: Owners) -> Result<SnapshotRef, SandboxError> {
        let key = key.clone();
        self.blocking(move |boxes| {
            let mut staged = staged;
            boxes.shelve(&staged.holder, &key, owners)?;
            staged.taken = true;
            Ok(SnapshotRef { layers: vec![key] })
        })
        .await
    }

    async fn prepared(&self, key: &Digest) -> Result<Option<SnapshotRef>, SandboxError> {
        let key = key.clone();
        self.blocking(move |boxes| Ok(boxes.has(&key).then(|| SnapshotRef { layers: vec![key] }))).await
    }

    async fn retain_layers_within(&self, keep: &HashSet<Digest>, budget_bytes: u64) -> Result<usize, SandboxError> {
        let keep = keep.clone();
        self.blocking(move |boxes| boxes.retain_layers(&keep, budget_bytes)).await
    }

    async fn usage(&self) -> Result<Usage, SandboxError> {
        self.blocking(Boxes::usage).await
    }

    async fn start(&self, spec: StartSpec) -> Result<Started, SandboxError> {
        let id = spec.id.clone();
        let (found, sandbox) = self.in_turn(&id, move |boxes, _| boxes.start(&spec)).await?;
        // A fresh one has said so itself.
        if found == StartedAs::Adopted
            && let Err(error) = sandbox.answers().await
        {
            // It came up and went again, or never answered: nothing of it is of use.
            self.in_turn(&id, |boxes, id| boxes.stop(id)).await?;
            return Err(error);
        }
        Ok(Started { sandbox: Arc::new(sandbox), found })
    }

    async fn attach(&self, id: &SandboxId) -> Result<Option<Arc<dyn Sandbox>>, SandboxError> {
        let sandbox: Option<LocalSandbox> = self.in_turn(id, |boxes, id| boxes.open(id)).await?;
        Ok(sandbox.map(|sandbox| Arc::new(sandbox) as Arc<dyn Sandbox>))
    }

    async fn stop(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let sandbox = self.in_turn(id, |boxes, id| boxes.open(id)).await?;
        if let Some(sandbox) = sandbox {
            // Programs may put their files in order; whatever comes of it, the kill follows.
            let asked = tokio::time::timeout(STOP_GRACE * 2, sandbox.shut_down(STOP_GRACE)).await;
            if !matches!(asked, Ok(Ok(()))) {
                tracing::debug!(%id, "the box did not stop when asked");
            }
        }
        self.in_turn(id, |boxes, id| boxes.stop(id)).await
    }

    async fn suspend(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.in_turn(id, |boxes, id| boxes.suspend(id)).await
    }

    async fn resume(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.in_turn(id, |boxes, id| boxes.resume(id)).await
    }

    async fn snapshot(&self, id: &SandboxId, key: &Digest) -> Result<SnapshotRef, SandboxError> {
        let key = key.clone();
        self.in_turn(id, move |boxes, id| boxes.snapshot(id, &key)).await
    }

    async fn stack(&self, id: &SandboxId) -> Result<Option<SnapshotRef>, SandboxError> {
        self.in_turn(id, |boxes, id| boxes.stack(id)).await
    }

    async fn changed(&self, id: &SandboxId) -> Result<bool, SandboxError> {
        self.in_turn(id, |boxes, id| boxes.changed(id)).await
    }

    async fn search(&self, id: &SandboxId, patterns: Vec<Vec<u8>>) -> Result<Option<FoundBytes>, SandboxError> {
        self.in_turn(id, move |boxes, id| search::search(&boxes.layout.run(id).join("u"), &patterns)).await
    }

    async fn flatten(
        &self,
        snapshot: &SnapshotRef,
        keep_lowest: usize,
        key: &Digest,
    ) -> Result<SnapshotRef, SandboxError> {
        let (snapshot, key) = (snapshot.clone(), key.clone());
        self.blocking(move |boxes| boxes.flatten(&snapshot, keep_lowest, &key)).await
    }

    async fn busy(&self, id: &SandboxId, but: &str) -> Result<bool, SandboxError> {
        let but = but.to_owned();
        self.in_turn(id, move |boxes, id| Ok(boxes.layout.living(id).is_some_and(|first| first.has_children_but(&but))))
            .await
    }

    async fn list(&self) -> Result<Vec<SandboxInfo>, SandboxError> {
        self.blocking(|boxes| {
            let info = |id: SandboxId| {
                let alive = boxes.layout.living(&id).is_some();
                SandboxInfo { alive, suspended: alive && boxes.is_suspended(&id), id }
            };
            Ok(boxes.layout.boxes().into_iter().map(info).collect())
        })
        .await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.in_turn(id, |boxes, id| boxes.destroy(id)).await
    }
}

/// What a start found, with the box.
pub type Found = (StartedAs, LocalSandbox);
