//! What boxes cost on this machine, beside a bare process of the same run.
//!
//! Prints rows for people and, as the last line, JSON: times in milliseconds, memory in kB. Takes
//! the folder to work in as its argument (default: the system's temporary one, which must not be on
//! an overlay) and leaves nothing there. This program is launcher and hand as well. Needs git on the
//! `PATH`. Absent: any judgement of the figures.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement reads its arguments and the clock, starts programs, and ends at the first surprise"
)]

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::id::{Digest, SandboxId};
use sandbox::local::{HAND_WORD, LAUNCHER_WORD, LocalConfig, LocalProvider, Toolchains, launcher_main};
use sandbox::{Ended, ExecRequest, Limits, Provider, Root, Sandbox, SnapshotRef, StartSpec};

const STARTS: usize = 100;
const REQUESTS: usize = 300;
const SNAPSHOTS: usize = 20;
const STATUSES: usize = 10;
const FORKS: usize = 100;
const MANY_FILES: usize = 5000;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let first = args.next();
    match first.as_deref().and_then(|word| word.to_str()) {
        Some(LAUNCHER_WORD) => std::process::exit(launcher_main()),
        Some(HAND_WORD) => std::process::exit(hand::main(&args.collect::<Vec<OsString>>())),
        _ => {}
    }
    let base = first.map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("measure").tempdir_in(base).unwrap();
    let data = folder.path().join("data");
    let program = std::env::current_exe().unwrap();
    let provider = LocalProvider::open(LocalConfig::of_program(&program, &data, Toolchains::default())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut bench = Bench { provider, data, report: serde_json::Map::new() };
    runtime.block_on(async {
        bench.bare_spawns();
        let small = bench.layer("small", 200, false).await;
        bench.starts(&small).await;
        bench.requests(&small).await;
        bench.snapshots(&small).await;
        let many = bench.layer("many", MANY_FILES, true).await;
        bench.git_status(&many).await;
        bench.forks(&many).await;
        bench.removal().await;
    });
    bench.report.insert("optimized".into(), (!cfg!(debug_assertions)).into());
    println!("{}", serde_json::Value::Object(bench.report));
}

struct Bench {
    provider: LocalProvider,
    data: PathBuf,
    report: serde_json::Map<String, serde_json::Value>,
}

fn id(name: &str) -> SandboxId {
    SandboxId::parse(name).unwrap()
}

async fn run(sandbox: &Arc<dyn Sandbox>, request: ExecRequest) -> usize {
    let mut bytes = 0;
    let outcome = sandbox.exec(request, &mut |chunk| bytes += chunk.bytes.len()).await.unwrap();
    assert_eq!(outcome.ended, Ended::Exited { code: 0 });
    bytes
}

fn echo(exec_id: impl Into<String>) -> ExecRequest {
    ExecRequest::new(exec_id, ["/bin/echo", "x"])
}

