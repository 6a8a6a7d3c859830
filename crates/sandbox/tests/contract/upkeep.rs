//! What keeps a machine usable: layers that nobody needs go, trees of any depth go, and no box
//! holds up its own end.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use domain::id::Digest;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use sandbox::local::{LocalProvider, Toolchains};
use sandbox::{Ended, ExecRequest, Limits, Provider, SandboxError, SnapshotRef, StartSpec, StartedAs};

use crate::world::{OTHERS, World, config, id, in_world, is_root, run, spec};

/// Deeper than a path can say, and than one process may have files open.
const DEPTH: usize = 5000;

/// Layers on disk, the provider's own left out.
async fn layers(world: &World, known: &[&SnapshotRef]) -> Vec<bool> {
    // Asking the provider would count as a use.
    let place = |key: &Digest| world.folder.path().join("data/layers").join(&key.as_str()[..32]);
    known.iter().map(|snapshot| place(&snapshot.layers[0]).exists()).collect()
}

async fn retain(world: &World, keep: &[&SnapshotRef]) -> usize {
    let keep: HashSet<Digest> = keep.iter().flat_map(|snapshot| snapshot.layers.iter().cloned()).collect();
    world.provider.retain_layers(&keep).await.unwrap()
}

#[test]
fn layers_go_when_no_box_and_no_caller_needs_them_for_two_looks_in_a_row() {
    in_world(async |world| {
        let used = world.snapshot(&[("used", "")]).await;
        let kept = world.snapshot(&[("kept", "")]).await;
        let unused = world.snapshot(&[("unused", "")]).await;
        let all = [&used, &kept, &unused];
        let sandbox = world.start(spec("a", &used)).await.sandbox;
        assert_eq!(retain(world, &[&kept]).await, 0);
        assert_eq!(layers(world, &all).await, [true, true, true]);
        assert_eq!(retain(world, &[&kept]).await, 1);
        assert_eq!(layers(world, &all).await, [true, true, false]);
        assert!(world.provider.prepared(&unused.layers[0]).await.unwrap().is_none());
        world.removed().await;
        // A stopped box still has its files on the layer; the provider's own layer stays with it.
        world.provider.stop(&id("a")).await.unwrap();
        assert_eq!((retain(world, &[&kept]).await, retain(world, &[&kept]).await), (0, 0));
        drop(sandbox);
        let sandbox = world.start(spec("a", &used)).await.sandbox;
        assert_eq!(world.sh(&sandbox, "ls").await.text(), "used\n");
        world.provider.destroy(&id("a")).await.unwrap();
        assert_eq!((retain(world, &[]).await, retain(world, &[]).await), (0, 2));
        assert_eq!(layers(world, &all).await, [false, false, false]);
        let again = world.snapshot(&[("used", "")]).await;
        let sandbox = world.start(spec("a", &again)).await.sandbox;
        assert_eq!(world.sh(&sandbox, "ls").await.text(), "used\n");
    });
}

#[test]
fn whoever_prepares_asks_or_starts_between_two_looks_keeps_the_layer() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("a", "")]).await;
        let key = &snapshot.layers[0];
        assert_eq!(retain(world, &[]).await, 0);
        assert!(world.provider.prepared(key).await.unwrap().is_some());
        assert_eq!(retain(world, &[]).await, 0);
        let staged = world.provider.stage(key, Path::new("/workspace")).await.unwrap();
        world.provider.prepare(key, staged, sandbox::Owners::Root).await.unwrap();
        assert_eq!(retain(world, &[]).await, 0);
        world.start(spec("a", &snapshot)).await;
        world.provider.destroy(&id("a")).await.unwrap();
        assert_eq!(retain(world, &[]).await, 0);
        assert_eq!(layers(world, &[&snapshot]).await, [true]);
        assert_eq!(retain(world, &[]).await, 1);
    });
}

#[test]
fn a_snapshots_layers_stay_while_a_box_stands_on_them() {
    in_world(async |world| {
        let base = world.snapshot(&[("base", "")]).await;
        let sandbox = world.start(spec("a", &base)).await.sandbox;
        world.sh(&sandbox, "echo x > more").await;
        let both = world.provider.snapshot(&id("a"), &Digest::of(b"both")).await.unwrap();
        assert_eq!((retain(world, &[]).await, retain(world, &[]).await), (0, 0));
        let fork = world.start(spec("fork", &both)).await.sandbox;
        world.provider.destroy(&id("a")).await.unwrap();
        assert_eq!((retain(world, &[]).await, retain(world, &[]).await), (0, 0));
        assert_eq!(world.sh(&fork, "ls").await.text(), "base\nmore\n");
        world.provider.destroy(&id("fork")).await.unwrap();
        assert_eq!((retain(world, &[]).await, retain(world, &[]).await), (0, 2));
    });
}

