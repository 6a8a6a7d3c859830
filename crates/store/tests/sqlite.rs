//! What only a store on a disk promises: it is alone, private, whole after reopening, and a changed
//! file is noticed.
//!
//! Absent: what every store promises; see `contract.rs`. Power loss; see the torture suite.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use common::{Story, id, key, second};
use domain::id::Digest;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection};
use store::{AppendError, BlobError, ChainBroken, OpenError, ReadError, Store, VerifyError, sqlite};

async fn raw(dir: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(dir.join("chargehand.db")).connect().await.unwrap()
}

async fn tamper(dir: &Path, sql: &str) -> u64 {
    let mut connection = raw(dir).await;
    sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap().rows_affected()
}

/// A store with one task of five events, beside another task.
async fn with_five_events(dir: &Path) -> (Store, Story) {
    let store = sqlite::open(dir).await.unwrap();
    let mut story = Story::new(id("t1"));
    store.log.append(story.submit()).await.unwrap();
    store.log.append(Story::new(id("t2")).submit()).await.unwrap();
    for n in 2..=5 {
        store.log.append(story.note(&format!("remark {n}"))).await.unwrap();
    }
    (store, story)
}

async fn broken_at(store: &Store, story: &Story) -> Option<u64> {
    match store.log.verify(&story.id).await {
        Ok(_) => None,
        Err(VerifyError::Broken(ChainBroken { seq, .. })) => Some(seq),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    let mut keyed = Story::new(id("t3")).submit();
    keyed.idempotency = Some(key("s", "k", "b"));
    keyed.wake_at = Some(second(7));
    store.log.append(keyed.clone()).await.unwrap();
    let small = store.blobs.put(vec![1; 10]).await.unwrap();
    let large = store.blobs.put(vec![2; 200_000]).await.unwrap();
    let before = store.log.read(&story.id, 0, 100).await.unwrap();
    store.close().await;
    assert!(!dir.path().join("chargehand.db-wal").exists(), "closing moves the WAL into the database");

    let store = sqlite::open(dir.path()).await.unwrap();
    assert_eq!(store.log.read(&story.id, 0, 100).await.unwrap(), before);
    assert_eq!(store.log.verify(&story.id).await.unwrap().events, 5);
    assert_eq!(store.index.next_wake().await.unwrap(), Some(second(7)));
    assert!(matches!(store.log.append(keyed).await, Err(AppendError::Duplicate { .. })));
    assert_eq!(store.blobs.get(&small).await.unwrap().unwrap().len(), 10);
    assert_eq!(store.blobs.get(&large).await.unwrap().unwrap().len(), 200_000);
    store.close().await;
}

#[tokio::test]
async fn a_store_that_was_dropped_without_closing_opens_again_whole() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..5_u64 {
        let store =
            sqlite::open_with(dir.path(), sqlite::Options { lock_wait_ms: 10_000, ..sqlite::Options::default() })
                .await
                .unwrap();
        let mut story = Story::new(id("t1"));
        if round == 0 {
            store.log.append(story.submit()).await.unwrap();
        } else {
            let events = store.log.read(&story.id, 0, 100).await.unwrap();
            story.events = events.iter().map(|e| domain::event::Envelope::decode(&e.bytes).unwrap()).collect();
            assert_eq!(story.events.len() as u64, round);
            store.log.append(story.note("again")).await.unwrap();
        }
        drop(store);
    }
}

#[tokio::test]
async fn a_folder_belongs_to_one_store_at_a_time_and_the_error_says_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite::open(dir.path()).await.unwrap();
    let options = sqlite::Options { lock_wait_ms: 0, ..sqlite::Options::default() };
    let error = sqlite::open_with(dir.path(), options.clone()).await.unwrap_err();
    match &error {
        OpenError::InUse { pid, path } => {
            assert_eq!((*pid, path.as_path()), (Some(std::process::id()), dir.path()));
        }
        other => panic!("{other:?}"),
    }
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    store.close().await;
    sqlite::open_with(dir.path(), options).await.unwrap().close().await;
}

