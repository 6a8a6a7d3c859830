//! A provider in a scratch folder, and short verbs for what is measured with it.
//!
//! Absent: measuring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::id::{Digest, SandboxId};
use sandbox::local::{LocalConfig, LocalProvider, Toolchains};
use sandbox::{Ended, ExecRequest, Limits, Provider, Root, Sandbox, SnapshotRef, StartSpec};

use crate::report::Outcome;

/// How the folder of a run is called; its process id follows.
const PREFIX: &str = "measure-";
/// Files in one folder of a tree.
const FILES_IN_FOLDER: usize = 50;

/// Some files in folders of fifty.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    /// How many.
    pub files: usize,
    /// How large each is.
    pub bytes: usize,
}

impl Tree {
    /// Writes the files; no two begin alike.
    pub fn write(self, to: &Path) -> Outcome {
        let mut content = b"0123456789abcde\n".repeat(self.bytes.div_ceil(16));
        content.truncate(self.bytes);
        for n in 0..self.files {
            let folder = to.join(format!("d{}", n / FILES_IN_FOLDER));
            if n % FILES_IN_FOLDER == 0 {
                std::fs::create_dir_all(&folder)?;
            }
            for (to, from) in content.iter_mut().zip(format!("{n:015}").bytes()) {
                *to = from;
            }
            std::fs::write(folder.join(format!("f{n}.txt")), &content)?;
        }
        Ok(())
    }
}

/// A provider with its folder.
pub struct World {
    /// Where all of this run lies.
    pub folder: PathBuf,
    /// What is measured.
    pub provider: Arc<LocalProvider>,
}

/// A box's id from a name.
fn id(name: &str) -> Outcome<SandboxId> {
    Ok(SandboxId::parse(name)?)
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn provider(folder: &Path) -> Outcome<Arc<LocalProvider>> {
    let program = std::env::current_exe()?;
    let config = LocalConfig::of_program(&program, &data(folder), Toolchains::default());
    Ok(Arc::new(LocalProvider::open(config)?))
}

impl World {
    /// In a new folder under this one, after removing what dead runs left there.
    pub async fn open(under: &Path) -> Outcome<Self> {
        for entry in std::fs::read_dir(under)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(pid) = name.strip_prefix(PREFIX) else { continue };
            if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
                eprintln!("measure: removing {}, which a killed run left", entry.path().display());
                let left = Self { provider: provider(&entry.path())?, folder: entry.path() };
                left.close().await?;
            }
        }
        let folder = under.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        Ok(Self { provider: provider(&folder)?, folder })
    }

    /// The provider's data folder.
    pub fn data(&self) -> PathBuf {
        data(&self.folder)
    }

    /// Whether boxes start here at all.
    pub async fn check(&self) -> Outcome {
        let can = self.provider.probe().await;
        if can.usable {
            return Ok(());
        }
        let why: Vec<String> = can.problems.iter().map(|problem| format!("{problem:?}")).collect();
        Err(format!("no box starts on this machine: {}", why.join("; ")).into())
    }

    /// Destroys all boxes and removes the folder.
    pub async fn close(&self) -> Outcome {
        self.clear().await?;
        // The provider takes away in the background what was destroyed, so a folder may be gone already.
        for _ in 0..100 {
            if std::fs::remove_dir_all(&self.folder).is_ok() {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    /// Destroys all boxes.
    pub async fn clear(&self) -> Outcome {
        for found in self.provider.list().await? {
            self.provider.destroy(&found.id).await?;
        }
        Ok(())
    }

    /// A layer with these files under `/workspace`.
    pub async fn layer(&self, name: &str, tree: Tree) -> Outcome<SnapshotRef> {
        self.layer_of(name, |content| tree.write(content)).await
    }

    /// A layer with what the caller writes under `/workspace`.
    pub async fn layer_of(&self, name: &str, write: impl FnOnce(&Path) -> Outcome) -> Outcome<SnapshotRef> {
        let key = Digest::of(name.as_bytes());
        let staged = self.provider.stage(&key, "/workspace".as_ref()).await?;
        write(&staged.content)?;
        Ok(self.provider.prepare(&key, staged, sandbox::Owners::Root).await?)
    }

    /// A started box.
    pub async fn start(&self, name: &str, snapshot: &SnapshotRef) -> Outcome<Arc<dyn Sandbox>> {
        start(&self.provider, name, snapshot).await
    }

    /// Ends its processes.
    pub async fn stop(&self, name: &str) -> Outcome {
        Ok(self.provider.stop(&id(name)?).await?)
    }

    /// Makes its changes a layer.
    pub async fn snapshot(&self, name: &str, key: &str) -> Outcome<SnapshotRef> {
        Ok(self.provider.snapshot(&id(name)?, &Digest::of(key.as_bytes())).await?)
    }

    /// Ends it and removes its files.
    pub async fn destroy(&self, name: &str) -> Outcome {
        Ok(self.provider.destroy(&id(name)?).await?)
    }
}

/// A started box, for whoever shares the provider.
pub async fn start(provider: &LocalProvider, name: &str, snapshot: &SnapshotRef) -> Outcome<Arc<dyn Sandbox>> {
    let spec = StartSpec {
        id: id(name)?,
        snapshot: snapshot.clone(),
        limits: Limits::default(),
        env: Vec::new(),
        binds: Vec::new(),
        workdir: "/workspace".into(),
        root: Root::Host,
        door: None,
    };
    Ok(provider.start(spec).await?.sandbox)
}

/// Runs a command that has to succeed; gives its output.
pub async fn run(sandbox: &Arc<dyn Sandbox>, request: ExecRequest) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let shown = format!("{:?}", request.argv);
    let outcome = sandbox.exec(request, &mut |chunk| bytes.extend_from_slice(&chunk.bytes)).await?;
    if outcome.ended == (Ended::Exited { code: 0 }) {
        return Ok(bytes);
    }
    Err(format!("{shown} ended with {:?}: {}", outcome.ended, String::from_utf8_lossy(&bytes)).into())
}

/// The same `echo` as the floor's, which has to answer.
pub async fn echo(sandbox: &Arc<dyn Sandbox>, exec_id: &str) -> Outcome {
    let answer = run(sandbox, ExecRequest::new(exec_id, ["/bin/echo", "x"])).await?;
    if answer == b"x\n" { Ok(()) } else { Err("a box did not answer".into()) }
}