#[test]
fn starts_that_race_with_clearing_never_lose_their_layer() {
    in_world(async |world| {
        for round in 0..40 {
            let name = format!("r{round}");
            let snapshot = world.snapshot(&[(&name, "")]).await;
            // Idle at the look before; whether the next one or the start comes first is open.
            retain(world, &[]).await;
            let (started, removed) = tokio::join!(world.provider.start(spec(&name, &snapshot)), retain(world, &[]));
            match started {
                Ok(started) => {
                    assert_eq!(removed, 0, "the layer of a started box was removed");
                    assert_eq!(world.sh(&started.sandbox, "ls").await.text(), format!("{name}\n"));
                }
                Err(SandboxError::LayerMissing { .. }) => assert_eq!(removed, 1),
                Err(other) => panic!("{other}"),
            }
            world.provider.destroy(&id(&name)).await.unwrap();
            retain(world, &[]).await;
            retain(world, &[]).await;
        }
    });
}

#[test]
fn a_removal_that_was_cut_off_is_finished_when_the_folder_is_opened_again() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("a", "")]).await;
        let data = world.folder.path().join("data");
        // The first half of a removal: out of sight.
        let layer = data.join("layers").join(&snapshot.layers[0].as_str()[..32]);
        nest(&layer.join("root"), DEPTH);
        std::fs::rename(&layer, data.join("trash/half")).unwrap();
        assert!(world.provider.prepared(&snapshot.layers[0]).await.unwrap().is_none());
        drop(LocalProvider::open(config(&data, Toolchains::default())).unwrap());
        world.removed().await;
    });
}

/// A chain of so many folders with a file at its end.
fn nest(root: &Path, depth: usize) {
    let folder = |at: &OwnedFd, name: &Path| openat(at, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut open = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&open, "d", Mode::RWXU).unwrap();
        open = folder(&open, Path::new("d")).unwrap();
    }
    openat(&open, "end", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).unwrap();
}

#[test]
fn a_tree_of_five_thousand_locked_folders_is_snapshotted_and_destroyed() {
    in_world(async |world| {
        let base = world.snapshot(&[]).await;
        let sandbox = world.start(spec("a", &base)).await.sandbox;
        let ran = world.sh(&sandbox, &format!("/opt/attack nest {DEPTH}; echo made")).await;
        assert_eq!(ran.text(), "made\n", "{}", ran.err_text());
        let deep = world.provider.snapshot(&id("a"), &Digest::of(b"deep")).await.unwrap();
        let fork = world.start(spec("fork", &deep)).await.sandbox;
        let ran = world.sh(&fork, &format!("mkdir again; cd again; /opt/attack nest {DEPTH}; echo made")).await;
        assert_eq!(ran.text(), "made\n", "{}", ran.err_text());
        for name in ["a", "fork"] {
            world.provider.destroy(&id(name)).await.unwrap();
        }
        assert_eq!((retain(world, &[]).await, retain(world, &[]).await), (0, 2));
        world.removed().await;
        assert!(world.provider.list().await.unwrap().is_empty());
    });
}

