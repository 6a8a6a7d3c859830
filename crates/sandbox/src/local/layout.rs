//! Where things lie under the data folder, and how they appear and vanish in one step.
//!
//! ```text
//! layers/NAME/root      the tree, NAME = first 32 digits of the key (mounts show these names to
//! layers/NAME/boot      the box, so they say nothing); boot = the boot in which it was written,
//! layers/NAME/durable   durable = it is on disk for good
//! staging/PID-TICKS-N/  layers in the making; swept when their process is gone
//! run/ID/               box.json  pid  hand.sock  u (upper)  w (work, mounted over)
//! trash/N               what is being removed, in the background; what is left by the next opening
//! ```
//!
//! Nobody waits for the disk, for speed: layers are written to it in the background and then marked.
//! A layer of another boot without that mark is not trusted and dropped; a box of another boot loses
//! its files ([`crate::port::StartedAs::FilesLost`]), its snapshot stays what it was. Absent:
//! locking (one control plane owns the folder; the store sees to that).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use domain::id::{Digest, SandboxId};
use serde::{Deserialize, Serialize};

use crate::error::StorageContext as _;
use crate::local::chores::{Chores, is_durable};
use crate::local::process::Identity;
use crate::port::{Limits, SandboxError};

/// The data folder.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    boot: String,
    owner: Identity,
    counter: AtomicU64,
    chores: Chores,
}

/// What is written down of a box before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its stack, lowest first.
    pub layers: Vec<Digest>,
    /// Limits of the latest start.
    pub limits: Limits,
    /// The boot in which its files were written.
    pub boot: String,
    /// Control groups of the latest start.
    pub cgroups: Vec<PathBuf>,
    /// A snapshot that was begun.
    pub pending: Option<Digest>,
    /// Where its latest start made mount points.
    #[serde(default)]
    pub points: Vec<PathBuf>,
}

