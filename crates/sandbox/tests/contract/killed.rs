//! What is left when the control plane is killed, at a hundred random moments of each thing that it
//! does to boxes. The victim is this test program itself, started once more with a part of its own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use domain::id::{Digest, SandboxId};
use sandbox::local::{LocalProvider, Toolchains};
use sandbox::{Ended, ExecRequest, Provider, SandboxError, SnapshotRef};

use crate::world::{World, config, id, in_world, is_root, run, seed, spec};

/// As root; an ordinary user's run, which comes on top, is shorter.
const ROUNDS: u64 = 100;

fn rounds() -> std::ops::Range<u64> {
    0..if is_root() { ROUNDS } else { ROUNDS / 4 }
}

/// The victim's data folder, a word for it, and what it has begun is written to.
const DATA: &str = "CHARGEHAND_TEST_VICTIM_DATA";
const WORD: &str = "CHARGEHAND_TEST_VICTIM_WORD";
const LOG: &str = "CHARGEHAND_TEST_VICTIM_LOG";

/// What a victim is told.
struct Part {
    data: PathBuf,
    word: String,
    log: PathBuf,
}

impl Part {
    fn of_this_process() -> Option<Self> {
        let get = |name| std::env::var_os(name).map(PathBuf::from);
        Some(Self { data: get(DATA)?, word: get(WORD)?.into_os_string().into_string().unwrap(), log: get(LOG)? })
    }

    fn play(&self, deed: impl AsyncFnOnce(&Self, LocalProvider)) {
        let mut config = config(&self.data, Toolchains::default());
        // Launcher and hand carry the mark on their command lines; it changes nothing for them.
        config.launcher.push(mark(&self.data).into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(deed(self, LocalProvider::open(config).unwrap()));
    }

    /// Says what is done next, before it is done.
    fn say(&self, what: &str) {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(&self.log).unwrap();
        writeln!(log, "{what}").unwrap();
    }
}

fn mark(data: &Path) -> String {
    format!("/mark-{}", Digest::of(data.as_os_str().as_encoded_bytes()))
}

/// Chance, from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Starts a victim, waits until it says something, gives it up to `most` more, and kills it. Gives
/// what it said.
async fn killed(world: &World, test: &str, word: &str, after: Duration) -> Vec<String> {
    let log = world.folder.path().join("said");
    let _ = std::fs::remove_file(&log);
    let mut victim: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .envs([(DATA, world.data().as_os_str()), (WORD, word.as_ref()), (LOG, log.as_os_str())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while std::fs::read(&log).map_or(true, |said| said.is_empty()) {
        assert!(victim.try_wait().unwrap().is_none(), "it ended by itself");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(after).await;
    assert!(victim.try_wait().unwrap().is_none(), "it ended by itself");
    victim.kill().unwrap();
    victim.wait().unwrap();
    std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect()
}

/// Processes of the host with this among their arguments.
fn marked(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())).count()
}

/// Folders of control groups of this world's boxes.
fn groups(world: &World) -> Vec<PathBuf> {
    let root = world.data().canonicalize().unwrap();
    let label = format!("chargehand-{}", &Digest::of(root.as_os_str().as_encoded_bytes()).as_str()[..8]);
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap().trim_start_matches('/'));
        for mount in [Path::new("/sys/fs/cgroup").join(controllers), "/sys/fs/cgroup".into()] {
            for parent in [mount.join(path), mount.clone()] {
                let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
                found.extend(
                    entries.map(|entry| entry.path()).filter(|entry| {
                        entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&label))
                    }),
                );
            }
        }
    }
    found
}

