//! A task's events: a page of them, or all of them as they come.
//!
//! Absent: the following itself; that is `crate::watch`.

use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use domain::contract::ObservabilityLevel;
use domain::id::TaskId;
use serde_json::value::RawValue;
use store::StoredEvent;

use super::{Always, OfTask};
use crate::api::{DEFAULT_EVENTS, EventItem, EventPage, EventsQuery, MAX_EVENTS, Problem, ProblemType};
use crate::app::App;
use crate::error::{Failure, Outcome};
use crate::extract::{Query, Target, accepts, limit};
use crate::watch::{Watch, Wish};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: &str = "text/event-stream";

/// Read or watch what happened
///
/// As JSON: a page of stored events. With `Accept: text/event-stream`: all stored events after
/// `Last-Event-ID` (or `after`), then each new one as it is stored. Messages of the stream:
/// `event` (its `id` is the event's number, its data an `Envelope` as stored), `live` (a `LiveItem`,
/// without id, may be lost), `end` (a `StreamEnd`, after which the server closes), `problem` (a
/// `Problem`; come back with the last id).
#[utoipa::path(
    get,
    path = "/v1/tasks/{id}/events",
    tag = "events",
    params(
        ("id" = String, Path, description = "The task's id, or an unambiguous beginning of it"),
        ("Last-Event-ID" = Option<u64>, Header, description = "For a stream: the last event that the client has"),
        EventsQuery,
    ),
    responses(
        (status = 200, description = "Events in order and without gaps", content(
            (EventPage = "application/json"),
            (String = "text/event-stream"),
        )),
        OfTask,
        Always,
    )
)]
pub(crate) async fn read_events(
    State(app): State<Arc<App>>,
    Target(id): Target,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Outcome<Response> {
    if accepts(&headers, EVENT_STREAM) {
        let after = last_event_id(&headers)?.or(query.after).unwrap_or(0);
        stream(&app, id, after, query.follow_after_end.unwrap_or(false)).await
    } else {
        let limit = limit(query.limit, DEFAULT_EVENTS, MAX_EVENTS)?;
        Ok(Answer(page(&app, &id, query.after.unwrap_or(0), limit).await?).into_response())
    }
}

fn last_event_id(headers: &HeaderMap) -> Outcome<Option<u64>> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    match value.to_str().unwrap_or_default().trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let detail =
                "`Last-Event-ID` is not a number of an event; send the last `id` of the stream, or leave it out";
            Problem::new(ProblemType::MalformedRequest, detail).at(LAST_EVENT_ID.as_str()).into()
        }),
    }
}

async fn page(app: &App, id: &TaskId, after: u64, limit: u32) -> Outcome<EventPage> {
    let mut stored = app.handle.store().log.read(id, after, limit.saturating_add(1)).await?;
    let more = stored.len() > limit as usize;
    stored.truncate(limit as usize);
    let next_after = stored.last().filter(|_| more).map(|last| last.seq);
    let events = stored.into_iter().map(item).collect::<Outcome<_>>()?;
    Ok(EventPage { events, next_after })
}

/// A stored event, its bytes untouched.
fn item(event: StoredEvent) -> Outcome<EventItem> {
    let (seq, hash) = (event.seq, event.hash);
    let text = String::from_utf8(event.bytes).map_err(|error| damaged(seq, &error))?;
    let envelope = RawValue::from_string(text).map_err(|error| damaged(seq, &error))?;
    Ok(EventItem { envelope, hash })
}

fn damaged(seq: u64, error: &dyn std::error::Error) -> Failure {
    Failure::internal(&format!("event {seq} is damaged in the store"), error)
}

async fn stream(app: &App, id: TaskId, after: u64, follow_after_end: bool) -> Outcome<Response> {
    let live = app.handle.watch(&id);
    let task = app.handle.task(&id).await?;
    if after > task.seq {
        let detail =
            format!("the task's last event is {}, so nothing can be after {after}; begin again at 0", task.seq);
        return Err(Problem::new(ProblemType::MalformedRequest, detail).at("after").into());
    }
    let wish = Wish {
        task: id,
        after,
        ended: Some(task.state).filter(|state| state.is_terminal()),
        follow_after_end,
        show_live: task.spec.contract.observability.level == ObservabilityLevel::Full,
    };
    let watch = Watch::new(wish, app.handle.store().log.clone(), live, app.shutdown.clone());
    // Proxies that collect an answer before they pass it on would hold the stream back.
    let no_buffering = (HeaderName::from_static("x-accel-buffering"), "no");
    let headers = [(header::CONTENT_TYPE, EVENT_STREAM), no_buffering];
    Ok((headers, Body::from_stream(watch.into_stream())).into_response())
}
