//! What an agent does next, from its conversation, its limits and the time. Pure.
//!
//! Every limit is checked here and nowhere else, before each model call, so that no limit is passed
//! by more than one call. Absent: how anything is done.

use domain::contract::{Budget, OnAmbiguity};
use domain::effect::FailureClass;
use domain::task::{AgentEnd, OutcomeReason};
use jiff::{SignedDuration, Timestamp};
use model::{Request, StopReason};

use crate::conversation::{Conversation, ModelFailures, PendingCall};
use crate::tools;

/// Model calls that may fail one after the other.
pub const MAX_MODEL_FAILURES: u32 = 10;
/// Answers in a row that the output limit may cut.
pub const MAX_CUT_ANSWERS: u32 = 3;
/// Answers in a row that may be empty.
pub const MAX_EMPTY_ANSWERS: u32 = 2;
/// After so many repetitions of a turn the model is told.
pub const REPEATS_TOLD: u32 = 2;
/// After so many the agent has got stuck.
pub const MAX_REPEATS: u32 = 7;
/// Most tokens of one answer.
pub const MAX_OUTPUT_TOKENS: u32 = 16_000;
/// First delay after a failed model call; doubles with each.
pub const MODEL_RETRY_BASE_MS: u64 = 500;
/// Longest delay of our own between model calls.
pub const MODEL_RETRY_CAP_MS: u64 = 60_000;

/// What holds for the whole conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The model's name at its provider.
    pub model: String,
    /// What may be used up.
    pub budget: Budget,
    /// When the wall budget or the deadline ends.
    pub expires_at: Timestamp,
    /// What happens at an ambiguity.
    pub on_ambiguity: OnAmbiguity,
}

/// The one next thing.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Send this to the model, as this turn.
    CallModel {
        /// The turn's number.
        turn: u32,
        /// The whole request.
        request: Box<Request>,
    },
    /// Run this call.
    RunTool(PendingCall),
    /// Ask a person this, and stand still.
    Ask {
        /// The call that asks.
        call: PendingCall,
        /// The question.
        question: String,
    },
    /// A person was asked; nothing to do.
    Waiting,
    /// Tell the model this before the next call.
    Tell(String),
    /// Nothing before then.
    SleepUntil(Timestamp),
    /// The work has ended like this.
    End(AgentEnd),
    /// It had ended before.
    Ended,
}

fn stopped(reason: OutcomeReason, message: impl Into<String>) -> Next {
    Next::End(AgentEnd::Stopped { reason, message: message.into() })
}

/// What to do next.
#[must_use]
pub fn next(conversation: &Conversation, rules: &Rules, now: Timestamp) -> Next {
    if conversation.end.is_some() {
        return Next::Ended;
    }
    if conversation.asking {
        return Next::Waiting;
    }
    if let Some(call) = conversation.calls.iter().find(|call| call.result.is_none()) {
        return for_call(call, rules);
    }
    if conversation.unsent.is_empty()
        && conversation.failures.is_none()
        && let Some(answer) = &conversation.last
        && let Some(next) = after_answer(conversation, &answer.stop, answer.text())
    {
        return next;
    }
    if let Some(next) = over_limit(conversation, rules, now) {
        return next;
    }
    if let Some(next) = after_repeats(conversation) {
        return next;
    }
    if let Some(failures) = &conversation.failures
        && let Some(next) = after_failures(failures, now)
    {
        return next;
    }
    Next::CallModel { turn: conversation.answered_turns() + 1, request: Box::new(request(conversation, rules)) }
}

impl Conversation {
    /// Turns that were answered, in this attempt or before the fork that it begins with.
    #[must_use]
    pub fn answered_turns(&self) -> u32 {
        u32::try_from(self.messages.iter().filter(|m| matches!(m, model::Message::Assistant(_))).count())
            .unwrap_or(u32::MAX)
    }
}

fn request(conversation: &Conversation, rules: &Rules) -> Request {
    Request {
        model: rules.model.clone(),
        system: crate::prompt::SYSTEM.to_owned(),
        tools: tools::specs(rules.on_ambiguity),
        messages: conversation.next_messages(),
        max_output_tokens: MAX_OUTPUT_TOKENS,
        temperature: None,
    }
}

