//! The driver of the native agent: performs the one next thing, has it stored, looks again.
//!
//! Contract: [`drive`] returns when the agent's work has ended, when it waits for a person, or when
//! the journal takes no more. It keeps nothing between two calls; a second call goes on from what
//! is stored. Dropping its future cancels what it is doing. Absent: decisions, which are `turn`'s.

use std::time::Duration;

use domain::effect::{Effect, EffectResult, FailureClass, FailureSource, TokenUsage};
use domain::id::{Digest, EffectId, SandboxId};
use domain::task::{AgentEnd, OutcomeReason};
use futures_util::StreamExt as _;
use futures_util::future::{Either, join, select};
use jiff::{SignedDuration, Timestamp};
use model::{Answer, EventStream, ModelError, Provider, Request, StreamEvent};
use sandbox::{Advice, Sandbox, SandboxError};

use crate::conversation::{Conversation, PendingCall};
use crate::port::{FilesFound, Glimpse, Hands, Journal, JournalError, NoHands};
use crate::tools::run::{Returned, run_tool};
use crate::turn::{Next, Rules, next};

/// Most bytes of an answer as stored; an event may have 8 MiB.
const MAX_ANSWER_BYTES: usize = 7 << 20;
/// How long a model may be silent before those who watch are told.
const SILENCE: SignedDuration = SignedDuration::from_secs(2);

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
    /// The conversation before any event of this task.
    pub beginning: Conversation,
}

