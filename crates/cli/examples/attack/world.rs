//! Real boxes of the product's own program, and short verbs.
//!
//! Absent: attacks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::id::{Digest, SandboxId};
use sandbox::local::{LocalConfig, LocalProvider, Toolchains};
use sandbox::{
    Capabilities, Ended, ExecOutcome, ExecRequest, Limits, Owners, Provider, ReadOnlyBind, Root, Sandbox, SnapshotRef,
    StartSpec,
};

use crate::Arguments;

/// Where a box sees the program that does its worst.
pub const ATTACK: &str = "/opt/attack";
/// Where a box sees this program.
pub const INSIDE: &str = "/opt/inside";

/// A provider with one small layer.
pub struct World {
    pub folder: PathBuf,
    pub provider: Arc<LocalProvider>,
    pub can: Capabilities,
    pub snapshot: SnapshotRef,
    binds: Vec<ReadOnlyBind>,
}

/// A finished command.
pub struct Ran {
    pub outcome: ExecOutcome,
    pub text: String,
}

impl World {
    /// Fails with the machine's own words if no box starts here.
    pub async fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let folder = arguments.folder.join(format!("boxes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let config = LocalConfig::of_program(&arguments.chargehand, &folder.join("data"), Toolchains::default());
        let provider = Arc::new(LocalProvider::open(config)?);
        let can = provider.probe().await;
        if !can.usable {
            bail!("no box starts on this machine: {:?}", can.problems);
        }
        let key = Digest::of(b"the attacked layer");
        let staged = provider.stage(&key, "/workspace".as_ref()).await?;
        std::fs::write(staged.content.join("hello.txt"), "hello\n")?;
        let snapshot = provider.prepare(&key, staged, Owners::Root).await?;
        let bind = |from: PathBuf, at: &str| ReadOnlyBind { from, at: at.into() };
        let binds = vec![bind(arguments.box_attack.clone(), ATTACK), bind(std::env::current_exe()?, INSIDE)];
        Ok(Self { folder, provider, can, snapshot, binds })
    }

    /// What a box starts from; to be changed by who needs something else.
    pub fn spec(&self, name: &str) -> anyhow::Result<StartSpec> {
        Ok(StartSpec {
            id: SandboxId::parse(name)?,
            snapshot: self.snapshot.clone(),
            root: Root::Host,
            door: None,
            limits: Limits { pids: 256, memory_bytes: 512 << 20, ..Limits::default() },
            env: Vec::new(),
            binds: self.binds.clone(),
            workdir: "/workspace".into(),
        })
    }

    pub async fn start(&self, name: &str) -> anyhow::Result<Arc<dyn Sandbox>> {
        self.start_with(self.spec(name)?).await
    }

    /// A started box that has answered.
    pub async fn start_with(&self, spec: StartSpec) -> anyhow::Result<Arc<dyn Sandbox>> {
        let sandbox = self.provider.start(spec).await?.sandbox;
        answers(&sandbox, "first").await?;
        Ok(sandbox)
    }

    pub async fn destroy(&self, sandbox: &Arc<dyn Sandbox>) -> anyhow::Result<()> {
        Ok(self.provider.destroy(sandbox.id()).await?)
    }

    /// Destroys all boxes and removes the folder.
    pub async fn close(&self) -> anyhow::Result<()> {
        for found in self.provider.list().await? {
            self.provider.destroy(&found.id).await?;
        }
        // The provider takes away in the background what was destroyed, and locked folders only it can.
        let gone = soon(|| std::fs::remove_dir_all(&self.folder).is_ok() || !self.folder.exists()).await;
        if !gone {
            bail!("can't remove {}", self.folder.display());
        }
        Ok(())
    }
}

/// The control of everything in a box: it still does what it is for.
pub async fn answers(sandbox: &Arc<dyn Sandbox>, exec_id: &str) -> anyhow::Result<()> {
    let ran = run(sandbox, ExecRequest::new(exec_id, ["/bin/echo", "here"])).await?;
    if ran.text != "here\n" {
        bail!("the box no longer works: {:?} {}", ran.outcome.ended, ran.text);
    }
    Ok(())
}

/// Runs a command to its end, however it ends; both streams in one text.
pub async fn run(sandbox: &Arc<dyn Sandbox>, mut request: ExecRequest) -> anyhow::Result<Ran> {
    request.time_limit = request.time_limit.min(Duration::from_secs(60));
    let mut bytes = Vec::new();
    let outcome = sandbox.exec(request, &mut |chunk| bytes.extend_from_slice(&chunk.bytes)).await?;
    Ok(Ran { outcome, text: String::from_utf8_lossy(&bytes).into_owned() })
}

/// A line of shell that has to end well.
pub async fn shell(sandbox: &Arc<dyn Sandbox>, exec_id: &str, line: &str) -> anyhow::Result<String> {
    let ran = run(sandbox, ExecRequest::shell(exec_id, OsString::from(line))).await?;
    if ran.outcome.ended != (Ended::Exited { code: 0 }) {
        bail!("`{line}` ended with {:?}: {}", ran.outcome.ended, ran.text);
    }
    Ok(ran.text)
}

/// Whether a process with this word on its command line runs on this machine.
pub fn runs_on_host(word: &str) -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
}

/// Looks again and again for a while whether it holds.
pub async fn soon(holds: impl Fn() -> bool) -> bool {
    for _ in 0..400 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

/// Nothing, or the reason: for details of rows.
pub fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
