//! Events → what the model has seen. Pure.
//!
//! A [`Conversation`] is folded from the task's events, attempt by attempt; there is no other copy.
//! Messages only grow within an attempt, so the request of a turn is a prefix of the next one's.
//! Absent: decisions, which are `turn`'s.

use std::collections::BTreeMap;

use domain::effect::{Effect, EffectResult, FailureClass};
use domain::event::{Envelope, Event, MessageSource};
use domain::id::EffectId;
use domain::task::AgentEnd;
use jiff::Timestamp;
use model::{AssistantMessage, Message, UserPart};

/// A tool call that waits for its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCall {
    /// The provider's id.
    pub id: String,
    /// The tool's name as the model wrote it.
    pub tool: String,
    /// The input, a JSON object as the model wrote it.
    pub input_json: String,
    /// What came of it, once it is known: text and whether it is an error.
    pub result: Option<(String, bool)>,
    /// Whether its effect has begun.
    pub started: bool,
}

/// Model calls that failed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFailures {
    /// How many.
    pub count: u32,
    /// What can be done about the last.
    pub class: FailureClass,
    /// What it said.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// The provider's own least delay.
    pub retry_after_ms: Option<u64>,
}

/// What the task has used up so far, over all attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Model calls that were answered.
    pub turns: u32,
    /// Tokens of all classes.
    pub tokens: u64,
    /// Money, as far as prices are known.
    pub micro_usd: u64,
}

/// A conversation of one attempt, and what the whole task has used up.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Number of the last event folded.
    pub seq: u64,
    /// Which attempt; 0 before the first.
    pub attempt: u32,
    /// What the model has seen or will see next, oldest first.
    pub messages: Vec<Message>,
    /// Texts for the model that no call has carried yet.
    pub unsent: Vec<String>,
    /// The calls of the last answer, in order, until all have results.
    pub calls: Vec<PendingCall>,
    /// The number of the last turn that was begun.
    pub turn: u32,
    /// The last answer, if nothing follows it yet.
    pub last: Option<AssistantMessage>,
    /// What failed since the last answer.
    pub failures: Option<ModelFailures>,
    /// Answers cut by the output limit, one after the other.
    pub cut_answers: u32,
    /// Answers without text or call, one after the other.
    pub empty_answers: u32,
    /// What was used up.
    pub spent: Spent,
    /// How the attempt's work ended.
    pub end: Option<AgentEnd>,
    /// A person was asked and has not answered.
    pub asking: bool,
    /// How many turns in a row made the same calls with the same results as the turn before.
    pub repeats: u32,
    /// The turn whose files were kept last.
    pub kept_turn: Option<u32>,
    /// How many of `messages` a call has carried.
    sent: usize,
    /// What people said, in all attempts.
    said: Vec<String>,
    first: String,
    /// For a fork: the other task's conversation, with which each attempt begins.
    shared: Option<Box<Conversation>>,
    open: BTreeMap<EffectId, Effect>,
    /// The newest turn's calls and what came of them.
    newest: Vec<(String, String, String)>,
}

/// A stored answer that this build can't read. Always a bug or a broken log.
#[derive(Debug, thiserror::Error)]
#[error("event {seq} holds an answer that can't be read: {source}")]
pub struct Unreadable {
    /// The event.
    pub seq: u64,
    /// Why.
    source: serde_json::Error,
}

impl PendingCall {
    /// The call that an effect was to run.
    #[must_use]
    pub fn of_effect(effect: &Effect) -> Option<Self> {
        match effect {
            Effect::RunTool { call_id, tool, input_json, .. } => Some(Self {
                id: call_id.clone(),
                tool: tool.clone(),
                input_json: input_json.clone(),
                result: None,
                started: true,
            }),
            _ => None,
        }
    }
}