impl Layout {
    /// Opens the data folder: makes what is missing and sweeps what is left over.
    pub fn open(root: &Path) -> Result<Self, SandboxError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for name in ["", "layers", "staging", "run", "trash"] {
            let folder = root.join(name);
            builder.create(&folder).doing("create the folder", &folder)?;
        }
        let root = root.canonicalize().doing("find", root)?;
        let boot_file = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_file).doing("read", boot_file)?.trim().to_owned();
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        let owner = Identity::of(me).unwrap_or(Identity { pid: me, started: 0 });
        let layout = Self { root, boot, owner, counter: AtomicU64::new(0), chores: Chores::new() };
        layout.sweep();
        Ok(layout)
    }

    /// The data folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// This boot.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    fn sweep(&self) {
        for entry in children(&self.root.join("trash")) {
            self.chores.remove(entry);
        }
        for entry in children(&self.root.join("staging")) {
            if !self.made_by_the_living(&entry) {
                self.discard(&entry);
            }
        }
        for entry in children(&self.root.join("layers")) {
            if is_durable(&entry) {
                continue;
            }
            if fs::read_to_string(entry.join("boot")).is_ok_and(|boot| boot == self.boot) {
                self.chores.make_durable(entry);
            } else {
                tracing::info!(layer = %entry.display(), "dropping a layer that was not on disk when the machine went down");
                self.discard(&entry);
            }
        }
    }

    fn made_by_the_living(&self, entry: &Path) -> bool {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut parts = name.split('-');
        let (Some(pid), Some(started)) = (parts.next(), parts.next()) else { return false };
        match (pid.parse(), started.parse()) {
            (Ok(pid), Ok(started)) => Identity { pid, started }.alive(),
            _ => false,
        }
    }

    fn unique(&self, under: &str) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.root.join(under).join(format!("{}-{}-{number}", self.owner.pid, self.owner.started))
    }

    /// A new empty holder of a layer: `root/` and the boot's name are in it.
    pub fn new_holder(&self) -> Result<PathBuf, SandboxError> {
        let holder = self.unique("staging");
        let root = holder.join("root");
        fs::create_dir(&holder).doing("create", &holder)?;
        fs::create_dir(&root).doing("create", &root)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).doing("open", &root)?;
        fs::write(holder.join("boot"), &self.boot).doing("write into", &holder)?;
        Ok(holder)
    }

    /// The folder of a layer.
    pub fn layer(&self, key: &Digest) -> PathBuf {
        self.layer_named(layer_name(key))
    }

    /// The same by its name.
    pub fn layer_named(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name)
    }

    /// The names of all layers, as [`layer_name`] gives them.
    pub fn layer_names(&self) -> Vec<String> {
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        children(&self.root.join("layers")).iter().filter_map(name).collect()
    }

    /// Makes a holder the layer `key`. If it is there already, the holder is dropped.
    pub fn publish(&self, holder: &Path, key: &Digest) -> Result<(), SandboxError> {
        let target = self.layer(key);
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            holder,
            rustix::fs::CWD,
            &target,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {
                self.chores.make_durable(target);
                Ok(())
            }
            Err(rustix::io::Errno::EXIST) => {
                self.discard(holder);
                Ok(())
            }
            Err(error) => Err(error).doing("put in place the layer", &target),
        }
    }

    /// The folder of a box.
    pub fn run(&self, id: &SandboxId) -> PathBuf {
        self.root.join("run").join(id.as_str())
    }

    /// Takes the layer of this name out of sight; gives what is then to be removed.
    pub fn take_layer_away(&self, name: &str) -> Result<Option<PathBuf>, SandboxError> {
        self.take_away(&self.root.join("layers").join(name))
    }

    /// All boxes that have a folder.
    pub fn boxes(&self) -> Vec<SandboxId> {
        children(&self.root.join("run"))
            .iter()
            .filter_map(|path| SandboxId::parse(path.file_name()?.to_str()?).ok())
            .collect()
    }

    /// A name under which something can be taken out of sight.
    pub fn trash_name(&self) -> PathBuf {
        self.unique("trash")
    }

    /// Takes a folder out of sight in one step; gives what is then to be removed, if anything.
    pub fn take_away(&self, path: &Path) -> Result<Option<PathBuf>, SandboxError> {
        let away = self.trash_name();
        match fs::rename(path, &away) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.doing("move away", path).map(|()| Some(away)),
        }
    }

    /// Takes a folder out of sight in one step; it is removed in the background.
    pub fn remove(&self, path: &Path) -> Result<(), SandboxError> {
        if let Some(away) = self.take_away(path)? {
            self.chores.remove(away);
        }
        Ok(())
    }

    /// Removes, in the background, what was taken out of sight.
    pub fn forget(&self, away: PathBuf) {
        self.chores.remove(away);
    }

    /// Like [`Layout::remove`] where a failure only leaves rubbish for the next sweep.
    pub fn discard(&self, path: &Path) {
        if let Err(error) = self.remove(path) {
            tracing::warn!(%error, "left for the next sweep");
        }
    }

    /// What is written down of a box.
    pub fn record(&self, id: &SandboxId) -> Result<Option<Record>, SandboxError> {
        let path = self.run(id).join("box.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("read", &path),
        }
    }

    /// Writes it down.
    pub fn write_record(&self, id: &SandboxId, record: &Record) -> Result<(), SandboxError> {
        let path = self.run(id).join("box.json");
        let new = self.run(id).join("box.json.new");
        let bytes = serde_json::to_vec(record).map_err(io::Error::from).doing("write", &new)?;
        fs::write(&new, bytes).doing("write", &new)?;
        fs::rename(&new, &path).doing("replace", &path)
    }

    /// The first process of a box, if it still runs.
    pub fn living(&self, id: &SandboxId) -> Option<Identity> {
        let text = fs::read_to_string(self.run(id).join("pid")).ok()?;
        let mut fields = text.split_ascii_whitespace();
        let identity = Identity { pid: fields.next()?.parse().ok()?, started: fields.next()?.parse().ok()? };
        let same_boot = fields.next()? == self.boot;
        (same_boot && identity.alive()).then_some(identity)
    }
}

/// The name that mounts show.
pub fn layer_name(key: &Digest) -> &str {
    key.as_str().get(..32).unwrap_or(key.as_str())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}
