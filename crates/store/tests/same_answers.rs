//! SQLite against memory: random work, the same answers and the same state.
//!
//! Absent: concurrency, which `contract.rs` has.

mod common;

use common::{Story, id, key, second};
use domain::event::Event;
use domain::task::TaskState;
use proptest::prelude::*;
use store::{Append, AppendError, Filter, Lease, Store};

const TASKS: [&str; 4] = ["a1", "a2", "b1", "b12"];

/// One thing to do; small numbers choose the task, the owner and the like.
#[derive(Debug, Clone)]
enum Step {
    Append { task: usize, behind: u64, notes: usize, ends: bool, wake: Option<i64>, key: Option<(u8, u8)>, lease: bool },
    Acquire { task: usize, owner: u8, now: i64 },
    Renew { now: i64 },
    Release,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let append = (
        0..TASKS.len(),
        prop_oneof![4 => Just(0_u64), 1 => 1..3_u64],
        0..4_usize,
        prop::bool::weighted(0.1),
        prop::option::of(0..20_i64),
        prop::option::weighted(0.3, (0..3_u8, 0..2_u8)),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(task, behind, notes, ends, wake, key, lease)| Step::Append {
            task,
            behind,
            notes,
            ends,
            wake,
            key,
            lease,
        });
    prop_oneof![
        8 => append,
        2 => (0..TASKS.len(), 0..3_u8, 0..40_i64).prop_map(|(task, owner, now)| Step::Acquire { task, owner, now }),
        1 => (0..40_i64).prop_map(|now| Step::Renew { now }),
        1 => Just(Step::Release),
        1 => Just(Step::Reopen),
    ]
}

/// The stories as far as they were taken, and every lease that was got, the last one last.
struct World {
    stories: Vec<Story>,
    leases: Vec<Lease>,
}

impl World {
    fn append(&self, step: &Step) -> Option<(Append, Story)> {
        let Step::Append { task, behind, notes, ends, wake, key: named, lease } = step else { return None };
        let mut story = self.stories.get(*task)?.clone();
        story.back_to(story.events.len().saturating_sub(*behind as usize));
        let over = !story.events.is_empty() && story.summary().state.is_terminal();
        let mut append = if story.events.is_empty() {
            story.submit()
        } else if *ends && !over {
            story.end(TaskState::Canceled)
        } else {
            story.append((0..*notes).map(|n| Event::Noted { text: "x".repeat(n * 700) }).collect())
        };
        append.wake_at = wake.map(second);
        append.idempotency = named.map(|(name, body)| key("scope", &name.to_string(), &body.to_string()));
        append.lease = self.leases.last().cloned().filter(|held| *lease && held.task == append.task);
        Some((append, story))
    }
}

/// What both stores have to say alike.
async fn picture(store: &Store) -> String {
    let mut picture = String::new();
    for name in TASKS {
        let task = id(name);
        let events = store.log.read(&task, 0, 1_000).await.unwrap();
        let verified = store.log.verify(&task).await.unwrap().events;
        let head = store.log.head(&task).await.unwrap();
        let summary = store.index.summary(&task).await.unwrap();
        picture += &format!("{name}: {verified} {events:?} {head:?} {summary:?}\n");
    }
    for filter in [
        Filter::default(),
        Filter { open_only: true, limit: 2, ..Filter::default() },
        Filter { states: vec![TaskState::Canceled], ..Filter::default() },
        Filter { before: Some(id("a1")), ..Filter::default() },
    ] {
        let lines = store.index.list(filter).await.unwrap();
        picture += &format!("{:?}\n", lines.iter().map(|line| line.id.as_str()).collect::<Vec<_>>());
    }
    for prefix in ["", "a", "b1", "b", "b12", "c"] {
        picture += &format!("{prefix}: {:?}\n", store.index.resolve(prefix).await);
    }
    for name in ["0", "1", "2"] {
        picture += &format!("{:?}\n", store.index.by_key("scope", name).await.unwrap());
    }
    let due = store.index.due(second(10)).await.unwrap();
    let unfinished = store.index.unfinished().await.unwrap();
    picture + &format!("{due:?} {unfinished:?} {:?}", store.index.next_wake().await.unwrap())
}

async fn both_answer_alike(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let memory = store::memory::open();
    let mut sqlite = store::sqlite::open(dir.path()).await.unwrap();
    let mut world = World { stories: TASKS.iter().map(|name| Story::new(id(name))).collect(), leases: Vec::new() };
    for step in &steps {
        match step {
            Step::Append { task, .. } => {
                let (append, story) = world.append(step).unwrap();
                let left = memory.log.append(append.clone()).await;
                let right = sqlite.log.append(append).await;
                assert_eq!(format!("{left:?}"), format!("{right:?}"));
                if left.is_ok() {
                    world.stories[*task] = story;
                } else {
                    let error = left.unwrap_err();
                    assert!(!matches!(error, AppendError::Malformed { .. }), "{error:?}");
                }
            }
            Step::Acquire { task, owner, now } => {
                let (task, owner) = (id(TASKS[*task]), format!("o{owner}"));
                let left = memory.leases.acquire(&task, &owner, second(*now), 10_000).await.unwrap();
                let right = sqlite.leases.acquire(&task, &owner, second(*now), 10_000).await.unwrap();
                assert_eq!(left, right);
                world.leases.extend(left);
            }
            Step::Renew { now } => {
                let Some(lease) = world.leases.last() else { continue };
                let left = memory.leases.renew(lease, second(*now), 10_000).await;
                let right = sqlite.leases.renew(lease, second(*now), 10_000).await;
                assert_eq!(format!("{left:?}"), format!("{right:?}"));
            }
            Step::Release => {
                let Some(lease) = world.leases.last() else { continue };
                memory.leases.release(lease).await.unwrap();
                sqlite.leases.release(lease).await.unwrap();
            }
            Step::Reopen => {
                // Opening anew voids leases; the reference has to give them back by hand.
                for lease in &world.leases {
                    memory.leases.release(lease).await.unwrap();
                }
                sqlite.close().await;
                sqlite = store::sqlite::open(dir.path()).await.unwrap();
            }
        }
    }
    assert_eq!(picture(&memory).await, picture(&sqlite).await);
    sqlite.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_give_the_same_answers_to_any_sequence_of_work(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(both_answer_alike(steps));
    }
}