impl Conversation {
    /// A conversation that begins with `first` in every attempt.
    #[must_use]
    pub fn new(first: String) -> Self {
        Self {
            seq: 0,
            attempt: 0,
            messages: Vec::new(),
            unsent: Vec::new(),
            calls: Vec::new(),
            turn: 0,
            last: None,
            failures: None,
            cut_answers: 0,
            empty_answers: 0,
            spent: Spent::default(),
            end: None,
            asking: false,
            repeats: 0,
            kept_turn: None,
            sent: 0,
            said: Vec::new(),
            first,
            shared: None,
            open: BTreeMap::new(),
            newest: Vec::new(),
        }
    }

    /// A conversation that begins with what another task's had come to, in every attempt.
    #[must_use]
    pub fn forked(shared: Self) -> Self {
        Self { shared: Some(Box::new(shared)), ..Self::new(String::new()) }
    }

    /// Folds one event. Events that are no business of an agent's only move `seq`.
    ///
    /// # Errors
    /// [`Unreadable`] if a stored answer can't be read.
    pub fn apply(&mut self, envelope: &Envelope) -> Result<(), Unreadable> {
        match &envelope.event {
            Event::AttemptStarted { attempt } => self.begin(*attempt),
            Event::MessageAdded { source, text } => {
                let text = labelled(*source, text);
                if *source == MessageSource::Person {
                    self.repeats = 0;
                    self.said.push(text.clone());
                }
                self.unsent.push(text);
                self.end = None;
            }
            Event::AgentEnded { end, .. } => self.end = Some(end.clone()),
            Event::EffectStarted { id, effect } => self.started(id, effect),
            Event::EffectEnded { id, result } => {
                if let Some(effect) = self.open.remove(id) {
                    self.ended(envelope, &effect, result)?;
                }
            }
            _ => {}
        }
        self.seq = envelope.seq;
        Ok(())
    }

    fn begin(&mut self, attempt: u32) {
        let (first, spent, unsent) = (self.first.clone(), self.spent, std::mem::take(&mut self.unsent));
        let said = std::mem::take(&mut self.said);
        // A new attempt is told again what people said, and that the earlier one is gone.
        let unsent = if self.attempt == 0 {
            unsent
        } else {
            let lost = "An earlier attempt was lost together with its sandbox. You start again from the beginning; what people said before follows.";
            std::iter::once(labelled(MessageSource::Platform, lost)).chain(said.iter().cloned()).collect()
        };
        let fresh = match self.shared.take() {
            None => Self { messages: vec![Message::user(first.clone())], ..Self::new(first) },
            Some(shared) => {
                let earlier =
                    Self { spent: Spent::default(), end: None, failures: None, kept_turn: None, ..(*shared).clone() };
                let unsent = earlier.unsent.iter().cloned().chain(unsent).collect();
                let kept = Self { attempt, spent, unsent, said, shared: Some(shared), ..earlier };
                *self = kept;
                return;
            }
        };
        *self = Self { attempt, spent, unsent, said, ..fresh };
    }