/// A question waits for a person only where the contract says so.
fn for_call(call: &PendingCall, rules: &Rules) -> Next {
    if call.tool != tools::ASK {
        return Next::RunTool(call.clone());
    }
    match (tools::question(&call.input_json), rules.on_ambiguity) {
        (Some(question), OnAmbiguity::Pause) => Next::Ask { call: call.clone(), question },
        (Some(question), OnAmbiguity::Fail) => stopped(
            OutcomeReason::User,
            format!("the contract says to fail at an ambiguity, and the agent asked: {question}"),
        ),
        (None, _) | (_, OnAmbiguity::Proceed) => Next::RunTool(call.clone()),
    }
}

fn after_answer(conversation: &Conversation, stop: &StopReason, text: String) -> Option<Next> {
    match stop {
        StopReason::PauseTurn => None,
        StopReason::MaxTokens if conversation.cut_answers > MAX_CUT_ANSWERS => Some(stopped(
            OutcomeReason::Stuck,
            format!("the model's answers were cut at the output limit {MAX_CUT_ANSWERS} times in a row"),
        )),
        StopReason::MaxTokens => Some(Next::Tell(
            "Your last answer was cut at the output limit and nothing of it was run. Go on in smaller steps."
                .to_owned(),
        )),
        StopReason::Refusal => Some(stopped(OutcomeReason::Model, format!("the model declined: {text}"))),
        StopReason::ContextFull => Some(stopped(
            OutcomeReason::Stuck,
            "the conversation no longer fits into the model's context window; split the task",
        )),
        StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence | StopReason::Unknown(_) => {
            match conversation.empty_answers {
                0 => {}
                1..=MAX_EMPTY_ANSWERS => {
                    return Some(Next::Tell(
                        "Your last answer was empty. Go on with a tool call, or say in a sentence that you are done."
                            .to_owned(),
                    ));
                }
                _ => return Some(stopped(OutcomeReason::Model, "the model's answers were empty")),
            }
            Some(Next::End(AgentEnd::Finished { summary: text }))
        }
    }
}

/// All limits, in one place.
fn over_limit(conversation: &Conversation, rules: &Rules, now: Timestamp) -> Option<Next> {
    let (spent, budget) = (&conversation.spent, &rules.budget);
    let over = if now >= rules.expires_at {
        return Some(stopped(OutcomeReason::Timeout, "the task's time is up"));
    } else if spent.turns >= budget.turns {
        format!("{} model calls", budget.turns)
    } else if budget.tokens.is_some_and(|limit| spent.tokens >= limit) {
        format!("{} tokens", budget.tokens.unwrap_or(0))
    } else if budget.money_micro_usd.is_some_and(|limit| spent.micro_usd >= limit) {
        let cents = budget.money_micro_usd.unwrap_or(0) / 10_000;
        format!("{}.{:02} US dollars", cents / 100, cents % 100)
    } else {
        return None;
    };
    Some(stopped(
        OutcomeReason::Budget,
        format!("the budget of {over} is used up; submit the task again with a larger one"),
    ))
}

/// The same calls with the same results again and again lead nowhere and cost the same each time.
fn after_repeats(conversation: &Conversation) -> Option<Next> {
    let times = conversation.repeats + 1;
    if conversation.repeats >= MAX_REPEATS {
        return Some(stopped(
            OutcomeReason::Stuck,
            format!("the agent made the same calls {times} times in a row, with the same results each time"),
        ));
    }
    let unsaid = conversation.unsent.is_empty() && conversation.failures.is_none();
    (conversation.repeats == REPEATS_TOLD && unsaid).then(|| {
        Next::Tell(format!(
            "You have made the same calls {times} times in a row, and each time with the same result. Doing it again will not help: look at why, try something else, or ask."
        ))
    })
}

fn after_failures(failures: &ModelFailures, now: Timestamp) -> Option<Next> {
    match failures.class {
        FailureClass::Unknown => return None,
        FailureClass::Final | FailureClass::NeedsPerson => {
            return Some(stopped(OutcomeReason::Model, failures.message.clone()));
        }
        FailureClass::Retry => {}
    }
    if failures.count >= MAX_MODEL_FAILURES {
        let message =
            format!("the model failed {} times in a row; the last time: {}", failures.count, failures.message);
        return Some(stopped(OutcomeReason::Model, message));
    }
    let doubling = MODEL_RETRY_BASE_MS << (failures.count - 1).min(7);
    let delay_ms = doubling.min(MODEL_RETRY_CAP_MS).max(failures.retry_after_ms.unwrap_or(0));
    let delay = SignedDuration::from_millis(i64::try_from(delay_ms).unwrap_or(i64::MAX));
    let until = failures.at.checked_add(delay).unwrap_or(now);
    (now < until).then_some(Next::SleepUntil(until))
}
