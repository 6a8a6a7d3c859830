//! What every test of the contract stands on: a provider in a folder of its own, and short verbs.
//! Absent: a second provider; what runs here is the real thing, as root or as an ordinary user.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::id::{Digest, SandboxId};
use sandbox::local::{LocalConfig, LocalProvider, Toolchains};
use sandbox::{
    ExecOutcome, ExecRequest, Limits, OutputChunk, Provider, ReadOnlyBind, Root, Sandbox, SandboxError, SnapshotRef,
    StartSpec, Started, Stream,
};

/// The user as whom the suite runs a second time.
pub const ORDINARY_USER: u32 = 54_321;
/// Names the folder in which the second run works.
pub const BASE_VARIABLE: &str = "CHARGEHAND_TEST_BASE";

pub const BOX_PROGRAM: &str = env!("CARGO_BIN_EXE_chargehand-box");
pub const ATTACK_PROGRAM: &str = env!("CARGO_BIN_EXE_box-attack");

/// How many processes run in the box besides the hand and the asking shell.
pub const OTHERS: &str =
    "n=0; for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || [ $p = $$ ] || n=$((n+1)); done; echo $n";

/// Says on the real standard error what could not be tried here.
pub fn not_run(name: &str, reason: &str) {
    let line = format!("NOT RUN: {name}{}: {reason}\n", if is_root() { "" } else { " (ordinary user)" });
    let _ = std::io::stderr().write_all(line.as_bytes());
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn base() -> PathBuf {
    std::env::var_os(BASE_VARIABLE).map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from)
}

/// Where chance begins: another place each time, or the one that a failure named.
pub fn seed() -> u64 {
    let named = std::env::var("CHARGEHAND_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    named.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_000)
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub provider: LocalProvider,
    counter: AtomicU32,
    provider_data: PathBuf,
}

/// A finished command.
#[derive(Debug)]
pub struct Ran {
    pub outcome: ExecOutcome,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
    pub fn err_text(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

/// Runs a test in a world of its own, and takes the world away afterwards, also after a panic.
pub fn in_world(test: impl AsyncFnOnce(&World)) {
    in_world_with(|_| {}, test);
}

pub fn in_world_with(change: impl FnOnce(&mut LocalConfig), test: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::Builder::new().prefix("world").tempdir_in(base()).unwrap();
    let mut config = config(&folder.path().join("data"), Toolchains::default());
    change(&mut config);
    let provider_data = config.data_dir.clone();
    let provider = LocalProvider::open(config).unwrap();
    let world = World { folder, provider, counter: AtomicU32::new(0), provider_data };
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(test(&world))));
    let cleaned = runtime.block_on(async {
        for info in world.provider.list().await? {
            world.provider.destroy(&info.id).await?;
        }
        world.removed().await;
        Ok::<_, SandboxError>(())
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    cleaned.unwrap();
}

pub fn config(data_dir: &Path, toolchains: Toolchains) -> LocalConfig {
    LocalConfig::of_program(Path::new(BOX_PROGRAM), data_dir, toolchains)
}

pub fn id(name: &str) -> SandboxId {
    SandboxId::parse(name).unwrap()
}

pub fn spec(name: &str, snapshot: &SnapshotRef) -> StartSpec {
    StartSpec {
        id: id(name),
        snapshot: snapshot.clone(),
        root: Root::Host,
        door: None,
        limits: Limits::default(),
        env: Vec::new(),
        binds: vec![ReadOnlyBind { from: ATTACK_PROGRAM.into(), at: "/opt/attack".into() }],
        workdir: "/workspace".into(),
    }
}

impl World {
    /// A snapshot whose `/workspace` holds `files`.
    pub async fn snapshot(&self, files: &[(&str, &str)]) -> SnapshotRef {
        let key = Digest::of(format!("{files:?}").as_bytes());
        let staged = self.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        for (name, text) in files {
            let path = staged.content.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        self.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap()
    }

    /// Waits until what was taken out of sight is removed. What another process took, which was
    /// killed then, waits for the next opening.
    pub async fn removed(&self) {
        let others = |name: std::ffi::OsString| {
            let name = name.into_string().unwrap();
            name.starts_with(|first: char| first.is_ascii_digit())
                && !name.starts_with(&format!("{}-", std::process::id()))
        };
        let trash = self.data().join("trash");
        while std::fs::read_dir(&trash).unwrap().any(|entry| !others(entry.unwrap().file_name())) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The provider's folder.
    pub fn data(&self) -> PathBuf {
        self.provider_data.clone()
    }

    pub async fn start(&self, spec: StartSpec) -> Started {
        self.provider.start(spec).await.unwrap_or_else(|error| panic!("start: {error}"))
    }

    /// A box on a snapshot with one file.
    pub async fn sandbox(&self, name: &str) -> Arc<dyn Sandbox> {
        let snapshot = self.snapshot(&[("hello.txt", "hello\n")]).await;
        self.start(spec(name, &snapshot)).await.sandbox
    }

    /// The pids on the host of all processes of a box: its first and all that descend from it.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let first = std::fs::read_to_string(self.folder.path().join("data/run").join(name).join("pid")).unwrap();
        let mut found = vec![first.split(' ').next().unwrap().parse().unwrap()];
        let parent = |pid: u32| -> Option<u32> {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut others: Vec<(u32, u32)> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
        loop {
            let (children, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, parent)| found.contains(parent));
            if children.is_empty() {
                return found;
            }
            found.extend(children.into_iter().map(|(pid, _)| pid));
            others = rest;
        }
    }

    pub fn exec_id(&self) -> String {
        format!("exec-{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn sh(&self, sandbox: &Arc<dyn Sandbox>, line: &str) -> Ran {
        run(sandbox, ExecRequest::shell(self.exec_id(), line)).await.unwrap()
    }

    pub async fn sh_within(&self, sandbox: &Arc<dyn Sandbox>, line: &str, limit: Duration) -> Ran {
        let request = ExecRequest { time_limit: limit, ..ExecRequest::shell(self.exec_id(), line) };
        run(sandbox, request).await.unwrap()
    }
}

pub async fn run(sandbox: &Arc<dyn Sandbox>, request: ExecRequest) -> Result<Ran, SandboxError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut take = |chunk: OutputChunk| match chunk.stream {
        Stream::Stdout => out.extend(chunk.bytes),
        Stream::Stderr => err.extend(chunk.bytes),
    };
    let outcome = sandbox.exec(request, &mut take).await?;
    Ok(Ran { outcome, out, err })
}
