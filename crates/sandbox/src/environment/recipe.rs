//! The nouns: a recipe as it is meant, whoever wrote it.
//!
//! A [`Recipe`] is plain data in one normal form, so its bytes can be digested; every default is
//! filled in by the time one exists. Which hosts exist, what a group of hosts contains and how a
//! secret gets into a request is the business of the way out of the box; here stands only what the
//! file says. Absent: reading files, and anything that looks at the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::id::Digest;
use serde::{Deserialize, Serialize};

use crate::port::{Limits, ReadOnlyBind};

/// Where the checkout lies in every box.
pub const WORKSPACE: &str = "/workspace";
/// The longest that one setup command may take, in seconds.
pub const MAX_TIME_LIMIT_S: u64 = 6 * 3600;
/// How long a setup command may take when nothing is said, in seconds.
pub const DEFAULT_TIME_LIMIT_S: u64 = 1200;

/// What an environment is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What lies below everything.
    pub base: Base,
    /// Host paths that boxes read besides the provider's own list; [`Recipe::binds`] checks them.
    pub read_only: Vec<ReadOnlyBind>,
    /// Run once, in this order, when the environment is built.
    pub setup: Vec<SetupCommand>,
    /// Shell lines that are started in every box before its first command, in this order.
    pub start: Vec<String>,
    /// Variables of every box.
    pub env: BTreeMap<String, String>,
    /// Folders in the box with downloads or compilations that stay in the snapshot; what lies in
    /// other well-known cache folders is removed when a build ends.
    pub caches: Vec<PathBuf>,
    /// Limits; none means the server's.
    pub limits: RecipeLimits,
    /// What tasks may reach.
    pub task_network: Vec<Allow>,
    /// What setup commands may reach, those that ask for a network.
    pub setup_network: Vec<Allow>,
    /// Names of secrets that only setup may use. A box sees placeholders, never values.
    pub setup_secrets: Vec<String>,
    /// When it is built again though nothing in the recipe changed.
    pub rebuild: Rebuild,
}

/// What lies below everything in a box.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Base {
    /// The host's programs and toolchains, read-only.
    #[default]
    Host,
    /// A folder on the host with a whole root file system.
    Rootfs {
        /// On the host; absolute.
        folder: PathBuf,
    },
    /// An archive with a whole root file system: `.tar`, plain or packed with gzip or zstd.
    Tarball {
        /// On the host; absolute.
        file: PathBuf,
    },
    /// An OCI image layout, a folder or a tar of one.
    Oci {
        /// On the host; absolute.
        layout: PathBuf,
        /// Which image of it, by its `org.opencontainers.image.ref.name`; needed if there are more.
        tag: Option<String>,
    },
}

impl Base {
    /// The host path that is imported, if any.
    #[must_use]
    pub fn host_path(&self) -> Option<&Path> {
        match self {
            Self::Host => None,
            Self::Rootfs { folder } => Some(folder),
            Self::Tarball { file } => Some(file),
            Self::Oci { layout, .. } => Some(layout),
        }
    }
}

/// One setup command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupCommand {
    /// A line for `/bin/sh -c`, run in the workspace.
    pub run: String,
    /// What it may reach.
    pub network: SetupNetwork,
    /// Wall time after which it and its processes are ended, in seconds.
    pub time_limit_s: u64,
}

impl SetupCommand {
    /// A command without a network and with the usual time.
    #[must_use]
    pub fn offline(run: impl Into<String>) -> Self {
        Self { run: run.into(), network: SetupNetwork::None, time_limit_s: DEFAULT_TIME_LIMIT_S }
    }
}

/// What one setup command may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetupNetwork {
    /// Nothing.
    #[default]
    None,
    /// Everything in the recipe's setup network.
    Listed,
    /// Only these of the recipe's setup network, by host or group name as written there.
    Only(Vec<String>),
}

/// What may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Allow {
    /// Hosts that belong together and have a name, such as `cargo`, `npm`, `git:HOST/OWNER/REPO`.
    Group(String),
    /// One host.
    Host(Host),
}

