//! What may become a layer and whose its files are; what stacks of layers show, also in fewer.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use domain::id::Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use sandbox::{Ended, ExecRequest, Owners, Provider, ReadOnlyBind, Sandbox, SandboxError, SnapshotRef, StartSpec};

use crate::world::{World, id, in_world, is_root, not_run, run, spec};

/// Stages a tree and makes it a layer.
async fn prepared(world: &World, owners: Owners, fill: impl FnOnce(&Path)) -> Result<SnapshotRef, SandboxError> {
    let key = Digest::of(b"a staged tree");
    let staged = world.provider.stage(&key, Path::new("/workspace")).await?;
    fill(&staged.content);
    world.provider.prepare(&key, staged, owners).await
}

#[test]
fn kept_owners_are_the_boxs_users_of_the_same_numbers_also_under_several_names() {
    in_world(async |world| {
        let fill = |root: &Path| {
            std::fs::create_dir(root.join("dir")).unwrap();
            for name in ["plain", "mine", "dir/inner"] {
                std::fs::write(root.join(name), name).unwrap();
            }
            std::fs::hard_link(root.join("mine"), root.join("dir/again")).unwrap();
            std::os::unix::fs::symlink("plain", root.join("link")).unwrap();
            if is_root() {
                chown(root.join("mine"), Some(1000), Some(50)).unwrap();
                chown(root.join("dir"), Some(33), Some(65_535)).unwrap();
                std::os::unix::fs::lchown(root.join("link"), Some(7), Some(8)).unwrap();
            }
        };
        let snapshot = prepared(world, Owners::Kept, fill).await.unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let ran = world.sh(&sandbox, "stat -c '%n %u:%g %h' plain mine dir dir/again dir/inner link").await;
        let wanted = if is_root() {
            "plain 0:0 1\nmine 1000:50 2\ndir 33:65535 2\ndir/again 1000:50 2\ndir/inner 0:0 1\nlink 7:8 1\n"
        } else {
            "plain 0:0 1\nmine 0:0 2\ndir 0:0 2\ndir/again 0:0 2\ndir/inner 0:0 1\nlink 0:0 1\n"
        };
        assert_eq!(ran.text(), wanted, "{}", ran.err_text());
    });
}

#[test]
fn owners_beyond_a_boxs_users_are_refused_by_name() {
    in_world(async |world| {
        if !is_root() {
            return not_run("owners beyond a box's users are refused", "only root has files of other users");
        }
        for (user, group) in [(65_536, 0), (0, 65_536)] {
            let fill = |root: &Path| {
                std::fs::write(root.join("far"), "").unwrap();
                chown(root.join("far"), Some(user), Some(group)).unwrap();
            };
            let refused = prepared(world, Owners::Kept, fill).await;
            assert!(
                matches!(&refused, Err(SandboxError::BadLayer { path, what }) if path == Path::new("workspace/far") && what.contains("65535")),
                "{refused:?}"
            );
        }
    });
}

#[test]
fn set_user_id_bits_do_not_get_into_a_layer() {
    for owners in [Owners::Root, Owners::Kept] {
        in_world(async |world| {
            let fill = |root: &Path| {
                std::fs::write(root.join("tool"), "#!/bin/sh\n").unwrap();
                std::fs::set_permissions(root.join("tool"), std::fs::Permissions::from_mode(0o6755)).unwrap();
                assert_eq!(std::fs::metadata(root.join("tool")).unwrap().mode() & 0o7777, 0o6755);
            };
            let snapshot = prepared(world, owners, fill).await.unwrap();
            let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
            assert_eq!(world.sh(&sandbox, "stat -c %a tool").await.text(), "755\n");
        });
    }
}