#[tokio::test]
async fn a_lock_file_that_a_dead_process_left_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), "1\n").unwrap();
    let options = sqlite::Options { lock_wait_ms: 0, ..sqlite::Options::default() };
    sqlite::open_with(dir.path(), options).await.unwrap().close().await;
}

#[tokio::test]
async fn the_folder_and_its_files_are_for_the_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("made/for/us");
    let (store, _) = with_five_events(&dir).await;
    store.blobs.put(vec![7; 100_000]).await.unwrap();
    let mut looked_at = 0;
    let mut folders = vec![dir];
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{folder:?}");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            looked_at += 1;
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            }
        }
    }
    assert!(looked_at >= 8, "database, WAL, index, lock, folders and a blob: only {looked_at} found");
    store.close().await;
}

#[tokio::test]
async fn leases_of_an_earlier_process_are_void() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut story) = with_five_events(dir.path()).await;
    let old = store.leases.acquire(&story.id, "old", second(0), 1_000_000).await.unwrap().unwrap();
    store.close().await;
    let store = sqlite::open(dir.path()).await.unwrap();
    let new = store.leases.acquire(&story.id, "new", second(1), 1_000).await.unwrap().unwrap();
    assert_eq!(new.epoch, old.epoch + 1);
    let mut append = story.note("from the grave");
    append.lease = Some(old);
    assert!(matches!(store.log.append(append).await, Err(AppendError::LeaseLost { .. })));
    store.close().await;
}

#[tokio::test]
async fn an_edited_event_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    let sql = "UPDATE event SET bytes = CAST(replace(CAST(bytes AS TEXT), 'remark 3', 'remark 8') AS BLOB)
               WHERE task = 't1' AND seq = 3";
    assert_eq!(tamper(dir.path(), sql).await, 1);
    assert_eq!(broken_at(&store, &story).await, Some(3));
    assert_eq!(store.log.verify(&id("t2")).await.unwrap().events, 1, "the other task is as it was");
    store.close().await;
}

#[tokio::test]
async fn an_event_dropped_from_the_middle_or_the_end_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    tamper(dir.path(), "DELETE FROM event WHERE task = 't1' AND seq = 5").await;
    assert_eq!(broken_at(&store, &story).await, Some(5));
    tamper(dir.path(), "DELETE FROM event WHERE task = 't1' AND seq = 2").await;
    assert_eq!(broken_at(&store, &story).await, Some(2));
    tamper(dir.path(), "DELETE FROM event WHERE task = 't1'").await;
    assert_eq!(broken_at(&store, &story).await, Some(1));
    tamper(dir.path(), "DELETE FROM task WHERE id = 't2'").await;
    assert_eq!(broken_at(&store, &Story::new(id("t2"))).await, Some(1));
    store.close().await;
}

#[tokio::test]
async fn events_in_another_order_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    // Numbers swapped, bytes and hashes moved along.
    for sql in [
        "UPDATE event SET seq = 99 WHERE task = 't1' AND seq = 2",
        "UPDATE event SET seq = 2 WHERE task = 't1' AND seq = 3",
        "UPDATE event SET seq = 3 WHERE task = 't1' AND seq = 99",
    ] {
        assert_eq!(tamper(dir.path(), sql).await, 1);
    }
    assert_eq!(broken_at(&store, &story).await, Some(2));
    store.close().await;
}

#[tokio::test]
async fn a_changed_row_order_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    tamper(dir.path(), "UPDATE event SET row = 99 WHERE task = 't1' AND seq = 4").await;
    assert_eq!(broken_at(&store, &story).await, Some(5));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_task_fails_alone_and_its_neighbours_in_the_group_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    // Its next event's place is taken behind the store's back.
    let sql = "INSERT INTO event (row, task, seq, bytes, hash) VALUES (50, 't1', 6, x'00', 'none')";
    assert_eq!(tamper(dir.path(), sql).await, 1);
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..32 {
        let log = store.log.clone();
        let mut damaged = story.clone();
        appends.spawn(async move {
            if n % 2 == 0 {
                (true, log.append(damaged.note("x")).await)
            } else {
                (false, log.append(Story::new(id(&format!("n{n}"))).submit()).await)
            }
        });
    }
    for (damaged, answer) in appends.join_all().await {
        match answer {
            Ok(_) => assert!(!damaged),
            Err(AppendError::Failed(_)) => assert!(damaged),
            Err(other) => panic!("{other:?}"),
        }
    }
    store.close().await;
}