/// Destroys every box that is listed until nothing of the victim's runs any more. What was in the
/// middle of a start becomes a box or ends, by itself; a look at the processes misses one that is
/// between two programs, so what has settled is what stays away.
async fn settled(world: &World, when: &str) {
    let boxes = async || world.provider.list().await.unwrap();
    let mark = mark(&world.data());
    let settled_by = Instant::now() + Duration::from_secs(60);
    let mut quiet_looks = 0;
    while quiet_looks < 4 && Instant::now() < settled_by {
        for info in boxes().await {
            world.provider.destroy(&info.id).await.unwrap();
        }
        let quiet = marked(&mark) == 0 && boxes().await.is_empty();
        quiet_looks = if quiet { quiet_looks + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    assert!(boxes().await.is_empty(), "{when}");
    assert_eq!(marked(&mark), 0, "{when}: a process runs that no folder knows");
    assert_eq!(groups(world), Vec::<PathBuf>::new(), "{when}: a control group is left");
}

#[test]
fn a_control_plane_that_is_killed_while_starting_forks_leaves_none_that_is_not_found() {
    if let Some(part) = Part::of_this_process() {
        return part.play(async |part, provider| {
            let snapshot: SnapshotRef = serde_json::from_str(&part.word).unwrap();
            for round in 0.. {
                let fork = async |n: u32| {
                    let name = format!("fork-{}-{round}-{n}", std::process::id());
                    part.say(&name);
                    provider.start(spec(&name, &snapshot)).await.unwrap();
                    provider.destroy(&id(&name)).await.unwrap();
                };
                tokio::join!(fork(1), fork(2), fork(3), fork(4));
            }
        });
    }
    const NAME: &str = "killed::a_control_plane_that_is_killed_while_starting_forks_leaves_none_that_is_not_found";
    in_world(async |world| {
        let seed = seed();
        let mut chance = Chance(seed);
        let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
        let word = serde_json::to_string(&snapshot).unwrap();
        for round in rounds() {
            killed(world, NAME, &word, Duration::from_micros(chance.below(40_000))).await;
            settled(world, &format!("seed {seed}, round {round}")).await;
        }
        // Nothing that was in their way is in the way of others.
        let sandbox = world.start(spec("after", &snapshot)).await.sandbox;
        assert_eq!(world.sh(&sandbox, "cat hello.txt").await.text(), "hello\n");
    });
}

#[test]
fn a_control_plane_that_is_killed_while_commands_run_never_runs_one_twice() {
    let line = |id: &str| ExecRequest::shell(id, format!("echo {id} >> /workspace/ran; echo {id}"));
    if let Some(part) = Part::of_this_process() {
        return part.play(async |part, provider| {
            let sandbox = provider.attach(&id("a")).await.unwrap().unwrap();
            for n in 0.. {
                let exec_id = format!("{}-{n}", part.word);
                part.say(&exec_id);
                run(&sandbox, line(&exec_id)).await.unwrap();
                if n % 3 == 0 {
                    sandbox.acknowledge(&exec_id).await.unwrap();
                }
            }
        });
    }
    const NAME: &str = "killed::a_control_plane_that_is_killed_while_commands_run_never_runs_one_twice";
    in_world(async |world| {
        let seed = seed();
        let mut chance = Chance(seed);
        let sandbox = world.sandbox("a").await;
        let mut wanted = BTreeMap::new();
        for round in rounds() {
            let begun = killed(world, NAME, &round.to_string(), Duration::from_micros(chance.below(12_000))).await;
            for (n, exec_id) in begun.iter().enumerate() {
                let ran = run(&sandbox, line(exec_id)).await.unwrap();
                assert_eq!(ran.outcome.ended, Ended::Exited { code: 0 }, "seed {seed}, {exec_id}");
                if n % 3 != 0 {
                    assert_eq!(ran.text(), format!("{exec_id}\n"), "seed {seed}: its output is whole");
                }
                wanted.insert(exec_id.clone(), 1);
            }
        }
        let mut ran = BTreeMap::new();
        for exec_id in world.sh(&sandbox, "cat ran").await.text().lines() {
            *ran.entry(exec_id.to_owned()).or_insert(0) += 1;
        }
        assert_eq!(ran, wanted, "seed {seed}");
        assert!(wanted.len() as u64 >= rounds().end);
    });
}

#[test]
fn a_control_plane_that_is_killed_while_taking_snapshots_leaves_none_half() {
    if let Some(part) = Part::of_this_process() {
        return part.play(async |part, provider| {
            let (name, snapshot) = part.word.split_once(' ').unwrap();
            let mut snapshot: SnapshotRef = serde_json::from_str(snapshot).unwrap();
            for n in 0.. {
                let sandbox = provider.start(spec(name, &snapshot)).await.unwrap().sandbox;
                let line = format!("mkdir {n}; echo {n} > {n}/first; rm -rf {}; echo {n} > {n}/last", n - 2);
                run(&sandbox, ExecRequest::shell(format!("{n}"), line)).await.unwrap();
                part.say(&format!("{name}/{n}"));
                let key = Digest::of(format!("{name}/{n}").as_bytes());
                snapshot = provider.snapshot(&id(name), &key).await.unwrap();
            }
        });
    }
    const NAME: &str = "killed::a_control_plane_that_is_killed_while_taking_snapshots_leaves_none_half";
    in_world(async |world| {
        let seed = seed();
        let mut chance = Chance(seed);
        let base = world.snapshot(&[("hello.txt", "hello\n")]).await;
        for round in rounds() {
            let name = format!("s{round}");
            let word = format!("{name} {}", serde_json::to_string(&base).unwrap());
            let begun = killed(world, NAME, &word, Duration::from_micros(chance.below(25_000))).await;
            let when = format!("seed {seed}, round {round}");
            snapshots_are_whole(world, &id(&name), &base, &begun, &when).await;
            settled(world, &when).await;
        }
        // Base, the two lowest of all and the hand, and whole snapshots: nothing else is a layer.
        for layer in std::fs::read_dir(world.data().join("layers")).unwrap() {
            let layer = layer.unwrap().path();
            assert!(layer.join("root").is_dir() && layer.join("boot").is_file(), "{}", layer.display());
        }
        assert_eq!(std::fs::read_dir(world.data().join("staging")).unwrap().count(), 0);
    });
}

/// Finishes the snapshot that was begun last, and looks at what is in the box then.
async fn snapshots_are_whole(world: &World, name: &SandboxId, base: &SnapshotRef, begun: &[String], when: &str) {
    let keys: Vec<Digest> = begun.iter().map(|text| Digest::of(text.as_bytes())).collect();
    let before = world.provider.stack(name).await.unwrap().unwrap_or_else(|| panic!("{when}: no box"));
    let taken = before.layers.len() - base.layers.len();
    assert!(taken == keys.len() || taken + 1 == keys.len(), "{when}: {taken} of {}", keys.len());
    assert_eq!(before.layers[base.layers.len()..], keys[..taken], "{when}");
    if let Some(last) = keys.get(taken) {
        assert!(world.provider.prepared(last).await.unwrap().is_none(), "{when}: a layer that no box has");
    }
    let last = keys.last().unwrap();
    let snapshot = match world.provider.snapshot(name, last).await {
        Err(SandboxError::Gone { .. }) => panic!("{when}: its files are gone"),
        other => other.unwrap(),
    };
    assert_eq!(snapshot.layers.len(), base.layers.len() + keys.len(), "{when}");
    let fork = world.start(spec(&format!("{name}-fork"), &snapshot)).await.sandbox;
    let seen = world.sh(&fork, "for n in */; do echo $n $(cat $n/first $n/last); done | sort -n").await;
    let last = keys.len() - 1;
    let wanted = |n: usize| format!("{n}/ {n} {n}\n");
    let all: String = (last.saturating_sub(1)..=last).map(wanted).collect();
    assert_eq!(seen.text(), all, "{when}");
}
