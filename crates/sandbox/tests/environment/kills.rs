//! A builder that is killed at any moment, a hundred times: nothing half, nothing left, and the next
//! build is good. The builder is this test program once more.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use domain::id::Digest;
use sandbox::environment::build::build;
use sandbox::environment::import::{ImportLimits, import};
use sandbox::environment::recipe::Base;
use sandbox::local::{LocalProvider, Toolchains};
use sandbox::{Owners, Provider, SnapshotRef};

use crate::archive::{Tar, save};
use crate::builds::build_spec;
use crate::world::{BASE_VARIABLE, base, config, in_world, is_root, spec};

const FOLDER_VARIABLE: &str = "CHARGEHAND_TEST_BUILDER";
const ROUND_VARIABLE: &str = "CHARGEHAND_TEST_ROUND";
const SEED_VARIABLE: &str = "CHARGEHAND_TEST_SEED";
/// Files in the archive and files that setup makes.
const FILES: usize = 40;

fn provider(folder: &Path) -> LocalProvider {
    LocalProvider::open(config(&folder.join("data"), Toolchains::default())).unwrap()
}

fn archive(folder: &Path, round: usize) -> PathBuf {
    let whole = (0..FILES).fold(Tar::default(), |tar, n| tar.file(&format!("d/{n}"), &format!("{round} {n}")));
    save(folder, &format!("{round}.tar"), &whole.done())
}

async fn below(provider: &dyn Provider) -> SnapshotRef {
    let key = Digest::of(b"below");
    let staged = provider.stage(&key, Path::new("/workspace")).await.unwrap();
    std::fs::write(staged.content.join("hello.txt"), "hello\n").unwrap();
    provider.prepare(&key, staged, Owners::Root).await.unwrap()
}

/// Imports an archive and builds an environment of two commands.
async fn work(folder: &Path, round: usize) -> SnapshotRef {
    let provider = provider(folder);
    let below = below(&provider).await;
    let base = Base::Tarball { file: folder.join(format!("{round}.tar")) };
    import(&provider, &base, ImportLimits::default()).await.unwrap().unwrap();
    let make = format!("echo begun >> log; i=0; while [ $i -lt {FILES} ]; do echo {round} > made-$i; i=$((i+1)); done");
    let spec = build_spec(&format!("round {round}"), &below, &[&make, "echo ended >> log; sleep 1000 &"]);
    let built = build(&provider, &spec, &mut <[u8]>::to_vec).await.unwrap();
    assert!(provider.list().await.unwrap().is_empty(), "a build left its box");
    built.snapshot
}

/// Every layer on disk is whole: an import has all files, the files of a build are all there.
fn layers_are_whole(folder: &Path) {
    for layer in std::fs::read_dir(folder.join("data/layers")).unwrap().flatten() {
        let root = layer.path().join("root");
        let count = |folder: &Path, prefix: &str| {
            let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count()
        };
        if root.join("d").exists() {
            assert_eq!(count(&root.join("d"), ""), FILES, "half an import");
        }
        if count(&root.join("workspace"), "made-") > 0 {
            assert_eq!(count(&root.join("workspace"), "made-"), FILES, "half a build");
            assert_eq!(std::fs::read_to_string(root.join("workspace/log")).unwrap(), "begun\nended\n");
        }
    }
}

fn start_builder(folder: &Path, round: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::a_builder_killed_at_any_moment_leaves_nothing_half_and_the_next_build_is_good"])
        .env(FOLDER_VARIABLE, folder)
        .env(ROUND_VARIABLE, round.to_string())
        .env(BASE_VARIABLE, base())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

#[test]
fn a_builder_killed_at_any_moment_leaves_nothing_half_and_the_next_build_is_good() {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        let round = std::env::var(ROUND_VARIABLE).unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work(Path::new(&folder), round));
        return;
    }
    in_world(async |world| {
        use std::hash::{BuildHasher as _, Hasher as _};
        let given = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| std::collections::hash_map::RandomState::new().build_hasher().finish() | 1);
        eprintln!("{SEED_VARIABLE}={seed}");
        let mut random = Random(seed);
        let folder = world.folder.path().join("killed");
        std::fs::create_dir(&folder).unwrap();
        archive(&folder, 0);
        let whole = Instant::now();
        assert!(start_builder(&folder, 0).wait().unwrap().success());
        let mut whole_us = u64::try_from(whole.elapsed().as_micros()).unwrap();
        let (mut found, mut finished) = (0, 0);
        for round in 1..=if is_root() { 100 } else { 10 } {
            archive(&folder, round);
            let mut builder = start_builder(&folder, round);
            let wait_us = random.below(whole_us);
            std::thread::sleep(Duration::from_micros(wait_us));
            builder.kill().unwrap();
            if builder.wait().unwrap().success() {
                // Later kills come while there is something to kill.
                finished += 1;
                whole_us = wait_us.max(20_000);
            }
            layers_are_whole(&folder);
            found += usize::from(!provider(&folder).list().await.unwrap().is_empty());
            let snapshot = work(&folder, round).await;
            layers_are_whole(&folder);
            let staged = std::fs::read_dir(folder.join("data/staging")).unwrap().count();
            assert_eq!(staged, 0, "round {round}: something staged is left");
            if round % 20 == 0 {
                let provider = provider(&folder);
                let fork = provider.start(spec("fork", &snapshot)).await.unwrap().sandbox;
                let ran = world.sh(&fork, "cat log; cat made-* | sort | uniq -c | tr -d ' '").await;
                assert_eq!(ran.text(), format!("begun\nended\n{FILES}{round}\n"));
                assert_eq!(world.sh(&fork, crate::world::OTHERS).await.text(), "0\n", "a daemon of setup lives");
                provider.destroy(fork.id()).await.unwrap();
            }
        }
        eprintln!("killed with a box alive or on disk: {found}; ended before the kill: {finished}");
        assert!(found > 0, "no kill came while a box was there: the test looks at nothing");
    });
}