#[tokio::test]
async fn a_line_that_is_no_summary_is_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, story) = with_five_events(dir.path()).await;
    tamper(dir.path(), "UPDATE task SET summary = '{}' WHERE id = 't1'").await;
    let read = store.index.summary(&story.id).await;
    assert!(matches!(read, Err(ReadError::Corrupt { .. })), "{read:?}");
    store.close().await;
}

#[tokio::test]
async fn a_damaged_blob_is_never_given_out_and_storing_it_again_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = sqlite::open(dir.path()).await.unwrap();
    for bytes in [vec![1_u8; 1_000], vec![2_u8; 100_000]] {
        let digest = store.blobs.put(bytes.clone()).await.unwrap();
        let (shard, rest) = digest.as_str().split_at(2);
        let file = dir.path().join("blobs").join(shard).join(rest);
        if file.exists() {
            let mut damaged = bytes.clone();
            damaged[99_999] = 3;
            std::fs::write(file, damaged).unwrap();
        } else {
            assert_eq!(tamper(dir.path(), "UPDATE blob SET bytes = x'01'").await, 1);
        }
        let read = store.blobs.get_range(&digest, 0, 1).await;
        assert!(matches!(read, Err(BlobError::Corrupt { .. })), "{read:?}");
        assert_eq!(store.blobs.put(bytes.clone()).await.unwrap(), digest);
        assert_eq!(store.blobs.get(&digest).await.unwrap(), Some(bytes));
    }
    store.close().await;
}

#[tokio::test]
async fn what_a_crash_left_of_a_blob_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    sqlite::open(dir.path()).await.unwrap().close().await;
    let unfinished = dir.path().join("blobs/unfinished");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("0"), "half").unwrap();
    let store = sqlite::open(dir.path()).await.unwrap();
    assert!(!unfinished.join("0").exists());
    let digest = store.blobs.put(vec![5; 70_000]).await.unwrap();
    assert_eq!(digest, Digest::of(&[5; 70_000]));
    store.close().await;
}

#[tokio::test]
async fn data_of_a_newer_program_is_refused_with_both_versions_named() {
    let dir = tempfile::tempdir().unwrap();
    sqlite::open(dir.path()).await.unwrap().close().await;
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
               VALUES (99, 'later', 1, x'00', 0)";
    tamper(dir.path(), sql).await;
    let error = sqlite::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, known: 2 }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("chargehand.db");
    std::fs::write(&database, "a letter to my aunt, long enough to be taken for a page header".repeat(20)).unwrap();
    let before = std::fs::read(&database).unwrap();
    let error = sqlite::open(dir.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::Database(_)), "{error:?}");
    assert_eq!(std::fs::read(&database).unwrap(), before);
}

#[tokio::test]
async fn a_file_where_the_folder_should_be_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = sqlite::open(&file).await.unwrap_err();
    assert!(matches!(&error, OpenError::Folder { path, .. } if *path == file), "{error:?}");
}

/// The WAL is moved into the database when it is quiet, so that it does not grow for ever.
#[tokio::test]
async fn an_idle_store_moves_its_wal_into_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = with_five_events(dir.path()).await;
    let database = dir.path().join("chargehand.db");
    let before = database.metadata().unwrap().len();
    let mut story = Story::new(id("large"));
    store.log.append(story.submit()).await.unwrap();
    store.log.append(story.note(&"x".repeat(400_000))).await.unwrap();
    while database.metadata().unwrap().len() < before + 400_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await;
}
