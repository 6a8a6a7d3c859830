//! Starting, stopping, resuming, snapshots, and what is left afterwards.

use std::path::Path;
use std::sync::Arc;

use domain::id::Digest;
use sandbox::local::{LocalProvider, Toolchains};
use sandbox::{Ended, ExecRequest, Provider, SandboxError, StartedAs};

use crate::world::{OTHERS, config, id, in_world, in_world_with, is_root, not_run, run, spec};

#[test]
fn a_stopped_box_goes_on_with_its_files_and_an_alive_one_is_adopted() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
        let started = world.start(spec("a", &snapshot)).await;
        assert_eq!(started.found, StartedAs::Fresh);
        world.sh(&started.sandbox, "echo kept > new.txt; rm hello.txt; mkdir d; echo x > d/x").await;
        assert_eq!(world.start(spec("a", &snapshot)).await.found, StartedAs::Adopted);
        world.provider.stop(&id("a")).await.unwrap();
        assert!(world.provider.attach(&id("a")).await.unwrap().is_none());
        let gone = run(&started.sandbox, ExecRequest::shell("late", "true")).await;
        assert!(matches!(gone, Err(SandboxError::Gone { .. })));
        let resumed = world.start(spec("a", &snapshot)).await;
        assert_eq!(resumed.found, StartedAs::Resumed);
        let ran = world.sh(&resumed.sandbox, "cat new.txt d/x; ls").await;
        assert_eq!(ran.text(), "kept\nx\nd\nnew.txt\n");
    });
}

#[test]
fn a_box_outlives_its_provider_and_a_running_command_is_followed_to_its_end() {
    in_world(async |world| {
        let data = world.folder.path().join("data");
        let sandbox = world.sandbox("a").await;
        {
            let (seen, mut chunks) = tokio::sync::mpsc::unbounded_channel();
            let mut take = |chunk: sandbox::OutputChunk| drop(seen.send(chunk.bytes));
            let line = "echo begun; while ! test -e /tmp/go; do sleep 0.01; done; echo done";
            let exec = sandbox.exec(ExecRequest::shell("x", line), &mut take);
            tokio::select! { _ = exec => panic!("too early"), _ = chunks.recv() => {} }
        }
        drop(sandbox);
        let next = LocalProvider::open(config(&data, Toolchains::default())).unwrap();
        let infos = next.list().await.unwrap();
        assert!(infos.len() == 1 && infos[0].alive && infos[0].id == id("a"));
        let sandbox = next.attach(&id("a")).await.unwrap().unwrap();
        sandbox.write("/tmp/go".as_ref(), b"", None).await.unwrap();
        let mut out = Vec::new();
        let outcome = sandbox.follow("x", &mut |chunk| out.extend(chunk.bytes)).await.unwrap();
        assert_eq!((outcome.ended, out), (Ended::Exited { code: 0 }, b"begun\ndone\n".to_vec()));
        next.destroy(&id("a")).await.unwrap();
        assert!(next.list().await.unwrap().is_empty());
    });
}

#[test]
fn destroying_leaves_no_process_no_folder_and_no_control_group() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let mark = format!("{}", 100_000 + std::process::id());
        world
            .sh(
                &sandbox,
                &format!("sleep {mark} & setsid sleep {mark} & mkdir -m 0 locked; mkdir -p ro/sub; chmod 555 ro"),
            )
            .await;
        let run_folder = world.folder.path().join("data/run/a");
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(run_folder.join("box.json")).unwrap()).unwrap();
        let groups: Vec<String> =
            record["cgroups"].as_array().unwrap().iter().map(|g| g.as_str().unwrap().to_owned()).collect();
        // The shell does not wait until both are the program that they become.
        while sleepers(&mark) != 2 {}
        for group in &groups {
            assert!(Path::new(group).is_dir());
        }
        world.provider.destroy(&id("a")).await.unwrap();
        world.provider.destroy(&id("a")).await.unwrap();
        assert_eq!(sleepers(&mark), 0);
        assert!(!run_folder.exists());
        world.removed().await;
        for group in &groups {
            assert!(!Path::new(group).exists(), "{group} is left");
        }
        if groups.is_empty() {
            not_run("a destroyed box leaves no control group", "this user can make none");
        }
    });
}

/// Processes of the host whose last argument is `mark`.
fn sleepers(mark: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.ends_with(format!("\0{mark}\0").as_bytes()) && line.starts_with(b"sleep"))
        .count()
}

