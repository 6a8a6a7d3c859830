//! The driver of the native agent: performs the one next thing, has it stored, looks again.
//!
//! Contract: [`drive`] returns when the agent's work has ended, when it waits for a person, or when
//! the journal takes no more. It keeps nothing between two calls; a second call goes on from what
//! is stored. Dropping its future cancels what it is doing. Absent: decisions, which are `turn`'s.

use std::time::Duration;

use domain::effect::{Effect, EffectResult, FailureClass, FailureSource, TokenUsage};
use domain::id::{Digest, EffectId};
use domain::task::{AgentEnd, OutcomeReason};
use futures_util::StreamExt as _;
use model::{Answer, ModelError, Provider, Request, StreamEvent};
use sandbox::{Advice, Sandbox, SandboxError};

use crate::conversation::{Conversation, PendingCall};
use crate::port::{Glimpse, Hands, Journal, JournalError};
use crate::tools::run::{Returned, run_tool};
use crate::turn::{Next, Rules, next};

/// How a call of [`drive`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drove {
    /// The agent's work has ended; the journal has how.
    Ended,
    /// A person was asked.
    Waits,
}

/// Everything that the loop acts through.
pub struct Native<'a> {
    /// Stores and shows.
    pub journal: &'a dyn Journal,
    /// The box.
    pub hands: &'a dyn Hands,
    /// The model's provider.
    pub provider: &'a dyn Provider,
    /// What holds for the whole conversation.
    pub rules: Rules,
    /// The first message to the model.
    pub first_message: String,
}

/// Runs the agent until it ends or waits.
///
/// # Errors
/// [`JournalError`], after which nothing more may be done for this task.
pub async fn drive(native: &Native<'_>) -> Result<Drove, JournalError> {
    let mut conversation = Conversation::new(native.first_message.clone());
    loop {
        for envelope in native.journal.events_after(conversation.seq).await? {
            conversation.apply(&envelope).map_err(|error| JournalError::Failed(error.to_string()))?;
        }
        match next(&conversation, &native.rules, native.journal.now()) {
            Next::CallModel { turn, request } => call_model(native, conversation.attempt, turn, &request).await?,
            Next::RunTool(call) => {
                if let Some(lost) = run_call(native, &conversation, &call).await? {
                    native.journal.finish(conversation.attempt, lost).await?;
                    return Ok(Drove::Ended);
                }
            }
            Next::Ask { call, question } => {
                native.journal.ask(tool_effect(&conversation, &call), &question).await?;
                return Ok(Drove::Waits);
            }
            Next::Waiting => return Ok(Drove::Waits),
            Next::Tell(text) => native.journal.tell_agent(&text).await?,
            Next::SleepUntil(until) => native.journal.sleep_until(until).await,
            Next::End(end) => {
                native.journal.finish(conversation.attempt, end).await?;
                return Ok(Drove::Ended);
            }
            Next::Ended => return Ok(Drove::Ended),
        }
    }
}

async fn call_model(native: &Native<'_>, attempt: u32, turn: u32, request: &Request) -> Result<(), JournalError> {
    let request_digest = Digest::of(&serde_json::to_vec(request).unwrap_or_default());
    let effect = Effect::CallModel { attempt, turn, model: request.model.clone(), request_digest };
    let id = native.journal.start(effect).await?;
    let begun = native.journal.now();
    let result = match stream(native, turn, request).await {
        Ok(answer) => answered(&answer, elapsed_ms(native, begun)),
        Err(error) => failed(&error),
    };
    native.journal.end(&id, result).await
}

async fn stream(native: &Native<'_>, turn: u32, request: &Request) -> Result<Answer, ModelError> {
    let mut events = native.provider.stream(request);
    while let Some(event) = events.next().await {
        match event? {
            StreamEvent::TextDelta { text } => native.journal.show(Glimpse::Text { turn, text: &text }),
            StreamEvent::ThinkingDelta { text } => native.journal.show(Glimpse::Thinking { turn, text: &text }),
            StreamEvent::Finished(answer) => return Ok(*answer),
            StreamEvent::Started { .. } | StreamEvent::ToolCallStarted { .. } | StreamEvent::ToolInputDelta { .. } => {}
        }
    }
    Err(ModelError {
        kind: model::ErrorKind::Broken,
        provider: native.provider.name().to_owned(),
        status: None,
        message: "the stream ended without an answer".to_owned(),
        excerpt: String::new(),
    })
}

fn answered(answer: &Answer, duration_ms: u64) -> EffectResult {
    let usage = answer.usage;
    let known = usage.input_tokens.is_some() || usage.output_tokens.is_some();
    match serde_json::to_string(&answer.message) {
        Ok(message_json) => EffectResult::ModelAnswered {
            message_json,
            usage: known.then(|| TokenUsage {
                input_tokens: usage.input_tokens.unwrap_or(0),
                cache_read_tokens: usage.cache_read_tokens.unwrap_or(0),
                cache_write_tokens: usage.cache_write_tokens.unwrap_or(0),
                output_tokens: usage.output_tokens.unwrap_or(0),
            }),
            cost_micro_usd: answer.cost_micro_usd,
            duration_ms,
        },
        Err(error) => EffectResult::Failed {
            class: FailureClass::Final,
            source: FailureSource::Model,
            message: format!("the answer can't be kept: {error}"),
            retry_after_ms: None,
        },
    }
}

