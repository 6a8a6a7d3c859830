//! Watching over a socket.

use serde_json::json;
use server::api::ProblemType;

use crate::world::{Messages, can_submit, good, in_world, problem};

#[tokio::test]
async fn a_watcher_who_reconnects_with_last_event_id_gets_each_stored_event_exactly_once() {
    in_world(false, async |world| {
        if !can_submit(world, "a watcher who reconnects gets each event once").await {
            return;
        }
        let id = world.submit("mend it").await;
        let path = format!("/v1/tasks/{id}/events");
        let mut first = Messages::open(world.get(&path)).await;
        let seen = first.next().await.unwrap();
        assert_eq!((seen.id, seen.event.as_str()), (Some(1), "event"));
        drop(first);
        good(world.post(&format!("/v1/tasks/{id}/cancel"), &json!({}))).await;
        let mut again = Messages::open(world.get(&path).header("last-event-id", "1")).await;
        let mut ids = Vec::new();
        let end = loop {
            let message = again.next().await.unwrap();
            match message.id {
                Some(id) => ids.push(id),
                None => break message,
            }
        };
        assert_eq!(ids, [2, 3]);
        assert_eq!((end.event.as_str(), end.data.as_str()), ("end", r#"{"seq":3,"state":"canceled"}"#));
        assert_eq!(again.next().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_watcher_sees_what_happens_while_it_watches() {
    in_world(false, async |world| {
        if !can_submit(world, "a watcher sees what happens while it watches").await {
            return;
        }
        let id = world.submit("mend it").await;
        let mut messages = Messages::open(world.get(&format!("/v1/tasks/{id}/events"))).await;
        assert_eq!(messages.next().await.unwrap().id, Some(1));
        good(world.post(&format!("/v1/tasks/{id}/cancel"), &json!({"reason": "enough"}))).await;
        let stored = messages.next().await.unwrap();
        assert_eq!(stored.id, Some(2));
        assert!(stored.data.contains("cancel_requested") && stored.data.contains("enough"), "{}", stored.data);
        assert_eq!(messages.next().await.unwrap().id, Some(3));
        assert_eq!(messages.next().await.unwrap().event, "end");
    })
    .await;
}

#[tokio::test]
async fn a_place_in_the_stream_that_can_not_be_is_refused() {
    in_world(false, async |world| {
        if !can_submit(world, "a place in the stream that can't be is refused").await {
            return;
        }
        let id = world.submit("mend it").await;
        let stream = || world.get(&format!("/v1/tasks/{id}/events")).header("accept", "text/event-stream");
        let ahead = problem(stream().header("last-event-id", "99"), ProblemType::MalformedRequest).await;
        assert_eq!(ahead.field.as_deref(), Some("after"));
        let wrong = problem(stream().header("last-event-id", "x"), ProblemType::MalformedRequest).await;
        assert_eq!(wrong.field.as_deref(), Some("last-event-id"));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams_and_does_not_wait_for_the_watchers() {
    in_world(false, async |world| {
        if !can_submit(world, "a server that stops ends its streams").await {
            return;
        }
        let id = world.submit("mend it").await;
        let mut messages = Messages::open(world.get(&format!("/v1/tasks/{id}/events"))).await;
        assert_eq!(messages.next().await.unwrap().id, Some(1));
        world.shutdown.cancel();
        assert_eq!(messages.next().await, None);
    })
    .await;
}