#[test]
fn a_staged_tree_of_five_thousand_folders_becomes_a_layer_or_is_dropped_whole() {
    in_world(async |world| {
        let key = Digest::of(b"deep");
        let dropped = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        nest(&dropped.content, DEPTH);
        drop(dropped);
        let refused = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        nest(&refused.content, DEPTH);
        rustix::fs::mknodat(CWD, refused.content.join("p"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(
            world.provider.prepare(&key, refused, sandbox::Owners::Root).await,
            Err(SandboxError::BadLayer { .. })
        ));
        let staged = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        nest(&staged.content, DEPTH);
        let snapshot = world.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        // `rm` walks by descriptors; with a foreign owner anywhere it could not.
        let ran = world.sh(&sandbox, "rm -r d && ls | wc -l").await;
        assert_eq!(ran.text(), "0\n", "{}", ran.err_text());
        world.provider.destroy(&id("a")).await.unwrap();
        assert_eq!((retain(world, &[]).await, retain(world, &[]).await), (0, 1));
        // What was dropped is removed behind the caller's back.
        world.removed().await;
        assert_eq!(std::fs::read_dir(world.folder.path().join("data/staging")).unwrap().count(), 0);
    });
}

/// Processes of a bomb: enough to race with whoever ends them, and few enough that a machine of two
/// processors still has time for the tests that run beside this one.
const BOMB_PIDS: u32 = 120;

/// Starts a box in which [`BOMB_PIDS`] processes fork for ever.
async fn bombed(world: &World) {
    let snapshot = world.snapshot(&[]).await;
    let limits = Limits { pids: BOMB_PIDS, ..Limits::default() };
    let sandbox = world.start(StartSpec { limits, ..spec("a", &snapshot) }).await.sandbox;
    let (seen, mut up) = tokio::sync::mpsc::unbounded_channel();
    let mut take = |_| seen.send(()).unwrap_or_default();
    // Without control groups a bomb of many sessions takes the processors from everybody, these tests
    // included; that is what an ordinary user's machine lacks, and what `probe` says.
    let line = format!("echo up; exec /opt/attack {}", if is_root() { "scatter" } else { "bomb" });
    let exec = sandbox.exec(ExecRequest::shell("bomb", line), &mut take);
    tokio::select! { ended = exec => panic!("it ended: {ended:?}"), _ = up.recv() => {} }
    let enough = BOMB_PIDS as usize / 2;
    while world.processes("a").len() < enough {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_box_full_of_forking_processes_is_destroyed_with_all_of_them() {
    in_world(async |world| {
        bombed(world).await;
        world.provider.destroy(&id("a")).await.unwrap();
        assert!(world.provider.list().await.unwrap().is_empty());
        world.removed().await;
    });
}

#[test]
fn a_box_full_of_forking_processes_stops_and_goes_on_without_them() {
    in_world(async |world| {
        bombed(world).await;
        world.provider.stop(&id("a")).await.unwrap();
        let snapshot = world.snapshot(&[]).await;
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        assert_eq!(world.sh(&sandbox, OTHERS).await.text(), "0\n");
        let ran = run(&sandbox, ExecRequest::shell("bomb", "echo another life")).await.unwrap();
        assert_eq!(ran.text(), "another life\n");
    });
}

#[test]
fn a_time_limit_ends_a_bomb_of_forking_processes_and_the_box_is_of_use_afterwards() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { pids: BOMB_PIDS, ..Limits::default() };
        let sandbox = world.start(StartSpec { limits, ..spec("a", &snapshot) }).await.sandbox;
        let ran = world.sh_within(&sandbox, "exec /opt/attack bomb", Duration::from_millis(700)).await;
        assert_eq!(ran.outcome.ended, Ended::TimedOut);
        assert_eq!(world.sh(&sandbox, OTHERS).await.text(), "0\n");
    });
}

#[test]
fn layers_that_are_on_disk_outlast_the_machines_going_down_and_others_do_not() {
    in_world(async |world| {
        let data = world.data();
        let folder = |key: &Digest| data.join("layers").join(&key.as_str()[..32]);
        let base = world.snapshot(&[("hello.txt", "hello\n")]).await;
        let sandbox = world.start(spec("a", &base)).await.sandbox;
        world.sh(&sandbox, "echo more > more.txt").await;
        let both = world.provider.snapshot(&id("a"), &Digest::of(b"both")).await.unwrap();
        world.start(spec("a", &both)).await;
        let young = world.snapshot(&[("young", "")]).await;
        while !both.layers.iter().chain(&young.layers).all(|key| folder(key).join("durable").exists()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.provider.stop(&id("a")).await.unwrap();
        // Everything says that it was written before the machine went down, the young layer that it was
        // not on disk then.
        std::fs::remove_file(folder(&young.layers[0]).join("durable")).unwrap();
        for entry in std::fs::read_dir(data.join("layers")).unwrap() {
            std::fs::write(entry.unwrap().path().join("boot"), "an earlier one").unwrap();
        }
        let record = data.join("run/a/box.json");
        let text = std::fs::read_to_string(&record).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(&record, text.replace(boot.trim(), "an earlier one")).unwrap();
        let next = LocalProvider::open(config(&data, Toolchains::default())).unwrap();
        assert!(next.prepared(&young.layers[0]).await.unwrap().is_none());
        let started = next.start(spec("a", &both)).await.unwrap();
        assert_eq!(started.found, StartedAs::FilesLost);
        assert_eq!(world.sh(&started.sandbox, "cat hello.txt more.txt").await.text(), "hello\nmore\n");
        next.destroy(&id("a")).await.unwrap();
    });
}
