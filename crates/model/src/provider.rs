//! The port: a provider turns a request into a stream of events that ends in one answer.
//!
//! A call exists only in the finished answer: what streams before it is for watching. Dropping
//! the stream cancels the call. Absent: retries, which the caller makes with
//! [`crate::retry_delay`], and any state of a conversation.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, ModelError};
use crate::transcript::{AssistantMessage, Request, Wire};
use crate::usage::{Price, Usage};

/// A stream that ends after its first error or after [`StreamEvent::Finished`].
pub type EventStream = BoxStream<'static, Result<StreamEvent, ModelError>>;

/// A model provider. One value serves many calls at once.
pub trait Provider: Send + Sync {
    /// A stable name. Raw blocks go back only to a provider of the same name and wire.
    fn name(&self) -> &str;

    /// The wire that it speaks.
    fn wire(&self) -> Wire;

    /// What `model` costs here; `None` if that is not known.
    fn price(&self, model: &str) -> Option<Price>;

    /// Starts a call when the stream is first polled. Contract: yields any number of events, then
    /// exactly one `Finished` or one error, and nothing after it.
    fn stream(&self, request: &Request) -> EventStream;
}

impl StreamEvent {
    /// The event that a provider begins with.
    pub(crate) fn started(model: impl Into<String>) -> Self {
        Self::Started { model: model.into(), passed_over: Vec::new() }
    }
}

impl<P: Provider + ?Sized> Provider for Arc<P> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn wire(&self) -> Wire {
        (**self).wire()
    }
    fn price(&self, model: &str) -> Option<Price> {
        (**self).price(model)
    }
    fn stream(&self, request: &Request) -> EventStream {
        (**self).stream(request)
    }
}

/// What happens during a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// A provider has begun to answer. It comes again if that one then fails before it said
    /// anything and a list of models ([`crate::Fallback`]) goes on to the next.
    Started {
        /// The model as the provider names it; empty if it does not say.
        model: String,
        /// The models of a list that were to answer and could not begin, in the order of the list.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        passed_over: Vec<PassedOver>,
    },
    /// More text.
    TextDelta {
        /// The new part.
        text: String,
    },
    /// More visible reasoning.
    ThinkingDelta {
        /// The new part.
        text: String,
    },
    /// A tool call begins. It is not a call yet: only the finished answer holds calls.
    ToolCallStarted {
        /// Which block, for the deltas that follow.
        index: u32,
        /// The provider's id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// More input of a tool call: a piece of JSON text.
    ToolInputDelta {
        /// Which block.
        index: u32,
        /// The new part.
        fragment: String,
    },
    /// The whole answer. The last event.
    Finished(Box<Answer>),
}

/// A model of a list that could not begin to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The provider's name.
    pub provider: String,
    /// The model that was asked there.
    pub model: String,
    /// Why it did not answer.
    pub error: ModelError,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What the model said.
    pub message: AssistantMessage,
    /// The model that answered, as the provider names it; empty if it does not say.
    pub answered_by: String,
    /// What it used.
    pub usage: Usage,
    /// What it cost in micro-dollars; `None` if the price or the usage is not known.
    pub cost_micro_usd: Option<u64>,
    /// The provider's id of the call, for its support.
    pub request_id: Option<String>,
}

/// Reads a stream to its end and gives the answer.
///
/// # Errors
/// The stream's error, or [`ErrorKind::Broken`] if it ends without an answer.
pub async fn complete(mut stream: EventStream) -> Result<Answer, ModelError> {
    while let Some(event) = stream.next().await {
        if let StreamEvent::Finished(answer) = event? {
            return Ok(*answer);
        }
    }
    Err(ModelError::new(ErrorKind::Broken, "model", "the stream ended without an answer"))
}
