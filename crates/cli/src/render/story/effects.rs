//! Effects as the story tells them: what each is called, and which of them speak while they work.
//!
//! Absent: what came of them; that is the story itself.

use domain::effect::Effect;
use server::api::LiveItem;

use super::tools;
use crate::render::words::command_line;
use crate::terminal::fit;

/// Whether text or output of an effect streams in while it is at work.
#[must_use]
pub const fn speaks(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::CallModel { .. }
            | Effect::RunTool { .. }
            | Effect::RunCommand { .. }
            | Effect::RunGate { .. }
            | Effect::BuildEnvironment { .. }
    )
}

/// Whether a live piece comes from this effect.
#[must_use]
pub fn says(effect: &Effect, item: &LiveItem) -> bool {
    match (effect, item) {
        (
            Effect::CallModel { turn: now, .. },
            LiveItem::TextDelta { turn, .. } | LiveItem::ThinkingDelta { turn, .. },
        ) => turn == now,
        (Effect::RunTool { tool, .. }, LiveItem::Output { source, .. }) => tool == source,
        (Effect::RunGate { gate, .. }, LiveItem::Output { source, .. }) => gate.name == *source,
        (Effect::BuildEnvironment { .. }, LiveItem::Output { source, .. }) => source == "environment",
        (Effect::RunCommand { .. }, LiveItem::Output { source, .. }) => source == "command",
        _ => false,
    }
}

/// Whether one effect is the other tried again. A call of the model may say more the second time.
#[must_use]
pub fn is_same(one: &Effect, other: &Effect) -> bool {
    match (one, other) {
        (Effect::CallModel { attempt, turn, .. }, Effect::CallModel { attempt: attempt2, turn: turn2, .. }) => {
            (attempt, turn) == (attempt2, turn2)
        }
        _ => one == other,
    }
}

/// What an effect does, for "… failed" and for "now: …".
#[must_use]
pub fn in_words(effect: &Effect) -> String {
    match effect {
        Effect::OpenSandbox { .. } => "starting a sandbox".to_owned(),
        Effect::CloseSandbox { .. } => "removing a sandbox".to_owned(),
        Effect::CallModel { turn, model, .. } => format!("asking {model} (turn {turn})"),
        Effect::RunTool { tool, .. } if tool == tools::ASK => "asking you".to_owned(),
        Effect::RunTool { tool, input_json, .. } => {
            format!("running {tool} {}", fit(&tools::subject(input_json), 40)).trim_end().to_owned()
        }
        Effect::BuildEnvironment { .. } => "building the environment".to_owned(),
        Effect::Snapshot { turn, .. } => format!("keeping the files of turn {turn}"),
        Effect::RunCommand { argv, .. } => format!("running {}", fit(&command_line(argv), 50)),
        Effect::Collect { .. } => "bringing the result out of the box".to_owned(),
        Effect::RunGate { gate, .. } => format!("running gate {}", gate.name),
        Effect::Publish { .. } => "showing the branch in the repository".to_owned(),
        Effect::MergeBase { .. } => "merging the base branch".to_owned(),
        Effect::Land { branch, .. } => format!("landing on {branch}"),
    }
}