impl Allow {
    /// What it is called where only some entries are wanted: the group's name or the host.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Group(name) => name,
            Self::Host(host) => &host.host,
        }
    }
}

/// One host that may be reached; an empty list means the usual (ports) or all (methods, paths).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// A name, or `*.name` for all below it.
    pub host: String,
    /// Ports.
    pub ports: Vec<u16>,
    /// Methods, upper case.
    pub methods: Vec<String>,
    /// Paths, exact or with `*`.
    pub paths: Vec<String>,
    /// The credential that is added outside the box.
    pub secret: Option<SecretUse>,
}

impl Host {
    /// A host with nothing further said.
    #[must_use]
    pub fn named(host: impl Into<String>) -> Self {
        Self { host: host.into(), ports: Vec::new(), methods: Vec::new(), paths: Vec::new(), secret: None }
    }
}

/// A secret by its name, and how it goes into a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name in the server's store.
    pub name: String,
    /// How it is added: `bearer`, `basic:USER` or `header:NAME`.
    pub how: String,
}

/// Limits as far as the file says them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipeLimits {
    /// Memory of all processes, in mebibytes.
    pub memory_mb: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Processor time in thousandths of one processor.
    pub cpu_millis: Option<u32>,
    /// Open files of one process.
    pub open_files: Option<u32>,
    /// Files that a box writes, in mebibytes.
    pub disk_mb: Option<u64>,
}

impl RecipeLimits {
    /// The limits of a box: the server's, narrowed. A recipe never widens one.
    #[must_use]
    pub fn within(self, server: Limits) -> Limits {
        let mut limits = server;
        if let Some(mb) = self.memory_mb {
            limits.memory_bytes = limits.memory_bytes.min(mb.saturating_mul(1 << 20));
        }
        if let Some(mb) = self.disk_mb {
            let bytes = mb.saturating_mul(1 << 20);
            limits.disk_bytes = Some(limits.disk_bytes.map_or(bytes, |most| most.min(bytes)));
        }
        limits.pids = self.pids.map_or(limits.pids, |pids| limits.pids.min(pids));
        limits.open_files = self.open_files.map_or(limits.open_files, |files| limits.open_files.min(files));
        limits.cpu_millis = match (self.cpu_millis, limits.cpu_millis) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, most) => wanted.or(most),
        };
        limits
    }
}

/// When an environment is built again though nothing in the recipe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// After so many hours.
    pub every_h: Option<u32>,
    /// When the branch moves. Until the new one is ready, tasks go on with the last good one.
    pub when_branch_moves: bool,
}

impl Default for Rebuild {
    fn default() -> Self {
        Self { every_h: None, when_branch_moves: true }
    }
}

/// Something a person should know about a line of a recipe: why it is there, or what was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The line, as a key of `environment.toml` (`setup.0`, `caches`); empty for the whole file.
    pub about: String,
    /// One sentence.
    pub text: String,
}

impl Note {
    pub(crate) fn new(about: impl Into<String>, text: impl Into<String>) -> Self {
        Self { about: about.into(), text: text.into() }
    }
}

/// Host paths that recipes may name, as the server's settings list them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permitted {
    /// A path that is one of these or lies below one may be read or imported.
    pub below: Vec<PathBuf>,
    /// Refused though permitted: homes, the server's data and secrets. A path is refused that is one
    /// of these, lies below one, or holds one.
    pub never: Vec<PathBuf>,
}

/// Folders that no recipe may name, whatever the settings say.
const NEVER: [&str; 9] = ["/root", "/home", "/etc", "/proc", "/sys", "/dev", "/run", "/var/run", "/boot"];

