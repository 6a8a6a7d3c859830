//! Following a task's events over reconnects and restarts of the server, until it needs a person
//! or has ended.
//!
//! Every stored event comes once and in order: after a broken connection the stream goes on behind
//! the last one seen. Absent: printing; who follows brings a [`Watcher`].

use std::time::Duration;

use domain::event::Envelope;
use domain::task::Task;
use futures_util::StreamExt as _;
use reqwest::Response;
use server::api::{LiveItem, Problem};

use super::checked;
use crate::client::{CallError, Client, Message, Parser};
use crate::failure::{Failure, INTERRUPTED};
use crate::terminal::remark;

/// Between two tries to reach a server that is away.
const RETRY: Duration = Duration::from_millis(500);
/// How long a server may be away.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// Longest silence: the server speaks at least each 15 seconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(45);

/// Sees what happens.
pub(super) trait Watcher {
    /// A stored event: as it was sent, and read if this version can read it.
    ///
    /// # Errors
    /// If it can't be shown; following ends then.
    fn event(&mut self, raw: &str, envelope: Option<&Envelope>) -> Result<(), Failure>;

    /// Something that passes by.
    ///
    /// # Errors
    /// If it can't be shown; following ends then.
    fn live(&mut self, item: &LiveItem) -> Result<(), Failure>;
}

/// Follows a task from its first event. Gives the task as it stands when it needs a person or has
/// ended, but not before event `at_least` was seen.
pub(super) async fn follow(
    client: &Client,
    id: &str,
    at_least: u64,
    watcher: &mut dyn Watcher,
) -> Result<Task, Failure> {
    let id = checked(id)?;
    let mut run = Run { client, id, at_least, seen: 0, task: None, watcher };
    let outcome = tokio::select! {
        outcome = run.watch_on() => outcome,
        _ = tokio::signal::ctrl_c() => {
            let advice = format!("The task goes on. Watch it again: chargehand logs {id} -f. Call it off: chargehand cancel {id}");
            Err(Failure { exit: INTERRUPTED, ..Failure::new("interrupted", "No longer watching", advice) })
        }
    };
    outcome
}

struct Run<'a> {
    client: &'a Client,
    id: &'a str,
    at_least: u64,
    seen: u64,
    task: Option<Task>,
    watcher: &'a mut dyn Watcher,
}

/// Why a stream is no longer read.
enum Left {
    Standing,
    Broken,
}

impl Run<'_> {
    async fn watch_on(&mut self) -> Result<Task, Failure> {
        let mut away_since = None;
        loop {
            let before = self.seen;
            match self.client.stream(self.id, self.seen).await {
                Ok(response) => {
                    if let Left::Standing = self.read(response).await? {
                        return self.standing().await;
                    }
                }
                Err(CallError::NoServer | CallError::Broken(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if self.seen > before {
                away_since = None;
            }
            let since = *away_since.get_or_insert_with(|| {
                remark("(the connection is gone; waiting for the server …)");
                tokio::time::Instant::now()
            });
            if since.elapsed() > AWAY_LIMIT {
                let advice = format!(
                    "The task is kept and goes on when the server runs: chargehand logs {} -f starts it again.",
                    self.id
                );
                return Err(Failure::new("server-away", "The server is gone", advice));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn read(&mut self, response: Response) -> Result<Left, Failure> {
        let mut parser = Parser::default();
        let mut body = response.bytes_stream();
        loop {
            let Ok(Some(Ok(bytes))) = tokio::time::timeout(SILENCE_LIMIT, body.next()).await else {
                return Ok(Left::Broken);
            };
            let messages =
                parser.push(&bytes).map_err(|why| Failure::new("stream", "The stream can't be read", why))?;
            for message in messages {
                if let Some(left) = self.message(&message)? {
                    return Ok(left);
                }
            }
        }
    }

    fn message(&mut self, message: &Message) -> Result<Option<Left>, Failure> {
        match message.name.as_str() {
            "event" => {
                let envelope = Envelope::decode(message.data.as_bytes()).ok();
                self.seen = message.id.unwrap_or(self.seen + 1);
                self.fold(envelope.as_ref());
                self.watcher.event(&message.data, envelope.as_ref())?;
                let stands = self.task.as_ref().is_some_and(|task| task.state.is_terminal() || task.wait.is_some());
                return Ok((stands && self.seen >= self.at_least).then_some(Left::Standing));
            }
            "live" => {
                if let Ok(item) = serde_json::from_str::<LiveItem>(&message.data) {
                    self.watcher.live(&item)?;
                }
            }
            "end" => return Ok(Some(Left::Standing)),
            "problem" => {
                if let Ok(problem) = serde_json::from_str::<Problem>(&message.data)
                    && problem.status < 500
                {
                    return Err(problem.into());
                }
                return Ok(Some(Left::Broken));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Keeps the task up to date; an event of a later version makes it unknown from there on.
    fn fold(&mut self, envelope: Option<&Envelope>) {
        self.task = match (self.task.take(), envelope) {
            (None, Some(first)) if first.seq == 1 => domain::fold::begin(first).ok(),
            (Some(mut task), Some(next)) => domain::fold::apply(&mut task, next).is_ok().then_some(task),
            _ => None,
        };
    }

    async fn standing(&mut self) -> Result<Task, Failure> {
        match self.task.take() {
            Some(task) => Ok(task),
            None => Ok(self.client.get(&format!("/v1/tasks/{}", self.id), &()).await?),
        }
    }
}