#[test]
fn an_overlays_own_marks_are_refused_in_a_staged_tree() {
    in_world(async |world| {
        let mark = |name: &'static str| {
            move |root: &Path| {
                std::fs::create_dir(root.join("dir")).unwrap();
                rustix::fs::setxattr(root.join("dir"), name, b"y", XattrFlags::empty()).unwrap();
            }
        };
        let mut names = vec!["user.overlay.opaque", "user.overlay.redirect"];
        names.extend(is_root().then_some(["trusted.overlay.opaque", "trusted.overlay.redirect"]).into_iter().flatten());
        for name in names {
            let refused = prepared(world, Owners::Root, mark(name)).await;
            assert!(
                matches!(&refused, Err(SandboxError::BadLayer { path, what }) if path == Path::new("workspace/dir") && what.contains("overlay")),
                "{name}: {refused:?}"
            );
        }
        let whiteout = |root: &Path| mknodat(CWD, root.join("w"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let refused = prepared(world, Owners::Kept, whiteout).await;
        assert!(matches!(&refused, Err(SandboxError::BadLayer { path, .. }) if path == Path::new("workspace/w")));
        // An attribute of a program's own is kept.
        let fill = |root: &Path| {
            std::fs::write(root.join("file"), "").unwrap();
            rustix::fs::setxattr(root.join("file"), "user.note", b"kept", XattrFlags::empty()).unwrap();
        };
        let snapshot = prepared(world, Owners::Kept, fill).await.unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let ran = world.sh(&sandbox, "python3 -c 'import os; print(os.getxattr(\"file\", \"user.note\"))'").await;
        assert_eq!(ran.text(), "b'kept'\n", "{}", ran.err_text());
    });
}

/// What a box sees of its own files, told by a program in it.
async fn seen(world: &World, sandbox: &Arc<dyn Sandbox>) -> Vec<String> {
    let request = ExecRequest::new(world.exec_id(), ["python3", "/opt/tree.py", "show"]);
    let ran = run(sandbox, request).await.unwrap();
    assert!(ran.out.len() > 1000 && ran.err.is_empty(), "{}", ran.err_text());
    ran.text().lines().map(str::to_owned).collect()
}

/// A start of a box that has the program of [`seen`].
fn with_tree(name: &str, snapshot: &SnapshotRef) -> StartSpec {
    let mut spec = spec(name, snapshot);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/tree.py");
    spec.binds.push(ReadOnlyBind { from, at: "/opt/tree.py".into() });
    spec
}

/// The same without which names are one file's: of a file that a box changed itself, the overlay of
/// an ordinary user shows two names as two files until the next mount.
fn without_names(lines: &[String]) -> Vec<String> {
    let cut = |line: &String| match line.split_once(", 'like ") {
        Some((before, after)) => format!("{before}{}", after.split_once('\'').unwrap().1),
        None => line.clone(),
    };
    lines.iter().map(cut).collect()
}

fn assert_same(one: &[String], other: &[String], when: &str) {
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other, "{when}");
    }
    assert_eq!(one.len(), other.len(), "{when}");
}

#[test]
fn a_flattened_stack_shows_what_the_stack_showed_whatever_was_done_in_it() {
    in_world(async |world| {
        let seed = crate::world::seed();
        let files = [("a/b/c/one", "1"), ("a/b/two", "2"), ("d/e/three", "3"), ("f/four", "4"), ("five", "5")];
        for round in seed..seed + 3 {
            let mut snapshot = world.snapshot(&files).await;
            let name = format!("box-{round}");
            for turn in 0..5_u64 {
                let sandbox = world.start(with_tree(&name, &snapshot)).await.sandbox;
                let seed = (round * 100 + turn).to_string();
                let play = ExecRequest::new(world.exec_id(), ["python3", "/opt/tree.py", "play", &seed, "60"]);
                let ran = run(&sandbox, play).await.unwrap();
                assert_eq!(ran.text(), "True\n", "seed {round}: {}", ran.err_text());
                let before = seen(world, &sandbox).await;
                let key = Digest::of(format!("{round}-{turn}").as_bytes());
                snapshot = world.provider.snapshot(&id(&name), &key).await.unwrap();
                let sandbox = world.start(with_tree(&name, &snapshot)).await.sandbox;
                let after = without_names(&seen(world, &sandbox).await);
                assert_same(&without_names(&before), &after, &format!("seed {round}, snapshot {turn}"));
            }
            let running = world.start(with_tree(&name, &snapshot)).await.sandbox;
            let before = seen(world, &running).await;
            for keep in [0, 1, 3, 4] {
                let when = format!("seed {round}, {keep} layers kept");
                let key = Digest::of(format!("{round} flat {keep}").as_bytes());
                let flat = world.provider.flatten(&snapshot, keep, &key).await.unwrap();
                assert_eq!(flat.layers.len(), keep + 1);
                assert_eq!(world.provider.flatten(&snapshot, keep, &key).await.unwrap(), flat);
                let fork = world.start(with_tree(&format!("flat-{round}-{keep}"), &flat)).await.sandbox;
                assert_same(&before, &seen(world, &fork).await, &when);
                assert_same(&before, &seen(world, &running).await, &format!("{when}, in a box on the old stack"));
                // A flattened layer is a layer like any other: changed again, and flattened again.
                let play = ExecRequest::new(world.exec_id(), ["python3", "/opt/tree.py", "play", "7", "60"]);
                assert_eq!(run(&fork, play).await.unwrap().text(), "True\n");
                let before = seen(world, &fork).await;
                let more = Digest::of(format!("{round} more {keep}").as_bytes());
                let more = world.provider.snapshot(fork.id(), &more).await.unwrap();
                let again = Digest::of(format!("{round} again {keep}").as_bytes());
                let again = world.provider.flatten(&more, keep, &again).await.unwrap();
                let fork = world.start(with_tree(&format!("again-{round}-{keep}"), &again)).await.sandbox;
                let after = without_names(&seen(world, &fork).await);
                assert_same(&without_names(&before), &after, &format!("{when}, and once more"));
            }
        }
    });
}

