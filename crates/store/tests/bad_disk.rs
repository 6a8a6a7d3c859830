//! A full disk and a failing one, both real.
//!
//! The test program starts itself again: for the full disk under `unshare` on a few megabytes of
//! tmpfs, which needs no privileges where user namespaces are allowed (elsewhere the test says so
//! and checks nothing); for the failing one under a limit on file sizes, at which writes fail as
//! they do on a broken disk. Absent: a failing sync, which takes the torture suite's shim.
#![allow(clippy::disallowed_methods, reason = "the test starts itself again")]

mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Story, id, second};
use domain::task::TaskState;
use store::{AppendError, BlobError, Filter, sqlite};

const DISK: &str = "STORE_TEST_SMALL_DISK";

/// Runs one of the ignored tests below on a disk of this size. Says so where that can't be had.
fn on_disk_of(size: &str, test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).env(DISK, dir.path());
        command.arg("sh").arg(std::env::current_exe().unwrap());
        command.output()
    };
    let mount = format!("mount -t tmpfs -o size={size} tmpfs \"${DISK}\"");
    if !unshare(&mount).is_ok_and(|output| output.status.success()) {
        eprintln!("not checked: this machine lets nobody make a user namespace with a mount in it");
        return;
    }
    let run = unshare(&format!("{mount} && exec \"$1\" --exact {test} --ignored --nocapture")).unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("1 passed"), "{out}\n{err}");
    println!("{out}");
}

#[test]
fn a_full_disk_refuses_appends_keeps_reads_and_goes_on_when_there_is_room() {
    on_disk_of("2m", "on_a_small_disk");
}

#[test]
fn on_a_disk_that_somebody_keeps_full_tasks_can_still_be_called_off() {
    on_disk_of("8m", "on_a_disk_kept_full");
}

#[test]
#[ignore = "runs on the small disk that the other test makes"]
fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fill(&disk));
}

async fn fill(disk: &Path) {
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![7; 600_000]).unwrap();
    let data = disk.join("data");
    let store = sqlite::open(&data).await.unwrap();
    let mut story = Story::new(id("t1"));
    store.log.append(story.submit()).await.unwrap();
    let mut stored = 1;
    let refused = loop {
        match store.log.append(story.note(&"x".repeat(8_000))).await {
            Ok(appended) => stored = appended.last_seq,
            Err(error) => break error,
        }
    };
    println!("{stored} events stored, then: {refused}");
    assert!(matches!(refused, AppendError::DiskFull), "{refused:?}");
    assert!(stored > 10, "only {stored} events fitted");

    // Refused again and again, and nothing else is.
    for _ in 0..5 {
        story.back_to(stored as usize);
        let refused = store.log.append(story.note(&"x".repeat(300_000))).await.unwrap_err();
        assert!(matches!(refused, AppendError::DiskFull), "{refused:?}");
        let small = store.blobs.put(vec![1; 60_000]).await;
        assert!(matches!(small, Err(BlobError::DiskFull)), "{small:?}");
        let large = store.blobs.put(vec![2; 700_000]).await;
        assert!(matches!(large, Err(BlobError::DiskFull)), "{large:?}");
        assert_eq!(store.log.read(&story.id, 0, 10_000).await.unwrap().len() as u64, stored);
        assert_eq!(store.index.list(Filter::default()).await.unwrap()[0].seq, stored);
        assert_eq!(store.index.due(second(0)).await.unwrap(), []);
    }
    assert_eq!(std::fs::read_dir(data.join("blobs/unfinished")).unwrap().count(), 0, "nothing half written stays");

    std::fs::remove_file(&ballast).unwrap();
    story.back_to(stored as usize);
    let appended = store.log.append(story.note("there is room again")).await.unwrap();
    assert_eq!(appended.last_seq, stored + 1);
    assert_eq!(store.log.verify(&story.id).await.unwrap().events, stored + 1);
    store.close().await;

    let store = sqlite::open(&data).await.unwrap();
    assert_eq!(store.log.verify(&story.id).await.unwrap().events, stored + 1);
    store.close().await;
}

/// Takes every byte that is left, as a program in a box would.
fn fill_up(disk: &Path) {
    let mut hog = std::fs::OpenOptions::new().append(true).create(true).open(disk.join("hog")).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while hog.write_all(&vec![7; size]).is_ok() {}
    }
}

#[test]
#[ignore = "runs on the small disk that the other test makes"]
fn on_a_disk_kept_full() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(call_off(&disk));
}