#[test]
fn boxes_on_one_snapshot_do_not_see_each_other_and_the_layer_never_changes() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("hello.txt", "hello\n"), ("dir/inner.txt", "inner\n")]).await;
        let one = world.start(spec("one", &snapshot)).await.sandbox;
        let two = world.start(spec("two", &snapshot)).await.sandbox;
        world.sh(&one, "echo changed > hello.txt; rm -r dir; echo one > /tmp/mine; sleep 1000 &").await;
        let ran = world.sh(&two, &format!("cat hello.txt dir/inner.txt; ls /tmp; {OTHERS}")).await;
        assert_eq!(ran.text(), "hello\ninner\n0\n");
        let three = world.start(spec("three", &snapshot)).await.sandbox;
        assert_eq!(world.sh(&three, "cat hello.txt dir/inner.txt").await.text(), "hello\ninner\n");
    });
}

#[test]
fn a_layer_is_prepared_once_and_never_half() {
    in_world(async |world| {
        let key = Digest::of(b"k");
        assert!(world.provider.prepared(&key).await.unwrap().is_none());
        let dropped = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        std::fs::write(dropped.content.join("half"), "").unwrap();
        let folder = dropped.content.clone();
        drop(dropped);
        assert!(!folder.exists() && world.provider.prepared(&key).await.unwrap().is_none());
        for text in ["first", "second"] {
            let staged = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
            std::fs::write(staged.content.join("file"), text).unwrap();
            world.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap();
        }
        let snapshot = world.provider.prepared(&key).await.unwrap().unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        assert_eq!(world.sh(&sandbox, "cat file").await.text(), "first");
        assert_eq!(std::fs::read_dir(world.folder.path().join("data/staging")).unwrap().count(), 0);
    });
}

#[test]
fn a_staged_device_or_pipe_is_refused_and_an_unknown_layer_is_named() {
    in_world(async |world| {
        let key = Digest::of(b"k");
        let staged = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, staged.content.join("p"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let refused = world.provider.prepare(&key, staged, sandbox::Owners::Root).await;
        assert!(matches!(refused, Err(SandboxError::BadLayer { path, .. }) if path == Path::new("workspace/p")));
        let unknown = sandbox::SnapshotRef { layers: vec![key.clone()] };
        let missing = world.provider.start(spec("a", &unknown)).await;
        assert!(matches!(missing, Err(SandboxError::LayerMissing { layer }) if layer == key));
    });
}

#[test]
fn an_id_does_not_change_its_snapshot() {
    in_world(async |world| {
        let one = world.snapshot(&[("a", "1")]).await;
        let two = world.snapshot(&[("a", "2")]).await;
        world.start(spec("a", &one)).await;
        assert!(matches!(world.provider.start(spec("a", &two)).await, Err(SandboxError::OtherSnapshot { .. })));
    });
}

#[test]
fn starts_of_one_id_at_the_same_time_make_one_box() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let (a, b) = tokio::join!(world.start(spec("a", &snapshot)), world.start(spec("a", &snapshot)));
        let mut found = [a.found, b.found];
        found.sort_by_key(|found| *found == StartedAs::Adopted);
        assert_eq!(found, [StartedAs::Fresh, StartedAs::Adopted]);
        world.sh(&a.sandbox, "echo x > /tmp/x").await;
        assert_eq!(world.sh(&b.sandbox, "cat /tmp/x").await.text(), "x\n");
    });
}

#[test]
fn a_snapshot_keeps_what_was_there_and_forks_of_it_go_their_own_ways() {
    in_world(async |world| {
        let base = world.snapshot(&[("hello.txt", "hello\n"), ("gone.txt", ""), ("dir/inner.txt", "inner\n")]).await;
        let sandbox = world.start(spec("a", &base)).await.sandbox;
        world.sh(&sandbox, "echo more >> hello.txt; rm gone.txt; rm -r dir; mkdir dir; echo new > dir/new.txt").await;
        let key = Digest::of(b"snapshot");
        let snapshot = world.provider.snapshot(&id("a"), &key).await.unwrap();
        assert_eq!(snapshot.layers.len(), 2);
        assert_eq!(world.provider.snapshot(&id("a"), &key).await.unwrap(), snapshot, "asking again changes nothing");
        let look = "cat hello.txt; ls; ls dir";
        let wanted = "hello\nmore\ndir\nhello.txt\nnew.txt\n";
        let again = world.start(spec("a", &snapshot)).await;
        assert_eq!(world.sh(&again.sandbox, look).await.text(), wanted);
        let fork = world.start(spec("fork", &snapshot)).await.sandbox;
        world.sh(&again.sandbox, "echo changed > hello.txt").await;
        assert_eq!(world.sh(&fork, look).await.text(), wanted);
        let fresh = world.start(spec("fresh", &base)).await.sandbox;
        assert_eq!(world.sh(&fresh, "cat hello.txt dir/inner.txt").await.text(), "hello\ninner\n");
    });
}

