//! What every store promises, checked on each of them.
//!
//! Absent: what only a store on a disk can promise (durability, locks, damage); see `sqlite.rs`.

mod common;

use std::collections::BTreeSet;

use common::{Story, id, key, second};
use domain::event::{Envelope, chain, chain_root};
use domain::id::{Digest, TaskId};
use domain::task::{TaskState, TaskSummary};
use store::{AppendError, BlobError, Filter, LeaseError, ResolveError, Store, StoredKey};

/// One store of each kind, and what has to outlive it.
struct Fixture {
    store: Store,
    _dir: Option<tempfile::TempDir>,
}

async fn memory() -> Fixture {
    Fixture { store: store::memory::open(), _dir: None }
}

async fn sqlite() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = store::sqlite::open(dir.path()).await.unwrap();
    Fixture { store, _dir: Some(dir) }
}

macro_rules! contract {
    ($($(#[$attribute:meta])* async fn $name:ident($store:ident: &Store) $body:block)*) => {
        mod promise {
            use super::*;
            $(pub async fn $name($store: &Store) $body)*
        }
        mod on_memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { promise::$name(&memory().await.store).await; })*
        }
        mod on_sqlite {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = sqlite().await;
                promise::$name(&fixture.store).await;
                fixture.store.close().await;
            })*
        }
    };
}

/// Stores a submission and gives the story to go on with.
async fn submitted(store: &Store, name: &str) -> Story {
    let mut story = Story::new(id(name));
    store.log.append(story.submit()).await.unwrap();
    story
}

async fn ids(store: &Store, filter: Filter) -> Vec<String> {
    store.index.list(filter).await.unwrap().into_iter().map(|line| line.id.to_string()).collect()
}

