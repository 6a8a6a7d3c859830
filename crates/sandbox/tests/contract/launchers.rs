//! The launcher that is kept: it serves, is replaced, goes with its provider, and leaves nothing of one
//! box in the next.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::local::LocalConfig;
use sandbox::{Provider, StartSpec};

use crate::world::{BOX_PROGRAM, World, id, in_world, in_world_with, is_root, not_run, spec};

/// Processes of this one's own children that were started with this word.
fn kept(word: &str) -> Vec<i32> {
    let me = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mine = pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        fields.nth(1) == Some(&me) && words.split(|byte| *byte == 0).any(|one| one == word.as_bytes())
    });
    mine.collect()
}

fn marked(word: &'static str) -> impl FnOnce(&mut LocalConfig) {
    move |config| config.launcher.push(word.into())
}

async fn answers(world: &World, name: &str) {
    let started = world.start(spec(name, &world.snapshot(&[]).await)).await;
    assert_eq!(world.sh(&started.sandbox, "echo here").await.text(), "here\n");
}

#[test]
fn one_launcher_serves_all_boxes_and_one_that_was_killed_is_replaced() {
    const WORD: &str = "/mark-replaced";
    in_world_with(marked(WORD), async |world| {
        assert!(kept(WORD).is_empty(), "none before the first box");
        answers(world, "a").await;
        let first = kept(WORD);
        assert_eq!(first.len(), 1);
        answers(world, "b").await;
        assert_eq!(kept(WORD), first);
        kill_process(Pid::from_raw(first[0]).unwrap(), Signal::KILL).unwrap();
        answers(world, "c").await;
        let second = kept(WORD);
        assert!(second.len() == 1 && second != first, "{second:?} after {first:?}");
        for name in ["a", "b", "c"] {
            let sandbox = world.provider.attach(&id(name)).await.unwrap().expect("boxes outlive it");
            assert_eq!(world.sh(&sandbox, "echo still").await.text(), "still\n");
        }
    });
}

#[test]
fn an_environment_larger_than_a_socket_holds_comes_whole() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let env = (0..20).map(|n| (format!("LARGE_{n}"), "x".repeat(30_000))).collect();
        let sandbox = world.start(StartSpec { env, ..spec("large", &snapshot) }).await.sandbox;
        assert_eq!(world.sh(&sandbox, "echo ${#LARGE_0} ${#LARGE_19}").await.text(), "30000 30000\n");
    });
}

#[test]
fn boxes_start_where_no_launcher_can_be_kept() {
    const WORD: &str = "/mark-alone";
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("launcher");
    // It ends at once if it is to serve.
    let text = format!("#!/bin/sh\n[ -S /proc/self/fd/0 ] && exit 1\nexec {BOX_PROGRAM} \"$@\"\n");
    std::fs::write(&program, text).unwrap();
    for path in [folder.path(), &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let change = |config: &mut LocalConfig| {
        config.launcher[0] = program.clone().into();
        config.launcher.push(WORD.into());
    };
    in_world_with(change, async |world| {
        for name in ["a", "b", "c", "d", "e"] {
            answers(world, name).await;
        }
        assert!(kept(WORD).is_empty());
    });
}

#[test]
fn the_kept_launcher_goes_with_its_provider_and_its_boxes_stay() {
    const WORD: &str = "/mark-goes";
    in_world(async |world| {
        let data = world.folder.path().join("other");
        let mut config = crate::world::config(&data, sandbox::local::Toolchains::default());
        config.launcher.push(WORD.into());
        let open = || sandbox::local::LocalProvider::open(config.clone()).unwrap();
        let provider = open();
        let of = StartSpec { binds: Vec::new(), ..spec("a", &sandbox::SnapshotRef { layers: Vec::new() }) };
        provider.start(of).await.unwrap();
        assert_eq!(kept(WORD).len(), 1);
        drop(provider);
        let gone_by = Instant::now() + Duration::from_secs(20);
        while !kept(WORD).is_empty() && Instant::now() < gone_by {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(kept(WORD).is_empty(), "it runs for nobody");
        let provider = open();
        let sandbox = provider.attach(&id("a")).await.unwrap().expect("the box goes on");
        assert_eq!(world.sh(&sandbox, "echo here").await.text(), "here\n");
        provider.destroy(&id("a")).await.unwrap();
    });
}

#[test]
fn a_box_holds_no_descriptor_and_no_word_of_the_boxes_before_it() {
    if !is_root() {
        return not_run("descriptors of boxes", "the kernel shows them to root alone");
    }
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let start = |n: u32| {
            let name = format!("b{n}");
            let env = vec![("WORD".to_owned(), format!("word-of-{name}-alone"))];
            StartSpec { env, ..spec(&name, &snapshot) }
        };
        // Some one after the other, some at once.
        for n in 0..4 {
            world.start(start(n)).await;
        }
        tokio::join!(world.start(start(4)), world.start(start(5)), world.start(start(6)), world.start(start(7)));
        let mut seen = BTreeMap::new();
        for n in 0..8_u32 {
            let pid = std::fs::read_to_string(world.data().join(format!("run/b{n}/pid"))).unwrap();
            let pid = pid.split(' ').next().unwrap().to_owned();
            let mut kinds: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
                .unwrap()
                .map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap().display().to_string())
                .map(|link| link.split(':').next().unwrap().to_owned())
                .collect();
            kinds.sort();
            *seen.entry(kinds).or_insert(0) += 1;
            let others = (0..8_u32).filter(|other| *other != n).map(|other| format!("word-of-b{other}-alone"));
            let memory = heap_and_stack(&pid);
            let own = format!("word-of-b{n}-alone");
            assert!(holds(&memory, &own), "box {n} knows its own word, or this test looks in the wrong place");
            for word in others {
                assert!(!holds(&memory, &word), "box {n} has `{word}` in its memory");
            }
        }
        assert_eq!(seen.values().sum::<i32>(), 8);
        assert_eq!(seen.len(), 1, "{seen:?}");
    });
}

/// What a process has written into its memory.
fn heap_and_stack(pid: &str) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if rights.starts_with("rw") && memory.read_exact_at(&mut bytes, from).is_ok() {
            all.extend(bytes);
        }
    }
    all
}

fn holds(memory: &[u8], word: &str) -> bool {
    memory.windows(word.len()).any(|window| window == word.as_bytes())
}