async fn call_off(disk: &Path) {
    const RESERVE_BYTES: u64 = 1024 * 1024;
    let data = disk.join("data");
    let options = || sqlite::Options { reserve_bytes: RESERVE_BYTES, ..sqlite::Options::default() };
    let reserve = || std::fs::metadata(data.join("reserve")).map_or(0, |meta| meta.len());
    let store = sqlite::open_with(&data, options()).await.unwrap();
    assert_eq!(reserve(), RESERVE_BYTES);
    let mut stories: Vec<Story> = (0..12).map(|n| Story::new(id(&format!("t{n:02}")))).collect();
    for story in &mut stories {
        store.log.append(story.submit()).await.unwrap();
    }
    fill_up(disk);
    // What room the store had for itself is used up by ordinary work, which is then refused.
    let mut busy = stories.pop().unwrap();
    let refused = loop {
        match store.log.append(busy.note(&"x".repeat(8_000))).await {
            Ok(_) => fill_up(disk),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::DiskFull), "{refused:?}");
    assert_eq!(reserve(), RESERVE_BYTES, "ordinary work does not touch what is kept back");
    busy.back_to(busy.events.len() - 1);

    // Each slice that is given up is taken by the one who fills the disk, and there is a next one.
    let mut ended = 0;
    for story in stories.drain(..5) {
        store.log.append(story.clone().end(TaskState::Canceled)).await.unwrap();
        assert!(store.index.summary(&story.id).await.unwrap().unwrap().state.is_terminal());
        fill_up(disk);
        ended += 1;
        let refused = store.log.append(busy.note(&"x".repeat(300_000))).await.unwrap_err();
        assert!(matches!(refused, AppendError::DiskFull), "{refused:?}");
        busy.back_to(busy.events.len() - 1);
    }
    println!("{ended} ended, {} bytes still kept back", reserve());
    assert!(reserve() < RESERVE_BYTES);
    store.close().await;

    // A server that starts on the full disk comes up too, and can end what it finds.
    fill_up(disk);
    let store = sqlite::open_with(&data, options()).await.unwrap();
    store.log.append(stories.remove(0).end(TaskState::Canceled)).await.unwrap();
    assert_eq!(store.index.list(Filter { open_only: true, ..Filter::default() }).await.unwrap().len(), 6);

    // Room again: everything goes on, and as much is kept back as before.
    std::fs::remove_file(disk.join("hog")).unwrap();
    store.log.append(busy.note("there is room again")).await.unwrap();
    for _ in 0..600 {
        if reserve() == RESERVE_BYTES {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(reserve(), RESERVE_BYTES, "it was never made whole again");
    for story in &stories {
        assert_eq!(store.log.verify(&story.id).await.unwrap().events, 1);
    }
    store.close().await;
}

const FAILING: &str = "STORE_TEST_FAILING_DISK";

#[test]
fn after_a_failed_write_nothing_more_is_written_and_what_was_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    // Without the trap the signal would end the process; with it, writes fail.
    let script = "trap '' XFSZ; ulimit -f 800 && exec \"$1\" --exact on_a_failing_disk --ignored --nocapture";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(std::env::current_exe().unwrap()).env(FAILING, dir.path());
    let run = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
    let acknowledged: u64 = out.lines().find_map(|line| line.strip_suffix(" acknowledged")).unwrap().parse().unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = sqlite::open(dir.path()).await.unwrap();
        let there = store.log.verify(&id("t1")).await.unwrap().events;
        assert!(there >= acknowledged, "{there} of {acknowledged}");
        store.close().await;
    });
}

#[test]
#[ignore = "runs under the limit that the other test sets"]
fn on_a_failing_disk() {
    let Some(disk) = std::env::var_os(FAILING).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = sqlite::open(&disk).await.unwrap();
        let mut story = Story::new(id("t1"));
        store.log.append(story.submit()).await.unwrap();
        let mut stored = 1;
        let first = loop {
            match store.log.append(story.note(&"x".repeat(8_000))).await {
                Ok(appended) => stored = appended.last_seq,
                Err(error) => break error,
            }
        };
        assert!(matches!(first, AppendError::Broken(_)), "{first:?}");
        // A tiny append would fit; it is refused all the same, with the first error.
        let later = store.log.append(Story::new(id("t2")).submit()).await.unwrap_err();
        assert_eq!(format!("{later:?}"), format!("{first:?}"));
        assert!(store.leases.acquire(&id("t1"), "o", second(0), 1).await.is_err());
        assert!(store.blobs.put(vec![1; 10]).await.is_err());
        assert_eq!(store.log.read(&id("t1"), 0, 10_000).await.unwrap().len() as u64, stored);
        println!("\n{stored} acknowledged");
        store.close().await;
    });
}