fn git(folder: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t.invalid"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Bench {
    fn say(&mut self, key: &str, what: &str, value: f64, unit: &str) {
        println!("{what}: {value:.2} {unit}");
        self.report.insert(key.to_owned(), ((value * 1000.0).round() / 1000.0).into());
    }

    /// The middle and the 95th of a hundred of many times, as `KEY_p50_ms` and `KEY_p95_ms`.
    fn spread(&mut self, key: &str, what: &str, mut times: Vec<Duration>) {
        times.sort();
        for share in [50, 95] {
            let at = times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
            self.say(&format!("{key}_p{share}_ms"), &format!("{what}, p{share} of {}", times.len()), at, "ms");
        }
    }

    fn once(&mut self, key: &str, what: &str, begun: Instant) {
        self.say(key, what, begun.elapsed().as_secs_f64() * 1000.0, "ms");
    }

    async fn start(&self, name: &str, snapshot: &SnapshotRef) -> Arc<dyn Sandbox> {
        let spec = StartSpec {
            id: id(name),
            snapshot: snapshot.clone(),
            root: Root::Host,
            door: None,
            limits: Limits::default(),
            env: Vec::new(),
            binds: Vec::new(),
            workdir: "/workspace".into(),
        };
        self.provider.start(spec).await.unwrap().sandbox
    }

    async fn destroy(&self, name: &str) {
        self.provider.destroy(&id(name)).await.unwrap();
    }

    /// A layer of so many files, in folders of fifty.
    async fn layer(&mut self, name: &str, files: usize, committed: bool) -> SnapshotRef {
        let key = Digest::of(name.as_bytes());
        let staged = self.provider.stage(&key, "/workspace".as_ref()).await.unwrap();
        for n in 0..files {
            let folder = staged.content.join(format!("d{}", n / 50));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("f{n}.txt")), format!("{n}\n").repeat(200)).unwrap();
        }
        if committed {
            for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "first"]] {
                git(&staged.content, arguments);
            }
            let begun = Instant::now();
            git(&staged.content, &["status", "--porcelain"]);
            self.once("git_status_host_ms", &format!("git status on the host, {files} files (floor)"), begun);
        }
        let begun = Instant::now();
        let snapshot = self.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap();
        self.once(&format!("prepare_{files}_files_ms"), &format!("prepare a layer of {files} files"), begun);
        snapshot
    }

    fn bare_spawns(&mut self) {
        let spawn = |_| {
            let begun = Instant::now();
            let output = Command::new("/bin/echo").arg("x").stdin(Stdio::null()).output().unwrap();
            assert_eq!(output.stdout, b"x\n");
            begun.elapsed()
        };
        let times = (0..STARTS).map(spawn).collect();
        self.spread("spawn_floor", "a bare process (floor)", times);
    }

    async fn starts(&mut self, snapshot: &SnapshotRef) {
        let (mut start, mut destroy) = (Vec::new(), Vec::new());
        for round in 0..STARTS {
            let name = format!("s{round}");
            let begun = Instant::now();
            let sandbox = self.start(&name, snapshot).await;
            let mut first = None;
            sandbox.exec(echo("x"), &mut |_| first = first.or(Some(begun.elapsed()))).await.unwrap();
            start.push(first.unwrap());
            let begun = Instant::now();
            self.destroy(&name).await;
            destroy.push(begun.elapsed());
        }
        self.spread("start", "from start to the first output", start);
        self.spread("destroy", "destroy", destroy);
    }

    async fn requests(&mut self, snapshot: &SnapshotRef) {
        let sandbox = self.start("a", snapshot).await;
        let (mut exec, mut acknowledge, mut file) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..REQUESTS {
            let name = format!("e{round}");
            let begun = Instant::now();
            assert_eq!(run(&sandbox, echo(&name)).await, 2);
            exec.push(begun.elapsed());
            let begun = Instant::now();
            sandbox.acknowledge(&name).await.unwrap();
            acknowledge.push(begun.elapsed());
            let begun = Instant::now();
            sandbox.stat("/workspace".as_ref()).await.unwrap();
            file.push(begun.elapsed());
        }
        self.spread("exec", "a command's round trip", exec);
        self.spread("acknowledge", "acknowledging it", acknowledge);
        self.spread("file_request", "a file request's round trip", file);
        let pid = std::fs::read_to_string(self.data.join("run/a/pid")).unwrap();
        let rollup = format!("/proc/{}/smaps_rollup", pid.split(' ').next().unwrap());
        let rollup = std::fs::read_to_string(rollup).unwrap();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        let pss = pss.split_ascii_whitespace().next().unwrap().parse().unwrap();
        self.say("hand_pss_kb", &format!("the hand at rest, after {REQUESTS} commands"), pss, "kB");
        let copied = run(&sandbox, ExecRequest::shell("big", "head -c 268435456 /dev/zero > big")).await;
        assert_eq!(copied, 0);
        let to = self.data.join("copied");
        let begun = Instant::now();
        assert_eq!(sandbox.copy_out("big".as_ref(), &to, 1 << 30).await.unwrap(), 256 << 20);
        self.once("copy_out_256_mib_ms", "copy 256 MiB out", begun);
        std::fs::remove_file(to).unwrap();
        self.destroy("a").await;
    }

    async fn snapshots(&mut self, snapshot: &SnapshotRef) {
        let mut times = Vec::new();
        let mut stack = snapshot.clone();
        for round in 0..SNAPSHOTS {
            let sandbox = self.start("a", &stack).await;
            let write = "for i in 1 2 3 4 5 6 7 8 9 10; do head -c 1000 /dev/zero > f$i; done";
            run(&sandbox, ExecRequest::shell("w", write)).await;
            let begun = Instant::now();
            let key = Digest::of(format!("shot {round}").as_bytes());
            stack = self.provider.snapshot(&id("a"), &key).await.unwrap();
            let sandbox = self.start("a", &stack).await;
            run(&sandbox, echo("x")).await;
            times.push(begun.elapsed());
        }
        self.spread("snapshot", "snapshot, start again, answer", times);
        self.destroy("a").await;
    }

    async fn git_status(&mut self, snapshot: &SnapshotRef) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..STATUSES {
            let sandbox = self.start("git", snapshot).await;
            for (name, times) in [("first", &mut first), ("second", &mut second)] {
                let begun = Instant::now();
                assert_eq!(run(&sandbox, ExecRequest::new(name, ["git", "status", "--porcelain"])).await, 0);
                times.push(begun.elapsed());
            }
            self.destroy("git").await;
        }
        self.spread("git_status_first", &format!("the first git status in a box, {MANY_FILES} files"), first);
        self.spread("git_status_second", "the second one", second);
    }

    async fn forks(&mut self, snapshot: &SnapshotRef) {
        let available_kb = || -> f64 {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap();
            let line = text.lines().find(|line| line.starts_with("MemAvailable")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let before = available_kb();
        let names: Vec<String> = (0..FORKS).map(|n| format!("fork{n}")).collect();
        let begun = Instant::now();
        let all = names.iter().map(|name| async {
            let sandbox = self.start(name, snapshot).await;
            run(&sandbox, echo("x")).await;
        });
        let mut all: Vec<_> = all.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            use std::future::Future as _;
            all.retain_mut(|one| one.as_mut().poll(context).is_pending());
            if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        drop(all);
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        self.say("fork100_ms", &format!("{FORKS} forks at once, all answered"), took, "ms");
        let per_box = (before - available_kb()) / FORKS as f64;
        self.say("box_at_rest_kb", "the machine's memory per box at rest", per_box, "kB");
        for name in &names {
            self.destroy(name).await;
        }
    }

    async fn removal(&mut self) {
        let nothing = HashSet::new();
        assert_eq!(self.provider.retain_layers(&nothing).await.unwrap(), 0);
        let begun = Instant::now();
        let removed = self.provider.retain_layers(&nothing).await.unwrap();
        self.once("remove_layers_ms", &format!("remove {removed} layers"), begun);
    }
}
