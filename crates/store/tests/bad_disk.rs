//! A full disk and a failing one, both real.
//!
//! The test program starts itself again: for the full disk under `unshare` on two megabytes of
//! tmpfs, which needs no privileges where user namespaces are allowed (elsewhere the test says so
//! and checks nothing); for the failing one under a limit on file sizes, at which writes fail as
//! they do on a broken disk. Absent: a failing sync, which takes the torture suite's shim.
#![allow(clippy::disallowed_methods, reason = "the test starts itself again")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Story, id, second};
use store::{AppendError, BlobError, Filter, sqlite};

const DISK: &str = "STORE_TEST_SMALL_DISK";

#[test]
fn a_full_disk_refuses_appends_keeps_reads_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).env(DISK, dir.path());
        command.arg("sh").arg(std::env::current_exe().unwrap());
        command.output()
    };
    let mount = format!("mount -t tmpfs -o size=2m tmpfs \"${DISK}\"");
    if !unshare(&mount).is_ok_and(|output| output.status.success()) {
        eprintln!("not checked: this machine lets nobody make a user namespace with a mount in it");
        return;
    }
    let run = unshare(&format!("{mount} && exec \"$1\" --exact on_a_small_disk --ignored --nocapture")).unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && out.contains("1 passed"), "{out}\n{err}");
    println!("{out}");
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
