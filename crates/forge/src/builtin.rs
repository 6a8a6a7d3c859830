//! The built-in forge: its settings, its folders, its locks, and the trait's methods put to the
//! modules that do them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::id::{CommitSha, Digest, TaskId};
use policy::LandPermit;

use crate::base::Base;
use crate::checkout::Checkout;
use crate::diff::Diff;
use crate::error::{BaseError, CheckoutError, Fault, ImportError, LandError, OpenError, PublishError, ReadError};
use crate::git::Git;
use crate::hub::{Project, blocking};
use crate::import::{Import, Imported};
use crate::land::{LandOptions, Landed};
use crate::merge::{Merge, Preview};
use crate::origin::Origin;
use crate::publish::Published;
use crate::tree::{Depth, RepoPath, TreeEntry};
use crate::{Forge, hub};

/// What the built-in forge is made with.
#[derive(Debug, Clone)]
pub struct ForgeConfig {
    /// The folder for hubs; made if it is missing. Only one process may use it at a time.
    pub data_dir: PathBuf,
    /// The git program: a path, or a name that is looked up in `search_path`.
    pub git: PathBuf,
    /// `PATH` for git and what it starts (ssh).
    pub search_path: OsString,
    /// Variables of the person for calls that reach the origin or move their work tree along:
    /// `HOME` (for ssh and `.netrc`), `SSH_AUTH_SOCK`, `XDG_CONFIG_HOME`, proxies. Their git
    /// settings count only when a work tree moves along.
    pub person_env: Vec<(OsString, OsString)>,
    /// How long one git command may take.
    pub time_limit: Duration,
}

impl ForgeConfig {
    /// Git from the usual places, nothing of the person's, ten minutes a command.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            git: PathBuf::from("git"),
            search_path: OsString::from("/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"),
            person_env: Vec::new(),
            time_limit: Duration::from_secs(600),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Dirs {
    pub hubs: PathBuf,
    pub origins: PathBuf,
    pub quarantine: PathBuf,
}

/// The forge that needs nothing but the git program and a folder.
#[derive(Debug)]
pub struct BuiltIn {
    pub(crate) git: Git,
    pub(crate) dirs: Dirs,
    version: (u32, u32),
    /// One writer per hub.
    locks: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Hubs that this process has opened.
    seen: Mutex<HashSet<Digest>>,
    /// Quarantine rooms used so far.
    rooms: AtomicU64,
}

impl BuiltIn {
    /// Checks the git program and makes the folders.
    ///
    /// # Errors
    /// [`Fault::Git`] with `Missing` or `TooOld` if git can't be used; [`Fault::Io`] if the data
    /// folder can't.
    pub async fn new(config: ForgeConfig) -> Result<Self, Fault> {
        let data = config.data_dir;
        let home = data.join("empty-home");
        let dirs = Dirs { hubs: data.join("hubs"), origins: data.join("origins"), quarantine: data.join("quarantine") };
        for dir in [&home, &dirs.hubs, &dirs.origins, &dirs.quarantine] {
            let dir = dir.clone();
            let failed = Fault::io("making", &dir);
            blocking(move || private_dir(&dir)).await.map_err(failed)?;
        }
        let git = Git {
            program: config.git,
            home,
            search_path: config.search_path,
            person_env: config.person_env,
            time_limit: config.time_limit,
        };
        let version = git.version().await.map_err(|source| Fault::Git { doing: "checking git", source })?;
        // What an earlier process was looking at when it ended.
        hub::remove_dir(&dirs.quarantine).await?;
        let dir = dirs.quarantine.clone();
        blocking(move || private_dir(&dir)).await.map_err(Fault::io("making", &dirs.quarantine))?;
        Ok(Self { git, dirs, version, locks: Mutex::default(), seen: Mutex::default(), rooms: AtomicU64::new(0) })
    }

    /// The version of the git program: major and minor.
    #[must_use]
    pub const fn git_version(&self) -> (u32, u32) {
        self.version
    }

    /// The name of a quarantine room that nobody uses.
    pub(crate) fn next_room(&self) -> String {
        self.rooms.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// The lock of a project's hub.
    pub(crate) fn lock(&self, project: &Project) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(project.key().clone()).or_default())
    }

    /// Whether this process sees this hub for the first time.
    pub(crate) fn first_sight(&self, project: &Project) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(project.key().clone())
    }
}

fn private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
}

#[async_trait]
impl Forge for BuiltIn {
    async fn open(&self, origin: &Origin) -> Result<Project, OpenError> {
        self.open_origin(origin).await
    }

    async fn reopen(&self, origin: &Origin) -> Result<Option<Project>, Fault> {
        self.recall(origin).await
    }

    async fn resolve_base(&self, project: &Project, base: Option<&str>) -> Result<Base, BaseError> {
        self.find_base(project, base).await
    }

    async fn checkout(
        &self,
        project: &Project,
        commit: &CommitSha,
        dest: &Path,
        how: &Checkout,
    ) -> Result<(), CheckoutError> {
        self.make_checkout(project, commit, dest, how).await
    }

    async fn list_files(&self, project: &Project, commit: &CommitSha, depth: Depth) -> Result<Vec<TreeEntry>, Fault> {
        self.list(project, commit, depth).await
    }

    async fn read_file(
        &self,
        project: &Project,
        commit: &CommitSha,
        path: &str,
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(project, commit, path, max_bytes).await
    }

    async fn kind_at(
        &self,
        project: &Project,
        commit: &CommitSha,
        path: &str,
    ) -> Result<Option<crate::tree::EntryKind>, Fault> {
        self.kind(project, commit, path).await
    }

    async fn import(&self, project: &Project, import: &Import<'_>) -> Result<Imported, ImportError> {
        self.take_in(project, import).await
    }

    async fn imported(&self, project: &Project, task: &TaskId) -> Result<Option<CommitSha>, Fault> {
        self.newest_result(project, task).await
    }

    async fn diff(
        &self,
        project: &Project,
        base: &CommitSha,
        head: &CommitSha,
        max_patch_bytes: usize,
    ) -> Result<Diff, Fault> {
        self.compare(project, base, head, max_patch_bytes).await
    }

    async fn publish(&self, project: &Project, task: &TaskId, head: &CommitSha) -> Result<Published, PublishError> {
        self.show(project, task, head).await
    }

    async fn unpublish(&self, project: &Project, task: &TaskId) -> Result<Vec<String>, PublishError> {
        self.hide(project, task).await
    }

    async fn branch_head(&self, project: &Project, branch: &str) -> Result<Option<CommitSha>, Fault> {
        let lock = self.lock(project);
        let _held = lock.lock().await;
        self.fetch_branch(project, branch).await
    }

    async fn merge_preview(&self, project: &Project, merge: &Merge<'_>) -> Result<Preview, Fault> {
        let lock = self.lock(project);
        let _held = lock.lock().await;
        self.merged(project, merge).await
    }

    async fn land(&self, project: &Project, permit: &LandPermit, options: LandOptions) -> Result<Landed, LandError> {
        self.do_land(project, permit, options).await
    }

    async fn prune(&self, project: &Project, task: &TaskId) -> Result<(), Fault> {
        self.forget(project, task).await
    }
}

impl TreeEntry {
    /// Whether this is the entry at a path.
    #[must_use]
    pub fn is_at(&self, path: &str) -> bool {
        self.path == RepoPath::from_bytes(path.as_bytes())
    }
}