    fn started(&mut self, id: &EffectId, effect: &Effect) {
        match effect {
            Effect::CallModel { turn, .. } => {
                self.turn = *turn;
                self.send_texts();
                self.last = None;
            }
            Effect::RunTool { call_id, tool, .. } => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.id == *call_id) {
                    call.started = true;
                }
                self.asking = tool == crate::tools::ASK;
            }
            Effect::Snapshot { .. } => {}
            _ => return,
        }
        self.open.insert(id.clone(), effect.clone());
    }

    fn ended(&mut self, envelope: &Envelope, effect: &Effect, result: &EffectResult) -> Result<(), Unreadable> {
        match (effect, result) {
            (_, EffectResult::ModelAnswered { message_json, usage, cost_micro_usd, .. }) => {
                let message: AssistantMessage =
                    serde_json::from_str(message_json).map_err(|source| Unreadable { seq: envelope.seq, source })?;
                self.spent.turns += 1;
                let tokens = usage.as_ref().map_or(0, domain::effect::TokenUsage::total);
                self.spent.tokens = self.spent.tokens.saturating_add(tokens);
                self.spent.micro_usd = self.spent.micro_usd.saturating_add(cost_micro_usd.unwrap_or(0));
                self.answered(message);
            }
            (Effect::Snapshot { turn, .. }, EffectResult::SnapshotTaken { .. }) => self.kept_turn = Some(*turn),
            (Effect::RunTool { call_id, .. }, EffectResult::ToolReturned { text, is_error, .. }) => {
                self.returned(call_id, text, *is_error);
            }
            (Effect::RunTool { call_id, .. }, EffectResult::Failed { message, .. }) => {
                self.returned(call_id, message, true);
            }
            (Effect::CallModel { .. }, EffectResult::Failed { class, message, retry_after_ms, .. }) => {
                self.failures = Some(ModelFailures {
                    count: self.failures.as_ref().map_or(0, |failures| failures.count) + 1,
                    class: *class,
                    message: message.clone(),
                    at: envelope.at,
                    retry_after_ms: *retry_after_ms,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, message: AssistantMessage) {
        self.failures = None;
        self.cut_answers = if message.stop == model::StopReason::MaxTokens { self.cut_answers + 1 } else { 0 };
        let empty = message.calls().next().is_none() && message.text().trim().is_empty();
        self.empty_answers = if empty { self.empty_answers + 1 } else { 0 };
        self.calls = message
            .calls()
            .map(|call| PendingCall {
                id: call.id.to_owned(),
                tool: call.name.to_owned(),
                input_json: call.input.as_str().to_owned(),
                result: None,
                started: false,
            })
            .collect();
        self.messages.push(Message::Assistant(message.clone()));
        self.last = Some(message);
    }

    fn returned(&mut self, call_id: &str, text: &str, is_error: bool) {
        self.asking = false;
        if let Some(call) = self.calls.iter_mut().find(|call| call.id == call_id && call.result.is_none()) {
            call.result = Some((text.to_owned(), is_error));
        }
        if self.calls.iter().all(|call| call.result.is_some()) {
            let made = self.calls.iter().map(|call| {
                let came = call.result.as_ref().map(|(text, _)| text.clone()).unwrap_or_default();
                (call.tool.clone(), call.input_json.clone(), came)
            });
            let made: Vec<_> = made.collect();
            self.repeats = if made == self.newest { self.repeats + 1 } else { 0 };
            self.newest = made;
            let parts = std::mem::take(&mut self.calls)
                .into_iter()
                .filter_map(|call| {
                    let (content, is_error) = call.result?;
                    Some(UserPart::ToolResult { call_id: call.id, content, is_error })
                })
                .collect();
            self.messages.push(Message::User { parts });
            self.last = None;
        }
    }

    /// The messages that the next call would carry.
    #[must_use]
    pub fn next_messages(&self) -> Vec<Message> {
        let mut copy = self.messages.clone();
        push_texts(&mut copy, self.sent, &self.unsent);
        copy
    }

    fn send_texts(&mut self) {
        let texts = std::mem::take(&mut self.unsent);
        push_texts(&mut self.messages, self.sent, &texts);
        self.sent = self.messages.len();
    }
}

/// Texts go into the user message that is about to be sent. One that was sent already, also in a
/// call that failed, stays as it is: the provider may have cached it.
fn push_texts(messages: &mut Vec<Message>, sent: usize, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    let parts = texts.iter().map(|text| UserPart::Text { text: text.clone() });
    let is_new = messages.len() > sent;
    match messages.last_mut() {
        Some(Message::User { parts: existing }) if is_new => existing.extend(parts),
        _ => messages.push(Message::User { parts: parts.collect() }),
    }
}

/// The label says who speaks; text that carries labels of its own can't pass for somebody else.
fn labelled(source: MessageSource, text: &str) -> String {
    let text = text.replace("<message", "&lt;message").replace("</message", "&lt;/message");
    match source {
        MessageSource::Person => format!("<message from=\"person\">\n{text}\n</message>"),
        MessageSource::Gates => format!("<message from=\"gates\">\n{text}\n</message>"),
        MessageSource::Platform => format!("<message from=\"platform\">\n{text}\n</message>"),
    }
}