contract! {
    async fn events_are_read_back_as_the_bytes_that_were_written(store: &Store) {
        let mut story = Story::new(id("t1"));
        let appended = store.log.append(story.submit()).await.unwrap();
        assert_eq!((appended.last_seq, appended.stored.len()), (1, 1));
        let appended = store.log.append(story.note("two")).await.unwrap();
        assert_eq!((appended.last_seq, appended.row), (2, 2));
        let read = store.log.read(&story.id, 0, 10).await.unwrap();
        let mut hash = chain_root(&story.id);
        for (event, written) in read.iter().zip(&story.events) {
            assert_eq!(event.bytes, written.encode().unwrap());
            assert_eq!(&Envelope::decode(&event.bytes).unwrap(), written);
            hash = chain(&hash, &event.bytes);
            assert_eq!(event.hash, hash);
        }
        assert_eq!(read.len(), 2);
        assert_eq!(read[1..], appended.stored[..]);
        let head = store.log.head(&story.id).await.unwrap().unwrap();
        assert_eq!((head.seq, head.hash), (2, hash));
        assert_eq!(store.log.verify(&story.id).await.unwrap().events, 2);
    }

    async fn reading_goes_on_after_a_number_and_stops_at_the_limit(store: &Store) {
        let mut story = submitted(store, "t1").await;
        for n in 2..=5 {
            store.log.append(story.note(&n.to_string())).await.unwrap();
        }
        let seqs = async |after, limit| -> Vec<u64> {
            store.log.read(&story.id, after, limit).await.unwrap().iter().map(|event| event.seq).collect()
        };
        assert_eq!(seqs(0, 2).await, [1, 2]);
        assert_eq!(seqs(2, 2).await, [3, 4]);
        assert_eq!(seqs(4, 9).await, [5]);
        assert_eq!(seqs(5, 9).await, [0; 0]);
        assert_eq!(seqs(u64::MAX, 9).await, [0; 0]);
    }

    async fn an_unknown_task_has_no_events_no_head_and_an_empty_chain(store: &Store) {
        let nobody = id("nobody");
        assert!(store.log.read(&nobody, 0, 10).await.unwrap().is_empty());
        assert!(store.log.head(&nobody).await.unwrap().is_none());
        assert!(store.index.summary(&nobody).await.unwrap().is_none());
        assert_eq!(store.log.verify(&nobody).await.unwrap().events, 0);
    }

    async fn the_second_of_two_appends_to_one_place_meets_a_conflict(store: &Store) {
        let mut story = submitted(store, "t1").await;
        let mut other = story.clone();
        store.log.append(story.note("first")).await.unwrap();
        let error = store.log.append(other.note("second")).await.unwrap_err();
        assert!(matches!(error, AppendError::Conflict { expected: 1, actual: 2 }), "{error:?}");
        let mut again = Story::new(id("t1"));
        let error = store.log.append(again.submit()).await.unwrap_err();
        assert!(matches!(error, AppendError::Conflict { expected: 0, actual: 2 }), "{error:?}");
        let mut never = Story::new(id("t2"));
        let _ = never.submit();
        let error = store.log.append(never.note("x")).await.unwrap_err();
        assert!(matches!(error, AppendError::Conflict { expected: 1, actual: 0 }), "{error:?}");
        assert_eq!(store.log.verify(&story.id).await.unwrap().events, 2);
    }

    async fn an_append_that_contradicts_itself_is_refused(store: &Store) {
        let story = submitted(store, "t1").await;
        let mut gap = story.clone().note("x");
        gap.events[0].seq = 3;
        let mut stranger = story.clone().note("x");
        stranger.events[0].task = id("t9");
        let mut stale = story.clone().note("x");
        stale.summary.seq = 1;
        let mut nothing = Story::new(id("t2")).submit();
        nothing.events.clear();
        nothing.summary.seq = 0;
        for append in [gap, stranger, stale, nothing] {
            let error = store.log.append(append).await.unwrap_err();
            assert!(matches!(error, AppendError::Malformed { .. }), "{error:?}");
        }
        let big = "x".repeat(store::MAX_EVENT_BYTES);
        let error = store.log.append(story.clone().note(&big)).await.unwrap_err();
        assert!(matches!(error, AppendError::TooLarge { seq: 2, .. }), "{error:?}");
        assert_eq!(store.log.head(&story.id).await.unwrap().unwrap().seq, 1);
    }

    async fn replaying_the_events_gives_the_stored_summary(store: &Store) {
        let mut story = submitted(store, "t1").await;
        store.log.append(story.start()).await.unwrap();
        store.log.append(story.note("x")).await.unwrap();
        store.log.append(story.end(TaskState::Failed)).await.unwrap();
        let read = store.log.read(&story.id, 0, 100).await.unwrap();
        let events: Vec<Envelope> = read.iter().map(|event| Envelope::decode(&event.bytes).unwrap()).collect();
        let replayed = TaskSummary::from(&domain::fold(&events).unwrap());
        assert_eq!(store.index.summary(&story.id).await.unwrap(), Some(replayed.clone()));
        assert_eq!(store.index.list(Filter::default()).await.unwrap(), [replayed]);
    }

    async fn sixty_four_producers_leave_no_gap_and_every_acknowledged_event(store: &Store) {
        let mut producers = tokio::task::JoinSet::new();
        for n in 0..64 {
            let log = store.log.clone();
            // Four producers fight over each task; each gives way and tries again.
            let task = id(&format!("t{}", n / 4));
            producers.spawn(async move {
                let mut acked = Vec::new();
                let mut seen: Vec<Envelope> = Vec::new();
                while acked.len() < 8 {
                    let mut story = Story { id: task.clone(), events: seen.clone() };
                    let append =
                        if seen.is_empty() { story.submit() } else { story.note(&format!("of {n}, {}", acked.len())) };
                    match log.append(append).await {
                        Ok(appended) => {
                            acked.extend(appended.stored);
                            seen = story.events;
                        }
                        Err(AppendError::Conflict { .. }) => {
                            let new = log.read(&task, seen.len() as u64, 1_000).await.unwrap();
                            seen.extend(new.iter().map(|event| Envelope::decode(&event.bytes).unwrap()));
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (task, acked)
            });
        }
        let acked = producers.join_all().await;
        let mut rows = BTreeSet::new();
        for (task, events) in &acked {
            let stored = store.log.read(task, 0, 1_000).await.unwrap();
            assert_eq!(stored.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=32).collect::<Vec<u64>>());
            for event in events {
                assert_eq!(&stored[event.seq as usize - 1], event);
                assert!(rows.insert(event.row), "row {} was given twice", event.row);
            }
            assert_eq!(store.log.verify(task).await.unwrap().events, 32);
        }
        assert_eq!(rows.into_iter().collect::<Vec<_>>(), (1..=512).collect::<Vec<u64>>());
    }

    async fn a_repeated_request_finds_its_task_and_another_body_is_an_error(store: &Store) {
        let mut story = Story::new(id("t1"));
        let mut append = story.submit();
        append.idempotency = Some(key("ada/run", "k", "body"));
        store.log.append(append.clone()).await.unwrap();
        store.log.append(story.note("the task moves on")).await.unwrap();

        let mut repeated = Story::new(id("t2")).submit();
        repeated.idempotency = append.idempotency.clone();
        let error = store.log.append(repeated.clone()).await.unwrap_err();
        assert!(matches!(&error, AppendError::Duplicate { task } if task.as_str() == "t1"), "{error:?}");
        repeated.idempotency = Some(key("ada/run", "k", "another body"));
        let error = store.log.append(repeated.clone()).await.unwrap_err();
        assert!(matches!(&error, AppendError::KeyReused { task } if task.as_str() == "t1"), "{error:?}");
        assert!(store.log.head(&id("t2")).await.unwrap().is_none());
        repeated.idempotency = Some(key("bob/run", "k", "another body"));
        store.log.append(repeated).await.unwrap();

        let stored = store.index.by_key("ada/run", "k").await.unwrap();
        assert_eq!(stored, Some(StoredKey { task: id("t1"), body_digest: Digest::of(b"body") }));
        assert_eq!(store.index.by_key("ada/run", "l").await.unwrap(), None);
    }

    async fn a_key_of_an_append_that_failed_is_free(store: &Store) {
        let story = submitted(store, "t1").await;
        let mut late = Story::new(id("t1")).submit();
        late.idempotency = Some(key("s", "k", "b"));
        assert!(matches!(store.log.append(late).await, Err(AppendError::Conflict { .. })));
        assert_eq!(store.index.by_key("s", "k").await.unwrap(), None);
        let mut next = story.clone().note("x");
        next.idempotency = Some(key("s", "k", "b"));
        store.log.append(next).await.unwrap();
    }

    async fn of_many_submissions_with_one_key_exactly_one_becomes_a_task(store: &Store) {
        let mut producers = tokio::task::JoinSet::new();
        for n in 0..40 {
            let log = store.log.clone();
            producers.spawn(async move {
                let mut append = Story::new(id(&format!("t{n}"))).submit();
                append.idempotency = Some(key("s", "k", "b"));
                match log.append(append).await {
                    Ok(_) => (true, id(&format!("t{n}"))),
                    Err(AppendError::Duplicate { task }) => (false, task),
                    Err(other) => panic!("{other:?}"),
                }
            });
        }
        let answers = producers.join_all().await;
        let tasks: BTreeSet<TaskId> = answers.iter().map(|(_, task)| task.clone()).collect();
        assert_eq!((tasks.len(), answers.iter().filter(|(first, _)| *first).count()), (1, 1));
        assert_eq!(store.index.list(Filter::default()).await.unwrap().len(), 1);
    }

    async fn lists_are_newest_first_and_come_in_pages(store: &Store) {
        for name in ["c", "a", "d", "b"] {
            submitted(store, name).await;
        }
        // An event of an old task does not move it up.
        let mut old = Story::new(id("c"));
        let _ = old.submit();
        store.log.append(old.start()).await.unwrap();
        assert_eq!(ids(store, Filter::default()).await, ["b", "d", "a", "c"]);
        let page = |before: &str| Filter { limit: 2, before: Some(id(before)), ..Filter::default() };
        assert_eq!(ids(store, Filter { limit: 2, ..Filter::default() }).await, ["b", "d"]);
        assert_eq!(ids(store, page("d")).await, ["a", "c"]);
        assert_eq!(ids(store, page("c")).await, [""; 0]);
        assert_eq!(ids(store, page("unknown")).await, [""; 0]);
    }

    async fn lists_can_be_narrowed_to_states_and_to_what_is_open(store: &Store) {
        for name in ["a", "b", "c"] {
            submitted(store, name).await;
        }
        let mut b = Story::new(id("b"));
        let _ = b.submit();
        store.log.append(b.start()).await.unwrap();
        let mut c = Story::new(id("c"));
        let _ = c.submit();
        store.log.append(c.end(TaskState::Canceled)).await.unwrap();
        let of = |states: &[TaskState], open_only| Filter { states: states.to_vec(), open_only, ..Filter::default() };
        assert_eq!(ids(store, of(&[TaskState::Working], false)).await, ["b"]);
        assert_eq!(ids(store, of(&[TaskState::Canceled, TaskState::Submitted], false)).await, ["c", "a"]);
        assert_eq!(ids(store, of(&[], true)).await, ["b", "a"]);
        assert_eq!(ids(store, of(&[TaskState::Canceled], true)).await, [""; 0]);
    }

    async fn a_prefix_names_a_task_only_if_it_is_the_only_one(store: &Store) {
        for name in ["abc", "abcd", "abz", "q_1", "zz"] {
            submitted(store, name).await;
        }
        let resolve = async |prefix: &str| store.index.resolve(prefix).await;
        assert_eq!(resolve("z").await.unwrap(), id("zz"));
        assert_eq!(resolve("Q").await.unwrap(), id("q_1"));
        assert_eq!(resolve("abc").await.unwrap(), id("abc"), "a whole id means itself");
        assert_eq!(resolve("abcd").await.unwrap(), id("abcd"));
        match resolve("ab").await {
            Err(ResolveError::Ambiguous { candidates, .. }) => assert_eq!(candidates, ["abc", "abcd", "abz"].map(id)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(resolve("").await, Err(ResolveError::Ambiguous { .. })));
        for nobody in ["x", "abcde", "%", "a_c", "é", "zzz"] {
            assert!(matches!(resolve(nobody).await, Err(ResolveError::NotFound { .. })), "{nobody}");
        }
    }

    async fn wake_ups_are_kept_until_they_are_changed_and_are_never_early(store: &Store) {
        let wake = async |name: &str, at| {
            let mut append = Story::new(id(name)).submit();
            append.wake_at = at;
            store.log.append(append).await.unwrap();
        };
        assert_eq!(store.index.next_wake().await.unwrap(), None);
        let odd = second(10).checked_add(jiff::SignedDuration::from_nanos(1)).unwrap();
        wake("late", Some(second(30))).await;
        wake("odd", Some(odd)).await;
        wake("early", Some(second(5))).await;
        wake("never", None).await;
        assert_eq!(store.index.next_wake().await.unwrap(), Some(second(5)));
        assert_eq!(store.index.due(second(4)).await.unwrap(), []);
        assert_eq!(store.index.due(second(10)).await.unwrap(), [id("early")]);
        assert_eq!(store.index.due(second(30)).await.unwrap(), ["early", "odd", "late"].map(id));

        // Only the wake-up time changes.
        let mut story = Story::new(id("early"));
        let mut append = story.submit();
        append.events.clear();
        append.expected_seq = 1;
        let appended = store.log.append(append).await.unwrap();
        assert_eq!((appended.last_seq, appended.row, appended.stored.len()), (1, 4, 0));
        let next = store.index.next_wake().await.unwrap().unwrap();
        assert!(next >= odd, "{next} is before {odd}");
        assert_eq!(store.index.due(next).await.unwrap(), [id("odd")]);
    }

    async fn unfinished_are_the_open_ones_and_those_to_clean_up_after(store: &Store) {
        for name in ["open", "cleanup", "ended"] {
            submitted(store, name).await;
        }
        for (name, wake_at) in [("cleanup", Some(second(1))), ("ended", None)] {
            let mut story = Story::new(id(name));
            let _ = story.submit();
            let mut append = story.end(TaskState::Failed);
            append.wake_at = wake_at;
            store.log.append(append).await.unwrap();
        }
        assert_eq!(store.index.unfinished().await.unwrap(), [id("open"), id("cleanup")]);
    }

    async fn a_task_has_one_lease_holder_until_it_expires_or_is_given_back(store: &Store) {
        let task = id("t1");
        let take = async |owner: &str, at| store.leases.acquire(&task, owner, at, 10_000).await.unwrap();
        let first = take("one", second(0)).await.unwrap();
        assert_eq!((first.owner.as_str(), first.epoch), ("one", 1));
        assert_eq!(take("two", second(9)).await, None);
        assert_eq!(take("one", second(9)).await, None, "not even its owner takes it twice");
        store.leases.renew(&first, second(9), 10_000).await.unwrap();
        assert_eq!(take("two", second(18)).await, None);
        let second_lease = take("two", second(19)).await.unwrap();
        assert_eq!(second_lease.epoch, 2);
        let lost = store.leases.renew(&first, second(19), 10_000).await;
        assert!(matches!(lost, Err(LeaseError::Lost { .. })), "{lost:?}");
        store.leases.release(&first).await.unwrap();
        assert_eq!(take("three", second(20)).await, None, "a lost lease gives nothing back");
        store.leases.release(&second_lease).await.unwrap();
        assert_eq!(take("three", second(20)).await.unwrap().epoch, 3);
    }

    async fn an_append_under_a_lost_lease_is_refused(store: &Store) {
        let mut story = submitted(store, "t1").await;
        let old = store.leases.acquire(&story.id, "old", second(0), 10).await.unwrap().unwrap();
        let mut append = story.note("x");
        append.lease = Some(old.clone());
        store.log.append(append).await.unwrap();
        let new = store.leases.acquire(&story.id, "new", second(1), 10).await.unwrap().unwrap();
        let mut append = story.note("y");
        append.lease = Some(old);
        let error = store.log.append(append.clone()).await.unwrap_err();
        assert!(matches!(error, AppendError::LeaseLost { .. }), "{error:?}");
        append.lease = Some(new.clone());
        store.log.append(append).await.unwrap();
        store.leases.release(&new).await.unwrap();
        let mut append = story.note("z");
        append.lease = Some(new);
        assert!(matches!(store.log.append(append).await, Err(AppendError::LeaseLost { .. })));
    }

    async fn a_lease_that_many_ask_for_goes_to_one(store: &Store) {
        let mut askers = tokio::task::JoinSet::new();
        for n in 0..32 {
            let leases = store.leases.clone();
            askers.spawn(async move {
                leases.acquire(&id("t1"), &format!("o{n}"), second(0), 1_000).await.unwrap()
            });
        }
        let got: Vec<_> = askers.join_all().await.into_iter().flatten().collect();
        assert_eq!(got.len(), 1, "{got:?}");
    }

    async fn blobs_of_every_size_come_back_whole_and_in_parts(store: &Store) {
        for size in [0, 1, 5_000, 64 * 1024, 64 * 1024 + 1, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
            let digest = store.blobs.put(bytes.clone()).await.unwrap();
            assert_eq!(digest, Digest::of(&bytes));
            assert_eq!(store.blobs.put(bytes.clone()).await.unwrap(), digest, "twice is as once");
            assert_eq!(store.blobs.get(&digest).await.unwrap().as_deref(), Some(&bytes[..]));
            let part = store.blobs.get_range(&digest, 1, 3).await.unwrap().unwrap();
            assert_eq!(part, bytes.iter().skip(1).take(3).copied().collect::<Vec<u8>>());
            assert_eq!(store.blobs.get_range(&digest, u64::MAX, u64::MAX).await.unwrap(), Some(Vec::new()));
        }
        let nothing = Digest::of(b"never stored");
        assert_eq!(store.blobs.get(&nothing).await.unwrap(), None);
        assert_eq!(store.blobs.get_range(&nothing, 0, 1).await.unwrap(), None);
        let error = store.blobs.put(vec![0; store::MAX_BLOB_BYTES + 1]).await.unwrap_err();
        assert!(matches!(error, BlobError::TooLarge { .. }), "{error:?}");
    }

    async fn a_closed_store_takes_nothing_more(store: &Store) {
        let mut story = submitted(store, "t1").await;
        store.close().await;
        store.close().await;
        assert!(matches!(store.log.append(story.note("x")).await, Err(AppendError::Closed)));
        assert!(matches!(store.blobs.put(vec![1]).await, Err(BlobError::Closed)));
        assert!(matches!(store.blobs.put(vec![1; 100_000]).await, Err(BlobError::Closed)));
        let lease = store.leases.acquire(&story.id, "o", second(0), 1).await;
        assert!(matches!(lease, Err(LeaseError::Closed)), "{lease:?}");
    }
}