#[test]
fn a_snapshot_that_was_cut_off_is_finished_by_the_next_call_wherever_it_was() {
    for moved in [false, true] {
        in_world(async |world| {
            let base = world.snapshot(&[("hello.txt", "hello\n")]).await;
            let sandbox = world.start(spec("a", &base)).await.sandbox;
            world.sh(&sandbox, "echo x > new.txt").await;
            world.provider.stop(&id("a")).await.unwrap();
            let key = Digest::of(b"cut off");
            let run_folder = world.folder.path().join("data/run/a");
            let record = run_folder.join("box.json");
            let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
            json["pending"] = key.as_str().into();
            std::fs::write(&record, json.to_string()).unwrap();
            if moved {
                std::fs::create_dir(run_folder.join("s")).unwrap();
                std::fs::write(run_folder.join("s/boot"), json["boot"].as_str().unwrap()).unwrap();
                std::fs::rename(run_folder.join("u"), run_folder.join("s/root")).unwrap();
            }
            let snapshot = world.provider.snapshot(&id("a"), &key).await.unwrap();
            assert_eq!(snapshot.layers, [base.layers[0].clone(), key]);
            let started = world.start(spec("a", &snapshot)).await;
            assert_eq!(world.sh(&started.sandbox, "cat hello.txt new.txt").await.text(), "hello\nx\n");
        });
    }
}

#[test]
fn files_of_another_boot_are_not_trusted_and_the_start_says_so() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        world.sh(&sandbox, "echo x > new.txt").await;
        world.provider.stop(&id("a")).await.unwrap();
        let record = world.folder.path().join("data/run/a/box.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        json["boot"] = "an earlier one".into();
        std::fs::write(&record, json.to_string()).unwrap();
        let started = world.start(spec("a", &snapshot)).await;
        assert_eq!(started.found, StartedAs::FilesLost);
        assert_eq!(world.sh(&started.sandbox, "ls").await.text(), "hello.txt\n");
    });
}

#[test]
fn a_folder_of_the_snapshot_is_renamed_in_one_step_where_the_provider_says_so() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("dir/inner.txt", "inner\n")]).await;
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let can = world.provider.probe().await.folder_rename;
        let line = "perl -e 'rename(\"dir\", \"moved\") or print \"$!\\n\"'; cat */inner.txt; ls";
        let ran = world.sh(&sandbox, line).await;
        if can {
            assert_eq!(ran.text(), "inner\nmoved\n");
            let key = Digest::of(b"renamed");
            let snapshot = world.provider.snapshot(&id("a"), &key).await.unwrap();
            let fork = world.start(spec("b", &snapshot)).await.sandbox;
            assert_eq!(world.sh(&fork, "cat */inner.txt; ls").await.text(), "inner\nmoved\n");
        } else {
            assert_eq!(ran.text(), "Invalid cross-device link\ninner\ndir\n");
            assert_eq!(world.sh(&sandbox, "mv dir moved; cat */inner.txt; ls").await.text(), "inner\nmoved\n");
        }
    });
}

