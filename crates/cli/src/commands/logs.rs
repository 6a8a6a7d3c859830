//! `logs` and `wait`: what happened, and what is happening.
//!
//! Absent: how it looks (`render::story`) and how it comes (`follow`).

use std::process::ExitCode;

use domain::event::Envelope;
use domain::task::{Task, TaskSummary};
use serde_json::value::RawValue;
use server::api::{EventPage, EventsQuery, LiveItem};

use super::follow::{Watcher, follow};
use super::{Context, checked, exit_of, say_next};
use crate::args::LogsArgs;
use crate::client::Client;
use crate::failure::Failure;
use crate::render::story::{Story, Wishes};
use crate::terminal::{Line, Screen, Style};

/// Shows what happens as a conversation, or as it is stored.
pub(super) struct Show<'a> {
    screen: &'a mut Screen,
    story: Story,
    raw: bool,
    /// Events up to this one are known already, and only remembered.
    pub(super) known: u64,
}

impl<'a> Show<'a> {
    pub(super) fn new(screen: &'a mut Screen, full: bool, raw: bool) -> Self {
        let story = Story::new(Wishes { columns: screen.columns, full });
        Self { screen, story, raw, known: 0 }
    }
}

impl Watcher for Show<'_> {
    fn event(&mut self, raw: &str, envelope: Option<&Envelope>) -> Result<(), Failure> {
        if self.raw {
            return Ok(self.screen.bytes(format!("{raw}\n").as_bytes())?);
        }
        let Some(envelope) = envelope else {
            return Ok(self
                .screen
                .line(Line::new().with(Style::Warn, "an event that this version can't read; --raw shows it"))?);
        };
        let pieces = self.story.event(envelope);
        if envelope.seq > self.known {
            self.screen.pieces(&pieces)?;
        }
        Ok(())
    }

    fn live(&mut self, item: &LiveItem) -> Result<(), Failure> {
        if !self.raw {
            let pieces = self.story.live(item);
            self.screen.pieces(&pieces)?;
        }
        Ok(())
    }
}

pub(super) async fn run(args: &LogsArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let id = checked(&args.id)?;
    if args.follow {
        let now: Task = client.get(&format!("/v1/tasks/{id}"), &()).await?;
        return watch(&client, &now, args.full, args.raw, cx).await;
    }
    let events = all_events(&client, id).await?;
    if cx.screen.json && !args.raw {
        cx.screen.document(&serde_json::json!({ "events": events }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut show = Show::new(&mut cx.screen, args.full, args.raw);
    let mut envelopes = Vec::with_capacity(events.len());
    for raw in &events {
        let envelope = Envelope::decode(raw.get().as_bytes()).ok();
        show.event(raw.get(), envelope.as_ref())?;
        envelopes.extend(envelope);
    }
    if !args.raw
        && let Ok(task) = domain::fold(&envelopes)
    {
        say_next(&TaskSummary::from(&task), cx)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every event of a task, as stored.
pub(super) async fn all_events(client: &Client, id: &str) -> Result<Vec<Box<RawValue>>, Failure> {
    let mut events: Vec<Box<RawValue>> = Vec::new();
    let mut after = 0;
    loop {
        let query = EventsQuery { after: Some(after), limit: Some(server::api::MAX_EVENTS), ..EventsQuery::default() };
        let page: EventPage = client.get(&format!("/v1/tasks/{id}/events"), &query).await?;
        events.extend(page.events.into_iter().map(|item| item.envelope));
        match page.next_after {
            Some(next) => after = next,
            None => return Ok(events),
        }
    }
}

/// Watches a task that stands at `now` until it needs a person or has ended, and says what to do.
pub(super) async fn watch(
    client: &Client,
    now: &Task,
    full: bool,
    raw: bool,
    cx: &mut Context,
) -> Result<ExitCode, Failure> {
    let raw = raw || cx.screen.json;
    let mut show = Show::new(&mut cx.screen, full, raw);
    let task = follow(client, now.id.as_str(), now.seq, &mut show).await?;
    if !raw {
        say_next(&TaskSummary::from(&task), cx)?;
    }
    Ok(exit_of(&task))
}

/// Sees nothing.
pub(super) struct Blind;

impl Watcher for Blind {
    fn event(&mut self, _: &str, _: Option<&Envelope>) -> Result<(), Failure> {
        Ok(())
    }
    fn live(&mut self, _: &LiveItem) -> Result<(), Failure> {
        Ok(())
    }
}

/// `wait`: blocks until the task needs a person or has ended.
pub(super) async fn wait(id: &str, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let now: Task = client.get(&format!("/v1/tasks/{}", checked(id)?), &()).await?;
    let task = follow(&client, now.id.as_str(), now.seq, &mut Blind).await?;
    let summary = TaskSummary::from(&task);
    if cx.screen.json {
        cx.screen.document(&summary)?;
    } else {
        cx.screen.line(standing(&summary))?;
        say_next(&summary, cx)?;
    }
    Ok(exit_of(&task))
}

/// A task's state in a line.
pub(super) fn standing(task: &TaskSummary) -> Line {
    let (style, state) = crate::render::words::state(task.state, task.wait_kind, task.outcome);
    let line = Line::new().bold(task.id.short()).text("  ").with(style, state);
    if task.reason.is_empty() { line } else { line.text(format!(": {}", task.reason)) }
}
