//! What a watcher sees, with a real store and a real hub.

use domain::task::TaskState;
use orchestrator::LiveHub;

use super::*;
use crate::fixture::Log;

struct Scene {
    log: Log,
    hub: LiveHub,
    shutdown: CancellationToken,
}

impl Scene {
    async fn new() -> Self {
        let log = Log::begin(&store::memory::open(), 1).await;
        Self { log, hub: LiveHub::default(), shutdown: CancellationToken::new() }
    }

    fn watch(&self, after: u64) -> Watch {
        self.watch_as(|wish| wish.after = after)
    }

    fn watch_as(&self, change: impl FnOnce(&mut Wish)) -> Watch {
        let task = &self.log.task;
        let mut wish = Wish {
            task: task.id.clone(),
            after: 0,
            ended: Some(task.state).filter(|state| state.is_terminal()),
            follow_after_end: false,
            show_live: true,
        };
        change(&mut wish);
        Watch::new(wish, self.log.store.log.clone(), self.hub.watch(&task.id), self.shutdown.clone())
    }

    fn hint(&self) {
        self.hub.tell(&self.log.task.id, Live::Stored { seq: self.log.task.seq });
    }

    fn delta(&self, text: &str) {
        self.hub.tell(&self.log.task.id, Live::TextDelta { turn: 1, text: text.to_owned() });
    }
}

/// The name of a message and what tells it apart: an event's number, else its data.
fn name(frame: &Bytes) -> String {
    let text = std::str::from_utf8(frame).unwrap();
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
    match (field("id: "), field("event: ")) {
        (id, _) if !id.is_empty() => id,
        (_, event) if event == "live" => {
            let item: serde_json::Value = serde_json::from_str(&field("data: ")).unwrap();
            format!("live {}", item["text"].as_str().unwrap())
        }
        (_, event) => format!("{event}{}", field(": ")),
    }
}

/// The next `count` messages after the greeting, or all until the end.
async fn take(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    while names.len() < count {
        match watch.next().await {
            Some(frame) if frame == sse::HELLO => {}
            Some(frame) => names.push(name(&frame)),
            None => break,
        }
    }
    names
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn a_watcher_of_a_task_that_ended_gets_all_of_it_and_then_the_end() {
    let mut scene = Scene::new().await;
    scene.log.note(200).await;
    scene.log.cancel().await;
    let mut seen = take(&mut scene.watch(0), usize::MAX).await;
    assert_eq!(seen.pop().as_deref(), Some("end"));
    assert_eq!(seen, numbers(1..=202));
}

#[tokio::test]
async fn a_watcher_who_comes_back_gets_each_stored_event_exactly_once() {
    let mut scene = Scene::new().await;
    scene.log.note(150).await;
    let mut seen = take(&mut scene.watch(0), 70).await;
    scene.log.note(30).await;
    scene.log.cancel().await;
    let last = seen.last().unwrap().parse().unwrap();
    seen.extend(take(&mut scene.watch(last), usize::MAX).await);
    assert_eq!(seen.pop().as_deref(), Some("end"));
    assert_eq!(seen, numbers(1..=182));
}

#[tokio::test]
async fn a_watcher_sees_an_event_when_it_is_stored_and_deltas_in_between() {
    let mut scene = Scene::new().await;
    let mut watch = scene.watch(0);
    assert_eq!(take(&mut watch, 1).await, ["1"]);
    scene.delta("a");
    scene.delta("b");
    scene.log.note(1).await;
    scene.hint();
    scene.delta("c");
    assert_eq!(take(&mut watch, 4).await, ["live a", "live b", "2", "live c"]);
}

#[tokio::test]
async fn a_watcher_who_is_too_slow_loses_deltas_and_no_event() {
    let mut scene = Scene::new().await;
    let mut watch = scene.watch(0);
    assert_eq!(take(&mut watch, 1).await, ["1"]);
    for _ in 0..40 {
        for _ in 0..100 {
            scene.delta("x");
        }
        scene.log.note(10).await;
        scene.hint();
    }
    scene.log.cancel().await;
    scene.hint();
    let seen = take(&mut watch, usize::MAX).await;
    let stored: Vec<String> = seen.iter().filter(|name| !name.starts_with("live")).cloned().collect();
    let mut expected = numbers(2..=402);
    expected.push("end".to_owned());
    assert_eq!(stored, expected);
    assert!(seen.len() < 402 + 1100, "the hub keeps a bounded number of deltas, but {} came", seen.len());
}

#[tokio::test]
async fn deltas_of_an_answer_that_is_already_stored_are_not_shown_after_it() {
    let mut scene = Scene::new().await;
    let mut watch = scene.watch(0);
    scene.delta("old");
    scene.log.note(1).await;
    scene.hint();
    scene.delta("new");
    assert_eq!(take(&mut watch, 3).await, ["1", "2", "live new"]);
}

#[tokio::test]
async fn a_watcher_whose_task_shows_only_its_life_gets_no_deltas() {
    let mut scene = Scene::new().await;
    let mut watch = scene.watch_as(|wish| wish.show_live = false);
    assert_eq!(take(&mut watch, 1).await, ["1"]);
    scene.delta("hidden");
    scene.log.cancel().await;
    scene.hint();
    assert_eq!(take(&mut watch, usize::MAX).await, ["2", "end"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_hint_was_lost_is_found_by_the_timer() {
    let mut scene = Scene::new().await;
    let mut watch = scene.watch(0);
    assert_eq!(take(&mut watch, 1).await, ["1"]);
    scene.log.note(1).await;
    assert_eq!(take(&mut watch, 2).await, ["keep-alive", "2"]);
}

#[tokio::test]
async fn a_watcher_who_stays_after_the_end_sees_the_cleaning_up() {
    let mut scene = Scene::new().await;
    scene.log.cancel().await;
    let mut watch = scene.watch_as(|wish| wish.follow_after_end = true);
    assert_eq!(take(&mut watch, 2).await, ["1", "2"]);
    scene.log.note(1).await;
    scene.hint();
    assert_eq!(take(&mut watch, 1).await, ["3"]);
}

#[tokio::test]
async fn a_server_that_stops_ends_the_streams_at_once() {
    let scene = Scene::new().await;
    let mut watch = scene.watch(0);
    assert_eq!(take(&mut watch, 1).await, ["1"]);
    let stop = scene.shutdown.clone();
    let (rest, ()) = tokio::join!(take(&mut watch, usize::MAX), async move { stop.cancel() });
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn the_end_names_the_state_and_the_last_event() {
    let mut scene = Scene::new().await;
    scene.log.cancel().await;
    let mut watch = scene.watch(2);
    assert_eq!(watch.next().await, Some(sse::HELLO));
    let end = watch.next().await.unwrap();
    let data = std::str::from_utf8(&end).unwrap().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let end: StreamEnd = serde_json::from_str(data).unwrap();
    assert_eq!(end, StreamEnd { seq: 2, state: TaskState::Canceled });
}