#[test]
fn links_left_in_the_way_of_the_next_start_lead_nowhere_but_into_the_box() {
    in_world(async |world| {
        let trap = world.folder.path().join("trap");
        std::fs::create_dir(&trap).unwrap();
        std::fs::set_permissions(&trap, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::set_permissions(world.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let snapshot = world.snapshot(&[]).await;
        let mut spec = spec("a", &snapshot);
        spec.binds[0].at = "/deep/attack".into();
        let sandbox = world.start(spec.clone()).await.sandbox;
        let line = format!("mv /deep /old && ln -s {} /deep && ls -d /old/attack", trap.display());
        assert_eq!(world.sh(&sandbox, &line).await.text(), "/old/attack\n");
        world.provider.stop(&id("a")).await.unwrap();
        let again = world.provider.start(spec).await;
        assert_eq!(std::fs::read_dir(&trap).unwrap().count(), 0, "the start wrote to the host");
        // The link leads to a place that the box does not have, so the start makes it there or fails.
        if let Ok(again) = again {
            assert_eq!(world.sh(&again.sandbox, "test -x /deep/attack && echo there").await.text(), "there\n");
        }
    });
}

#[test]
fn a_data_folder_with_a_long_path_works_although_socket_paths_are_short() {
    in_world_with(
        |config| config.data_dir = config.data_dir.join("x".repeat(120)).join("y".repeat(120)),
        async |world| {
            let sandbox = world.sandbox("a").await;
            assert_eq!(world.sh(&sandbox, "cat hello.txt").await.text(), "hello\n");
        },
    );
}

#[test]
fn the_mount_call_of_older_kernels_gives_the_same_box() {
    in_world_with(
        |config| config.classic_mounts = true,
        async |world| {
            let sandbox = world.sandbox("a").await;
            let ran = world.sh(&sandbox, "cat hello.txt; echo x > new; ls; cat /proc/mounts | head -1").await;
            assert!(ran.text().starts_with("hello\nhello.txt\nnew\noverlay / overlay "), "{}", ran.text());
        },
    );
}

#[test]
fn the_probe_finds_this_machine_usable_and_leaves_nothing() {
    in_world(async |world| {
        let capabilities = world.provider.probe().await;
        assert!(capabilities.usable, "{:?}", capabilities.problems);
        assert!(!capabilities.network && capabilities.problems.iter().all(|problem| !problem.fatal));
        assert!(world.provider.list().await.unwrap().is_empty());
        if is_root() {
            assert_eq!(capabilities.uid_map, sandbox::UidMap::Range);
        } else {
            assert!(capabilities.problems.iter().any(|problem| problem.what.contains("one user only")));
        }
    });
}

#[test]
fn a_data_folder_that_cannot_hold_an_overlay_is_named_with_its_fix() {
    const NAME: &str = "a data folder on an overlay is refused with its fix";
    in_world(async |world| {
        // Inside a box everything is on an overlay; a provider in there would be refused sooner, for
        // its namespaces. So the overlay is made by the host where that is allowed.
        if !is_root() {
            return not_run(NAME, "only root can mount an overlay here");
        }
        let place = world.folder.path().join("place");
        for name in ["l", "u", "w", "m"] {
            std::fs::create_dir_all(place.join(name)).unwrap();
        }
        let p = place.display();
        let data = std::ffi::CString::new(format!("lowerdir={p}/l,upperdir={p}/u,workdir={p}/w")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        if rustix::mount::mount("overlay", place.join("m"), "overlay", flags, &*data).is_err() {
            return not_run(NAME, "mounting an overlay is not allowed here");
        }
        let provider = LocalProvider::open(config(&place.join("m/data"), Toolchains::default())).unwrap();
        let capabilities = provider.probe().await;
        drop(provider);
        rustix::mount::unmount(place.join("m"), rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(!capabilities.usable);
        assert!(
            capabilities.problems[0].fatal && capabilities.problems[0].fix.contains("ext4"),
            "{:?}",
            capabilities.problems[0]
        );
    });
}

#[test]
fn user_namespaces_that_are_switched_off_are_named_with_the_setting() {
    use std::os::unix::process::CommandExt as _;
    const NAME: &str = "switched-off user namespaces are named";
    if std::env::var_os("CHARGEHAND_TEST_NO_USERNS").is_some() {
        return in_world(async |world| {
            let capabilities = world.provider.probe().await;
            assert!(!capabilities.usable);
            let problem = &capabilities.problems[0];
            assert!(problem.fatal && problem.why.contains("user.max_user_namespaces"), "{problem:?}");
            assert!(problem.fix.contains("sysctl -w user.max_user_namespaces"), "{problem:?}");
            let snapshot = world.snapshot(&[]).await;
            let error = world.provider.start(spec("a", &snapshot)).await.err().unwrap();
            assert!(matches!(error, SandboxError::Unsupported(_)));
            assert!(world.provider.list().await.unwrap().is_empty(), "a failed start left a box");
        });
    }
    let folder = tempfile::tempdir_in(crate::world::base()).unwrap();
    // A user namespace in which no further one can be made stands for a machine like that.
    let line = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", line, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "life::user_namespaces_that_are_switched_off_are_named_with_the_setting"])
        .env("CHARGEHAND_TEST_NO_USERNS", "1")
        .env(crate::world::BASE_VARIABLE, folder.path())
        .process_group(0)
        .output();
    match status {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("Permission denied") => {
            not_run(NAME, "the setting cannot be written here");
        }
        Ok(output) => panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Err(error) => not_run(NAME, &format!("unshare cannot be run: {error}")),
    }
    drop(Arc::new(folder));
}
