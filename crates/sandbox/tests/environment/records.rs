//! The registry: records that last, logs that end, and a folder in which anything may lie.

use std::collections::HashSet;
use std::path::Path;

use domain::id::{CommitSha, Digest};
use jiff::{SignedDuration, Timestamp};
use sandbox::SnapshotRef;
use sandbox::environment::build::{BuildFailure, Built, build};
use sandbox::environment::log::{LOG_HEAD_BYTES, LOG_TAIL_BYTES};
use sandbox::environment::registry::{KeepPolicy, Registry, State, Subject};

use crate::builds::build_spec;
use crate::world::in_world;

fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn subject(name: &str, repo: &str) -> Subject {
    Subject {
        key: key(name),
        repo: repo.into(),
        commit: CommitSha::parse(&"a".repeat(40)).unwrap(),
        recipe: key("recipe"),
        without_checkout: key("parts"),
        env: Vec::new(),
    }
}

fn built(name: &str) -> Built {
    Built { snapshot: SnapshotRef { layers: vec![key("below"), key(name)] }, ..Built::default() }
}

fn failed() -> String {
    BuildFailure::NotCleaned { detail: "rm says no".into() }.to_string()
}

fn ready(registry: &Registry, name: &str, repo: &str, minute: i64) {
    registry.begin(subject(name, repo), at(minute)).unwrap().finish().unwrap();
    registry.finish(&key(name), Ok(&built(name)), at(minute + 1)).unwrap().unwrap();
}

fn names(registry: &Registry) -> HashSet<Digest> {
    registry.list().unwrap().records.into_iter().map(|record| record.key).collect()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_build_is_recorded_from_its_beginning_to_its_end() {
    in_world(async |world| {
        let registry = Registry::open(&world.folder.path().join("records")).unwrap();
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        for (name, line, state) in [("good", "echo fine", State::Ready), ("bad", "echo oops; exit 3", State::Failed)] {
            let spec = build_spec(name, &below, &[line]);
            let mut log = registry.begin(subject(name, "repo"), at(1)).unwrap();
            assert_eq!(registry.get(&spec.key).unwrap().state, State::Building);
            assert!(!registry.read_log(&spec.key, 0, 1000).unwrap().complete);
            let done = build(&world.provider, &spec, &mut |bytes| {
                log.write(bytes);
                bytes.to_vec()
            })
            .await;
            log.finish().unwrap();
            let record =
                registry.finish(&spec.key, done.as_ref().map_err(ToString::to_string), at(2)).unwrap().unwrap();
            assert_eq!((record.state, record.ended_at), (state, Some(at(2))));
            assert_eq!(record.snapshot, done.ok().map(|built| built.snapshot));
            assert_eq!(record.failure.as_ref().is_some_and(|why| why.contains("exit code 3")), state == State::Failed);
            assert_eq!(registry.get(&spec.key), Some(record));
            let first = registry.read_log(&spec.key, 0, 2).unwrap();
            assert_eq!((first.bytes.as_slice(), first.next_offset, first.complete), (b"$ ".as_slice(), 2, false));
            let rest = registry.read_log(&spec.key, 2, 1000).unwrap();
            assert!(rest.complete && rest.bytes.starts_with(line.as_bytes()), "{rest:?}");
        }
        let good = registry.last_good("repo", &key("recipe")).unwrap().unwrap();
        assert_eq!(good.key, key("good"));
        assert_eq!(registry.layers().unwrap(), good.snapshot.unwrap().layers.into_iter().collect());
    });
}

#[test]
fn tasks_go_on_with_the_last_good_one_while_a_newer_is_built_and_when_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    ready(&registry, "old", "repo", 1);
    ready(&registry, "other", "elsewhere", 2);
    let good = |registry: &Registry| registry.last_good("repo", &key("recipe")).unwrap().map(|record| record.key);
    registry.stale(&key("old")).unwrap();
    let log = registry.begin(subject("new", "repo"), at(5)).unwrap();
    assert_eq!(good(&registry), Some(key("old")));
    drop(log);
    registry.finish(&key("new"), Err(failed()), at(6)).unwrap();
    assert_eq!(good(&registry), Some(key("old")));
    ready(&registry, "new", "repo", 7);
    assert_eq!(good(&registry), Some(key("new")));
    assert_eq!(registry.last_good("repo", &key("another recipe")).unwrap(), None);
    assert_eq!(registry.used(&key("gone"), at(1)).unwrap(), None);
}

#[test]
fn after_a_restart_what_was_building_has_failed_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    ready(&registry, "old", "repo", 1);
    drop(registry.begin(subject("new", "repo"), at(5)).unwrap());
    std::fs::write(folder.path().join("x.json.new"), "half").unwrap();
    let recovered = Registry::open(folder.path()).unwrap().recover(at(9)).unwrap();
    assert_eq!(recovered.len(), 1);
    assert_eq!(
        (&recovered[0].key, recovered[0].state, recovered[0].ended_at),
        (&key("new"), State::Failed, Some(at(9)))
    );
    assert!(recovered[0].failure.as_ref().unwrap().contains("build it again"));
    assert_eq!((registry.recover(at(10)).unwrap().len(), files(folder.path())), (0, 4));
}