impl Permitted {
    /// Whether a host path may be named; `path` has to be without links to be judged for real, and
    /// is judged as written otherwise.
    ///
    /// # Errors
    /// One sentence that says why not.
    pub fn check(&self, path: &Path) -> Result<(), String> {
        use std::path::Component;
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain {
            return Err(format!("{} must be an absolute path without `..`", path.display()));
        }
        let listed = self.below.iter().find(|below| path.starts_with(below));
        // What the settings list inside of a built-in folder is meant; the given list always holds.
        let meant = |never: &Path| listed.is_some_and(|listed| listed != never && listed.starts_with(never));
        let built_in = NEVER.iter().map(Path::new).filter(|never| !meant(never));
        let mut refused = built_in.chain(self.never.iter().map(PathBuf::as_path));
        if let Some(never) = refused.find(|never| path.starts_with(never) || never.starts_with(path)) {
            return Err(format!(
                "{} is or holds {}, where secrets or the host's own state lie; copy what is needed elsewhere",
                path.display(),
                never.display()
            ));
        }
        if listed.is_some() {
            return Ok(());
        }
        Err(format!("{} is not in the server's list of host paths that environments may use", path.display()))
    }
}

/// A recipe that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// The file is not text.
    #[error("{file} line {line} is not UTF-8 text")]
    NotText {
        /// Path in the repository.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// The file's grammar or one of its keys is wrong.
    #[error("{file} line {line}, column {column}: {problem}{}", .instead.as_ref().map(|i| format!("; {i}")).unwrap_or_default())]
    NotUnderstood {
        /// Path in the repository.
        file: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What was found.
        problem: String,
        /// What to write instead, if it can be guessed.
        instead: Option<String>,
    },
    /// A value cannot be.
    #[error("{file}: {problem}")]
    BadValue {
        /// Path in the repository.
        file: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The file asks for something that boxes do not do.
    #[error("{file}: `{what}` is not supported: {why}")]
    Unsupported {
        /// Path in the repository.
        file: String,
        /// The key.
        what: String,
        /// Why, and what to do instead.
        why: String,
    },
    /// A host path that may not be named.
    #[error("the environment names the host path {}: {problem}", .path.display())]
    HostPath {
        /// Which.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
}

impl Recipe {
    /// The digest of the recipe in its normal form.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // Plain data without maps that have other keys than text: this cannot fail.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The host paths that boxes shall read, each checked as it is found on this machine: links are
    /// resolved, and what they lead to has to be permitted too.
    ///
    /// # Errors
    /// [`RecipeError::HostPath`] for the first that is not there or not permitted.
    pub fn binds(&self, permitted: &Permitted) -> Result<Vec<ReadOnlyBind>, RecipeError> {
        let bind = |bind: &ReadOnlyBind| {
            let from = real(&bind.from, permitted)?;
            Ok(ReadOnlyBind { from, at: bind.at.clone() })
        };
        self.read_only.iter().map(bind).collect()
    }

    /// The host path of the base, checked like [`Recipe::binds`]; none for the host's toolchains.
    ///
    /// # Errors
    /// [`RecipeError::HostPath`] if it is not there or not permitted.
    pub fn base_path(&self, permitted: &Permitted) -> Result<Option<PathBuf>, RecipeError> {
        self.base.host_path().map(|path| real(path, permitted)).transpose()
    }

    /// What setup command `command` may reach, out of the recipe's setup network.
    #[must_use]
    pub fn reach(&self, command: &SetupCommand) -> Vec<Allow> {
        match &command.network {
            SetupNetwork::None => Vec::new(),
            SetupNetwork::Listed => self.setup_network.clone(),
            SetupNetwork::Only(names) => {
                let wanted = |allow: &&Allow| names.iter().any(|name| name == allow.name());
                self.setup_network.iter().filter(wanted).cloned().collect()
            }
        }
    }
}

fn real(path: &Path, permitted: &Permitted) -> Result<PathBuf, RecipeError> {
    let refuse = |problem: String| RecipeError::HostPath { path: path.to_owned(), problem };
    permitted.check(path).map_err(refuse)?;
    let real = path.canonicalize().map_err(|error| refuse(format!("it cannot be found on this machine ({error})")))?;
    if real != path {
        permitted.check(&real).map_err(|problem| refuse(format!("it leads elsewhere, and {problem}")))?;
    }
    Ok(real)
}
