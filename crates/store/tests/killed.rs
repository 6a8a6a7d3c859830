//! A writer killed at random moments: whatever it acknowledged is there, and the chain holds.
//!
//! The writer is this test program itself, started again. A kill can't show a missing sync, because
//! the page cache survives it: that takes power-loss images, which the torture suite makes.
#![allow(clippy::disallowed_methods, reason = "the test starts, kills and times a process of its own")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Story, id};
use domain::event::Envelope;
use domain::id::Digest;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use store::sqlite;

const FOLDER: &str = "STORE_TEST_FOLDER";
const ROUND: &str = "STORE_TEST_ROUND";
/// Kills, and the time after which no further one is begun.
const KILLS: u64 = 40;
const MOST: Duration = Duration::from_secs(8);

/// Appends until it is killed; tells each acknowledged event and blob on stdout.
#[test]
#[ignore = "the writer that the other test starts and kills"]
fn the_writer() {
    let Some(dir) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let round = std::env::var(ROUND).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = sqlite::open(&dir).await.unwrap();
        let mut producers = tokio::task::JoinSet::new();
        for producer in 0..8 {
            let store = store.clone();
            let mut story = Story::new(id(&format!("r{round}-p{producer}")));
            producers.spawn(async move {
                for n in 0.. {
                    let append = if n == 0 { story.submit() } else { story.note(&"x".repeat(n * 37 % 3_000)) };
                    let appended = store.log.append(append).await.unwrap();
                    tell(&format!("event {} {} {}", story.id, appended.last_seq, appended.stored[0].hash));
                    if n % 16 == 15 {
                        let size = if n % 32 == 31 { 100 } else { 70_000 };
                        let digest = store.blobs.put(format!("{producer} {n} ").repeat(size).into_bytes()).await;
                        tell(&format!("blob {}", digest.unwrap()));
                    }
                }
            });
        }
        producers.join_all().await;
    });
}

fn tell(line: &str) {
    // One write a line, so that a kill can't leave half an acknowledgement between two whole ones.
    std::io::stdout().write_all(format!("\n{line} .\n").as_bytes()).unwrap();
}

/// What the writer acknowledged before it was killed.
#[derive(Default)]
struct Acknowledged {
    /// By task: number and hash of each event.
    events: HashMap<String, Vec<(u64, String)>>,
    blobs: Vec<Digest>,
    count: u64,
}

fn write_and_kill(dir: &Path, round: u64, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer", "--ignored", "--nocapture"])
        .env(FOLDER, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<String>>());
    // Spread over the first moments of a process, the migration included, without drawing random numbers.
    std::thread::sleep(Duration::from_millis(15 + round * 7_919 % 180));
    child.kill().unwrap();
    child.wait().unwrap();
    for line in reader.join().unwrap() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["event", task, seq, hash, "."] => {
                acknowledged.count += 1;
                acknowledged.events.entry(task.to_owned()).or_default().push((seq.parse().unwrap(), hash.to_owned()));
            }
            ["blob", digest, "."] => acknowledged.blobs.push(Digest::parse(digest).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let began = Instant::now();
    let mut kills = 0;
    while kills < KILLS && began.elapsed() < MOST {
        write_and_kill(dir.path(), kills, &mut acknowledged);
        kills += 1;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = sqlite::open(dir.path()).await.unwrap();
        for (task, events) in &acknowledged.events {
            let task = id(task);
            let stored = store.log.read(&task, 0, u32::MAX).await.unwrap();
            for (seq, hash) in events {
                let found = stored.get(*seq as usize - 1).map(|event| event.hash.as_str());
                assert_eq!(found, Some(hash.as_str()), "event {seq} of {task} was acknowledged");
            }
            assert_eq!(store.log.verify(&task).await.unwrap().events, stored.len() as u64);
            let events: Vec<Envelope> = stored.iter().map(|e| Envelope::decode(&e.bytes).unwrap()).collect();
            let summary = store.index.summary(&task).await.unwrap().unwrap();
            assert_eq!(summary, (&domain::fold(&events).unwrap()).into(), "the line is of the same events");
        }
        for digest in &acknowledged.blobs {
            assert!(store.blobs.get(digest).await.unwrap().is_some(), "blob {digest} was acknowledged");
        }
        store.close().await;
        let options = SqliteConnectOptions::new().filename(dir.path().join("chargehand.db"));
        let mut connection = options.connect().await.unwrap();
        let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
        assert_eq!(check, "ok");
    });
    println!("{kills} kills, {} events and {} blobs acknowledged", acknowledged.count, acknowledged.blobs.len());
    assert!(kills >= 10 && acknowledged.count >= 100, "too little was tried to mean anything");
}