/// Runs the agent until it ends or waits.
///
/// # Errors
/// [`JournalError`], after which nothing more may be done for this task.
pub async fn drive(native: &Native<'_>) -> Result<(), JournalError> {
    let mut conversation = native.beginning.clone();
    loop {
        for envelope in native.journal.events_after(conversation.seq).await? {
            conversation.apply(&envelope).map_err(|error| JournalError::Failed(error.to_string()))?;
        }
        match next(&conversation, &native.rules, native.journal.now()) {
            Next::CallModel { turn, request } => {
                // The model reads while the files are put away.
                let asked = call_model(native, conversation.attempt, turn, &request);
                let (asked, kept) = join(asked, keep_files(native, &conversation)).await;
                asked.and(kept)?;
            }
            Next::RunTool(call) => {
                if run_call(native, &conversation, &call).await? == BoxAfter::Lost {
                    return Ok(());
                }
            }
            Next::Ask { call, question } => {
                let effect = tool_effect(&conversation, &call);
                if native.journal.ask(effect, &question, conversation.seq).await? {
                    return Ok(());
                }
            }
            Next::Waiting | Next::Ended => return Ok(()),
            Next::Tell(text) => native.journal.tell_agent(&text).await?,
            Next::SleepUntil(until) => native.journal.sleep_until(until).await,
            Next::End(end) => {
                // Also the files of a last turn can be gone back to.
                keep_files(native, &conversation).await?;
                if native.journal.finish(conversation.attempt, end, conversation.seq).await? {
                    return Ok(());
                }
            }
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

/// Keeps the files after a turn that changed some, so that the work can be taken up from there.
async fn keep_files(native: &Native<'_>, conversation: &Conversation) -> Result<(), JournalError> {
    // A call that failed has begun a turn and not made one.
    let (attempt, turn) = (conversation.attempt, conversation.answered_turns());
    let kept = conversation.kept_turn.is_some_and(|kept| kept >= turn);
    if turn == 0 || kept || !native.hands.can_keep().await {
        return Ok(());
    }
    let Ok(hands) = native.hands.ready().await else { return Ok(()) };
    let sandbox = hands.id().clone();
    let key = snapshot_key(&sandbox, turn);
    let id = native.journal.start(Effect::Snapshot { sandbox, attempt, turn }).await?;
    let begun = native.journal.now();
    let mut lost = None;
    let result = match native.hands.keep(&key).await {
        Ok(layers) => EffectResult::SnapshotTaken { layers, duration_ms: elapsed_ms(native, begun) },
        // The next call finds out whether the box is still of use; a step less to go back to is no
        // reason to end the work.
        Err(error) => {
            lost = error.found.and_then(FilesFound::told);
            EffectResult::Failed {
                class: FailureClass::Unknown,
                source: FailureSource::Infra,
                message: error.to_string(),
                retry_after_ms: None,
            }
        }
    };
    native.journal.end(&id, result).await?;
    match lost {
        Some(text) => native.journal.tell_agent(&text).await,
        None => Ok(()),
    }
}

/// The name of the files of a sandbox after a turn.
#[must_use]
pub fn snapshot_key(sandbox: &SandboxId, turn: u32) -> Digest {
    Digest::of(format!("files/1\n{sandbox}\n{turn}").as_bytes())
}

async fn stream(native: &Native<'_>, turn: u32, request: &Request) -> Result<Answer, ModelError> {
    let mut events = native.provider.stream(request);
    let mut event = first_event(native, turn, request, &mut events).await;
    while let Some(happened) = event {
        match happened? {
            StreamEvent::TextDelta { text } => native.journal.show(Glimpse::Text { turn, text: &text }),
            StreamEvent::ThinkingDelta { text } => native.journal.show(Glimpse::Thinking { turn, text: &text }),
            StreamEvent::Finished(answer) => return Ok(*answer),
            StreamEvent::Started { .. } | StreamEvent::ToolCallStarted { .. } | StreamEvent::ToolInputDelta { .. } => {}
        }
        event = events.next().await;
    }
    Err(ModelError {
        kind: model::ErrorKind::Broken,
        provider: native.provider.name().to_owned(),
        status: None,
        message: "the stream ended without an answer".to_owned(),
        excerpt: String::new(),
    })
}

/// Waits for the model's first sign, and says so to whoever watches if that takes long: a model on
/// one's own machine may read for a minute before it says a word.
async fn first_event(
    native: &Native<'_>,
    turn: u32,
    request: &Request,
    events: &mut EventStream,
) -> Option<Result<StreamEvent, ModelError>> {
    let patience = native.journal.now().checked_add(SILENCE).unwrap_or(Timestamp::MAX);
    let silence = async {
        while native.journal.now() < patience {
            native.journal.sleep_until(patience).await;
        }
    };
    let first = std::pin::pin!(events.next());
    match select(first, std::pin::pin!(silence)).await {
        Either::Left((event, _)) => event,
        Either::Right(((), first)) => {
            let text = format!("waits for {} (turn {turn})", request.model);
            native.journal.show(Glimpse::Waiting { text: &text });
            first.await
        }
    }
}

fn answered(answer: &Answer, duration_ms: u64) -> EffectResult {
    let usage = answer.usage;
    let known = usage.input_tokens.is_some() || usage.output_tokens.is_some();
    match serde_json::to_string(&answer.message) {
        // The event holds the text as a JSON string, whose quotes and backslashes double.
        Ok(message_json)
            if serde_json::to_string(&message_json).map_or(true, |stored| stored.len() > MAX_ANSWER_BYTES) =>
        {
            EffectResult::Failed {
                class: FailureClass::Final,
                source: FailureSource::Model,
                message: format!("the model's answer has {} bytes, too many to be kept", message_json.len()),
                retry_after_ms: None,
            }
        }
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

/// Whether the attempt still has a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BoxAfter {
    Kept,
    Lost,
}

/// Runs one call and stores what came of it. If the box is lost, the attempt ends with it.
async fn run_call(
    native: &Native<'_>,
    conversation: &Conversation,
    call: &PendingCall,
) -> Result<BoxAfter, JournalError> {
    let id = native.journal.start(tool_effect(conversation, call)).await?;
    let begun = native.journal.now();
    let hands = match native.hands.ready().await {
        Ok(hands) => hands,
        Err(_) => {
            // What kept it from starting may be over.
            match native.hands.revive().await {
                Ok(found) => {
                    if let Some(text) = found.told() {
                        native.journal.tell_agent(&text).await?;
                    }
                }
                Err(again) => return lose(native, conversation, &id, &again).await,
            }
            match native.hands.ready().await {
                Ok(hands) => hands,
                Err(error) => return lose(native, conversation, &id, &error).await,
            }
        }
    };
    let show = |text: &str| native.journal.show(Glimpse::Output { source: &call.tool, text });
    // The effect's id is unique in its task and the box belongs to one attempt of one task, so the
    // hand never runs the same call twice.
    let outcome = match run_tool(&*hands, id.as_str(), call, &show).await {
        Ok(outcome) => outcome,
        Err(error) => match revived(native, &error).await {
            Ok(told) => told,
            Err(error) => return lose(native, conversation, &id, &error).await,
        },
    };
    let kept = match &outcome.whole {
        Some(whole) => Some(native.journal.keep(whole).await?),
        None => None,
    };
    native.journal.end(&id, returned(&outcome, kept, elapsed_ms(native, begun))).await?;
    // The box may forget the output; if it does not hear that, it only keeps it longer.
    let _ = hands.acknowledge(id.as_str()).await;
    Ok(BoxAfter::Kept)
}

async fn lose(
    native: &Native<'_>,
    conversation: &Conversation,
    id: &EffectId,
    error: &NoHands,
) -> Result<BoxAfter, JournalError> {
    let message = error.message.clone();
    let result = returned(&Returned::error(&message), None, 0);
    let end = if error.hopeless {
        AgentEnd::Stopped { reason: OutcomeReason::Infra, message }
    } else {
        AgentEnd::Lost { message }
    };
    native.journal.end_and_finish(id, result, conversation.attempt, end).await?;
    Ok(BoxAfter::Lost)
}

/// A box that died or does not answer is started again on its files, and the model is told.
async fn revived(native: &Native<'_>, error: &SandboxError) -> Result<Returned, NoHands> {
    let failed = |why: String| NoHands { message: format!("the sandbox failed: {why}"), hopeless: false };
    match error.advice() {
        Advice::StartAgain | Advice::Retry => {}
        Advice::ChangeRequest | Advice::FixMachine => return Err(failed(error.to_string())),
    }
    match native.hands.revive().await {
        Ok(found) => Ok(Returned::error(&found.told().unwrap_or_else(|| DIED.to_owned()))),
        Err(again) => Err(NoHands { message: failed(again.message).message, hopeless: again.hopeless }),
    }
}

const DIED: &str = "The sandbox died while this ran. It was started again with the files as they are on disk; running processes are gone. Look before you repeat anything.";

fn returned(outcome: &Returned, output_digest: Option<Digest>, duration_ms: u64) -> EffectResult {
    EffectResult::ToolReturned { text: outcome.text.clone(), is_error: outcome.is_error, output_digest, duration_ms }
}

fn elapsed_ms(native: &Native<'_>, begun: Timestamp) -> u64 {
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
    // An edit can't be told from one that has not happened yet: `new` may contain `old`.
    let hands = hands.filter(|_| call.tool != crate::tools::EDIT);
    let outcome = match hands {
        Some(hands) => run_tool(hands, id.as_str(), call, &show).await.ok(),
        None => None,
    };
    let Some(outcome) = outcome else { return interrupted_tool() };
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

/// What becomes of an effect of which nobody knows whether it happened.
#[must_use]
pub fn unknown(message: impl Into<String>) -> EffectResult {
    EffectResult::Failed {
        class: FailureClass::Unknown,
        source: FailureSource::Infra,
        message: message.into(),
        retry_after_ms: None,
    }
}

/// The end of work that can't begin because of the settings.
#[must_use]
pub fn cannot_begin(message: impl Into<String>) -> AgentEnd {
    AgentEnd::Stopped { reason: OutcomeReason::User, message: message.into() }
}