fn failed(error: &ModelError) -> EffectResult {
    // The first attempt's delay tells whether and how soon: `turn` counts the attempts itself.
    let delay = model::retry_delay(error, 1, 0.0);
    EffectResult::Failed {
        class: if delay.is_some() { FailureClass::Retry } else { FailureClass::Final },
        source: FailureSource::Model,
        message: error.to_string(),
        retry_after_ms: delay.map(|delay: Duration| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn tool_effect(conversation: &Conversation, call: &PendingCall) -> Effect {
    Effect::RunTool {
        attempt: conversation.attempt,
        turn: conversation.turn,
        call_id: call.id.clone(),
        tool: call.tool.clone(),
        input_json: call.input_json.clone(),
    }
}

/// Runs one call. Gives how the work ends if the box is lost.
async fn run_call(
    native: &Native<'_>,
    conversation: &Conversation,
    call: &PendingCall,
) -> Result<Option<AgentEnd>, JournalError> {
    let id = native.journal.start(tool_effect(conversation, call)).await?;
    let begun = native.journal.now();
    let hands = match native.hands.ready().await {
        Ok(hands) => hands,
        Err(error) => {
            let message = error.to_string();
            let result = returned(&Returned::error(&message), None, elapsed_ms(native, begun));
            native.journal.end(&id, result).await?;
            return Ok(Some(AgentEnd::Lost { message }));
        }
    };
    let show = |text: &str| native.journal.show(Glimpse::Output { source: &call.tool, text });
    // The effect's id is unique in its task and the box belongs to one attempt of one task, so the
    // hand never runs the same call twice.
    let (outcome, lost) = match run_tool(&*hands, id.as_str(), call, &show).await {
        Ok(outcome) => (outcome, None),
        Err(error) => after_box_failed(native, &error).await,
    };
    let kept = match &outcome.whole {
        Some(whole) => Some(native.journal.keep(whole).await?),
        None => None,
    };
    native.journal.end(&id, returned(&outcome, kept, elapsed_ms(native, begun))).await?;
    Ok(lost)
}

/// A box that died is started again on its files, and the model is told; if that fails too, the
/// attempt is lost.
async fn after_box_failed(native: &Native<'_>, error: &SandboxError) -> (Returned, Option<AgentEnd>) {
    let revived = match error.advice() {
        Advice::StartAgain => native.hands.revive().await.map(|_| ()).map_err(|again| again.to_string()),
        Advice::Retry | Advice::ChangeRequest | Advice::FixMachine => Err(error.to_string()),
    };
    match revived {
        Ok(()) => {
            let text = "The sandbox died while this ran. It was started again with the files as they are on disk; running processes are gone. Look before you repeat anything.";
            (Returned::error(text), None)
        }
        Err(why) => {
            let message = format!("the sandbox failed: {why}");
            (Returned::error(&message), Some(AgentEnd::Lost { message }))
        }
    }
}

fn returned(outcome: &Returned, output_digest: Option<Digest>, duration_ms: u64) -> EffectResult {
    EffectResult::ToolReturned { text: outcome.text.clone(), is_error: outcome.is_error, output_digest, duration_ms }
}

fn elapsed_ms(native: &Native<'_>, begun: jiff::Timestamp) -> u64 {
    u64::try_from(native.journal.now().duration_since(begun).as_millis()).unwrap_or(0)
}

/// What came of a tool call whose effect was open when the platform stopped.
///
/// `hands` is the box if it lived on. A command that runs or ran in it is followed from its first
/// byte of output, and one that never began is run now: the hand knows by the effect's id, so it
/// runs at most once. Without the box nobody can know, and the model is told so.
pub async fn recovered_tool(
    journal: &dyn Journal,
    hands: Option<&dyn Sandbox>,
    id: &EffectId,
    call: &PendingCall,
) -> EffectResult {
    let begun = journal.now();
    let show = |text: &str| journal.show(Glimpse::Output { source: &call.tool, text });
    let outcome = match hands {
        Some(hands) => run_tool(hands, id.as_str(), call, &show).await.ok(),
        None => None,
    };
    // An edit that took effect finds nothing to replace the second time.
    let Some(outcome) = outcome.filter(|outcome| !(outcome.is_error && call.tool == crate::tools::EDIT)) else {
        return interrupted_tool();
    };
    let kept = match &outcome.whole {
        Some(whole) => journal.keep(whole).await.ok(),
        None => None,
    };
    let duration_ms = u64::try_from(journal.now().duration_since(begun).as_millis()).unwrap_or(0);
    returned(&outcome, kept, duration_ms)
}

/// What the model is told of a tool call that nobody can know about: it is not run again.
#[must_use]
pub fn interrupted_tool() -> EffectResult {
    EffectResult::ToolReturned {
        text: "The platform and the sandbox were restarted while this ran. It is not known whether it took effect; look before you repeat it.".to_owned(),
        is_error: true,
        output_digest: None,
        duration_ms: 0,
    }
}

/// What becomes of a model call whose effect was open when the platform stopped: it is made again.
#[must_use]
pub fn interrupted_call() -> EffectResult {
    EffectResult::Failed {
        class: FailureClass::Unknown,
        source: FailureSource::Infra,
        message: "the platform was restarted during the call".to_owned(),
        retry_after_ms: None,
    }
}

/// The end of work that can't begin because of the settings.
#[must_use]
pub fn cannot_begin(message: impl Into<String>) -> AgentEnd {
    AgentEnd::Stopped { reason: OutcomeReason::User, message: message.into() }
}