#[test]
fn a_record_that_is_damaged_is_named_and_the_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    ready(&registry, "good", "repo", 1);
    let good = folder.path().join(format!("{}.json", key("good")));
    std::fs::write(folder.path().join(format!("{}.json", key("half"))), &std::fs::read(&good).unwrap()[..100]).unwrap();
    std::fs::copy(&good, folder.path().join(format!("{}.json", key("copy")))).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let huge = std::fs::File::create(folder.path().join("huge.json")).unwrap();
    huge.set_len(1 << 40).unwrap();
    let listed = registry.list().unwrap();
    assert_eq!(listed.records.len(), 1);
    assert_eq!(listed.damaged.len(), 3);
    assert!(listed.damaged.iter().any(|damaged| damaged.why.contains("it is the record of")), "{listed:?}");
    assert_eq!(registry.get(&key("half")), None);
    let keep = KeepPolicy::default();
    registry.gc(&keep).unwrap();
    assert_eq!(registry.list().unwrap().damaged.len(), 3, "what is not understood is not removed");
}

#[test]
fn a_clean_up_keeps_what_is_recent_used_or_stood_on() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    for (name, minute) in [("a1", 10), ("a2", 20), ("a3", 30), ("a4", 40)] {
        ready(&registry, name, "a", minute);
    }
    ready(&registry, "b1", "b", 5);
    drop(registry.begin(subject("building", "a"), at(1)).unwrap());
    for (name, minute) in [("failed-old", 2), ("failed-new", 50)] {
        drop(registry.begin(subject(name, "a"), at(minute)).unwrap());
        registry.finish(&key(name), Err(failed()), at(minute)).unwrap();
    }
    registry.used(&key("a2"), at(60)).unwrap();
    let keep = KeepPolicy {
        per_repo: 1,
        used_after: Some(at(55)),
        failed_after: Some(at(45)),
        in_use: HashSet::from([key("a1")]),
    };
    let removed = registry.gc(&keep).unwrap();
    let gone: HashSet<Digest> = removed.records.iter().map(|record| record.key.clone()).collect();
    assert_eq!(gone, HashSet::from([key("a3"), key("failed-old")]));
    assert!(removed.bytes > 0);
    assert_eq!(names(&registry).len(), 6);
    assert_eq!(files(folder.path()), 12, "a log is left");
    assert_eq!(registry.gc(&keep).unwrap().records, []);
}

#[test]
fn an_endless_log_keeps_its_beginning_and_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    let mut log = registry.begin(subject("a", "repo"), at(1)).unwrap();
    log.write(b"first words\n");
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        log.write(&chunk);
    }
    log.write(b"last words\n");
    log.finish().unwrap();
    let path = folder.path().join(format!("{}.log", key("a")));
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"first words\n") && bytes.ends_with(b"last words\n"));
    assert!(bytes.len() < usize::try_from(LOG_HEAD_BYTES).unwrap() + LOG_TAIL_BYTES + 200, "{}", bytes.len());
    assert!(String::from_utf8_lossy(&bytes).contains("bytes of the log are left out here"));
}

#[test]
fn changes_to_one_record_at_the_same_moment_are_all_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    ready(&registry, "busy", "repo", 1);
    std::thread::scope(|scope| {
        for minute in 0..8 {
            let registry = registry.clone();
            scope.spawn(move || {
                for _ in 0..25 {
                    match minute % 4 {
                        0 => drop(registry.stale(&key("busy")).unwrap().unwrap()),
                        1 => drop(registry.measured(&key("busy"), 4096).unwrap().unwrap()),
                        _ => drop(registry.used(&key("busy"), at(60)).unwrap().unwrap()),
                    }
                }
            });
        }
        let reader = registry.clone();
        scope.spawn(move || {
            for _ in 0..200 {
                assert_eq!(reader.list().unwrap().damaged, [], "a reader never sees half of one");
            }
        });
    });
    let record = registry.get(&key("busy")).unwrap();
    assert_eq!((record.state, record.size_bytes, record.used_at), (State::Stale, Some(4096), Some(at(60))));
    assert_eq!(files(folder.path()), 2, "its record and its log");
}

#[test]
fn a_record_of_an_earlier_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path()).unwrap();
    ready(&registry, "old", "repo", 1);
    let file = folder.path().join(format!("{}.json", key("old")));
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let fields = record.as_object_mut().unwrap();
    assert!(fields.remove("without_checkout").is_some() && fields.remove("env").is_some());
    std::fs::write(&file, record.to_string()).unwrap();
    let record = registry.get(&key("old")).unwrap();
    assert_eq!((record.state, record.without_checkout, record.env), (State::Ready, None, None));
}