#[test]
fn a_folder_renamed_over_two_snapshots_is_found_again_when_they_are_flattened() {
    in_world(async |world| {
        let base = world.snapshot(&[("dir/deep/inner", "inner\n"), ("dir/gone", "")]).await;
        let mut snapshot = base.clone();
        let lines = [
            "echo x > dir/deep/more; mv dir two; rm two/gone",
            "mkdir in; mv two in/three; mkdir dir two",
            "mv in/three/deep deep; echo y > dir/new",
        ];
        for (turn, line) in lines.iter().enumerate() {
            let sandbox = world.start(with_tree("a", &snapshot)).await.sandbox;
            let ran = world.sh(&sandbox, line).await;
            assert_eq!(ran.outcome.ended, Ended::Exited { code: 0 }, "{}", ran.err_text());
            let key = Digest::of(format!("turn {turn}").as_bytes());
            snapshot = world.provider.snapshot(&id("a"), &key).await.unwrap();
        }
        let flat = world.provider.flatten(&snapshot, 1, &Digest::of(b"flat")).await.unwrap();
        assert_eq!((snapshot.layers.len(), flat.layers.len()), (4, 2));
        let sandbox = world.start(spec("flat", &flat)).await.sandbox;
        let ran = world.sh(&sandbox, "find . | sort | tr '\\n' ' '; cat deep/inner deep/more dir/new").await;
        assert_eq!(ran.text(), ". ./deep ./deep/inner ./deep/more ./dir ./dir/new ./in ./in/three ./two inner\nx\ny\n");
        // Too few layers to merge: the snapshot itself.
        assert_eq!(world.provider.flatten(&flat, 1, &Digest::of(b"other")).await.unwrap(), flat);
        let missing = SnapshotRef { layers: vec![Digest::of(b"1"), Digest::of(b"2")] };
        let refused = world.provider.flatten(&missing, 0, &Digest::of(b"other")).await;
        assert!(matches!(refused, Err(SandboxError::LayerMissing { .. })));
        assert!(world.provider.prepared(&Digest::of(b"other")).await.unwrap().is_none());
    });
}

#[test]
fn a_box_that_only_looked_has_changed_nothing_and_any_change_is_seen() {
    in_world(async |world| {
        let mut snapshot = world.snapshot(&[("hello.txt", "hello\n"), ("dir/inner", "")]).await;
        assert!(!world.provider.changed(&id("a")).await.unwrap(), "no box");
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        world.sh(&sandbox, "cat hello.txt; ls -R; seq 100000; cp hello.txt copy; touch dir/x; rm copy dir/x").await;
        assert!(!world.provider.changed(&id("a")).await.unwrap());
        let changes = [
            "echo x >> hello.txt",
            "rm dir/inner",
            "chmod 700 dir",
            "mkdir new",
            "ln -s x link",
            "chmod 600 hello.txt",
            "rmdir new; mkdir new; rm -r dir; mkdir dir",
            "echo x > /home/agent/x",
            "mv hello.txt other.txt",
            "mkfifo pipe",
        ];
        for change in changes {
            let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
            assert!(!world.provider.changed(&id("a")).await.unwrap(), "after a snapshot, before {change}");
            assert_eq!(world.sh(&sandbox, change).await.outcome.ended, Ended::Exited { code: 0 }, "{change}");
            assert!(world.provider.changed(&id("a")).await.unwrap(), "{change}");
            world.provider.stop(&id("a")).await.unwrap();
            assert!(world.provider.changed(&id("a")).await.unwrap(), "{change}, stopped");
            snapshot = world.provider.snapshot(&id("a"), &Digest::of(change.as_bytes())).await.unwrap();
        }
    });
}

#[test]
fn names_of_one_file_show_one_content_before_and_after_a_snapshot() {
    in_world(async |world| {
        // Names that came with the snapshot, and names that were given in the box.
        let fill = |root: &Path| {
            std::fs::write(root.join("one"), "old\n").unwrap();
            std::fs::hard_link(root.join("one"), root.join("two")).unwrap();
        };
        let base = prepared(world, Owners::Root, fill).await.unwrap();
        let sandbox = world.start(with_tree("a", &base)).await.sandbox;
        let line = "echo new > three; ln three four; echo newer >> four; echo written > one; cat one two three four";
        let wanted = "written\nold\nnew\nnewer\nnew\nnewer\n";
        assert_eq!(world.sh(&sandbox, line).await.text(), wanted, "a write parts a name that came with a snapshot");
        let before = seen(world, &sandbox).await;
        let snapshot = world.provider.snapshot(&id("a"), &Digest::of(b"1")).await.unwrap();
        let sandbox = world.start(with_tree("a", &snapshot)).await.sandbox;
        assert_same(&before, &seen(world, &sandbox).await, "after the snapshot");
        let ran = world.sh(&sandbox, "test three -ef four && echo x >> three; cat one two three four").await;
        assert_eq!(ran.text(), "written\nold\nnew\nnewer\nx\nnew\nnewer\n");
        let before = seen(world, &sandbox).await;
        let snapshot = world.provider.snapshot(&id("a"), &Digest::of(b"2")).await.unwrap();
        let sandbox = world.start(with_tree("a", &snapshot)).await.sandbox;
        assert_same(&before, &seen(world, &sandbox).await, "after the next one");
        let flat = world.provider.flatten(&snapshot, 1, &Digest::of(b"flat")).await.unwrap();
        let sandbox = world.start(with_tree("flat", &flat)).await.sandbox;
        assert_same(&before, &seen(world, &sandbox).await, "flattened");
    });
}
