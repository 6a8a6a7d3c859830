//! `record`: a task's conversation as a cassette that `--model replay:FILE` plays again.
//!
//! The answers are taken byte for byte from the events, so a bug report can carry exactly what the
//! model said. Absent: what the tools returned; replaying runs them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;

use domain::effect::{Effect, EffectResult, TokenUsage};
use domain::event::{Envelope, Event};
use domain::id::EffectId;
use domain::task::{AgentSpec, Task};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, checked};
use crate::args::RecordArgs;
use crate::client::Client;
use crate::commands::logs::all_events;
use crate::failure::Failure;
use crate::terminal::{Line, Style};

/// The file. Answers stay raw text: a provider may have signed their bytes.
#[derive(Serialize)]
struct Cassette<'a> {
    cassette: u32,
    entries: &'a [Recorded],
}

/// One answer.
#[derive(Serialize)]
struct Recorded {
    message: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<model::Usage>,
}

pub(super) async fn run(args: &RecordArgs, cx: &mut Context) -> Result<ExitCode, Failure> {
    let client = cx.client().await?;
    let task: Task = client.get(&format!("/v1/tasks/{}", checked(&args.id)?), &()).await?;
    if !matches!(task.spec.agent, AgentSpec::Native { .. }) {
        return Err(Failure::usage("this task's agent is a program; it has no conversation with a model"));
    }
    let entries = entries(&client, &task).await?;
    if entries.is_empty() {
        return Err(Failure::usage("the model has not answered yet; there is nothing to record"));
    }
    let cassette = Cassette { cassette: model::CASSETTE_VERSION, entries: &entries };
    let text = serde_json::to_vec_pretty(&cassette)
        .map_err(|error| Failure::new("record", "The conversation can't be written", error.to_string()))?;
    let Some(path) = &args.output else {
        cx.screen.bytes(&text)?;
        cx.screen.bytes(b"\n")?;
        return Ok(ExitCode::SUCCESS);
    };
    let written = std::fs::File::options().write(true).create_new(true).open(path).and_then(|mut file| {
        file.write_all(&text)?;
        file.write_all(b"\n")
    });
    written.map_err(|error| Failure::usage(format!("{} can't be written: {error}", path.display())))?;
    let answers = entries.len();
    if cx.screen.json {
        cx.screen.document(&json!({ "file": path, "answers": answers }))?;
    } else {
        cx.screen.line(Line::new().with(Style::Good, "✓ ").text(format!("{answers} answers in {}", path.display())))?;
        cx.screen
            .line(Line::new().dim(format!("  play them: chargehand run \"…\" --model replay:{}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The answers of the newest attempt, with those that a fork shares before them.
async fn entries(client: &Client, task: &Task) -> Result<Vec<Recorded>, Failure> {
    // From this task back to the one that was delegated anew, then told forwards.
    let mut parts = vec![answers(&all_events(client, task.id.as_str()).await?, u64::MAX)];
    let mut fork = task.spec.fork.clone();
    while let Some(point) = fork {
        parts.push(answers(&all_events(client, point.task.as_str()).await?, point.seq));
        let other: Task = client.get(&format!("/v1/tasks/{}", point.task), &()).await?;
        fork = other.spec.fork;
    }
    parts.reverse();
    Ok(parts.into_iter().flatten().collect())
}

/// The answers of the newest attempt up to event `last`.
fn answers(events: &[Box<RawValue>], last: u64) -> Vec<Recorded> {
    let mut open: BTreeMap<EffectId, bool> = BTreeMap::new();
    let mut entries = Vec::new();
    let decoded = events.iter().filter_map(|raw| Envelope::decode(raw.get().as_bytes()).ok());
    for envelope in decoded.take_while(|envelope| envelope.seq <= last) {
        match envelope.event {
            Event::AttemptStarted { .. } => entries.clear(),
            Event::EffectStarted { id, effect } => {
                open.insert(id, matches!(effect, Effect::CallModel { .. }));
            }
            Event::EffectEnded { id, result: EffectResult::ModelAnswered { message_json, usage, .. } } => {
                let message: Option<Box<RawValue>> = RawValue::from_string(message_json).ok();
                if open.remove(&id) == Some(true)
                    && let Some(message) = message
                {
                    entries.push(recorded(message, usage.as_ref()));
                }
            }
            _ => {}
        }
    }
    entries
}

fn recorded(message: Box<RawValue>, usage: Option<&TokenUsage>) -> Recorded {
    let usage = usage.map(|usage| model::Usage {
        input_tokens: Some(usage.input_tokens),
        cache_read_tokens: Some(usage.cache_read_tokens),
        cache_write_tokens: Some(usage.cache_write_tokens),
        output_tokens: Some(usage.output_tokens),
    });
    Recorded { message, usage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_answer_are_not_written_anew() {
        let signed = r#"{"z":1,"a":{"signature":"x","thinking":"y"},"n":1.0}"#;
        let entries = [recorded(RawValue::from_string(signed.to_owned()).unwrap(), None)];
        let text = serde_json::to_string_pretty(&Cassette { cassette: 1, entries: &entries }).unwrap();
        assert!(text.contains(signed), "{text}");
    }
}
