//! An effect's failure on its way into the log: what can be done, whose fault it is, what to tell.
//!
//! Absent: the sources themselves; a stored event holds a sentence, not a Rust error.

use agent::port::JournalError;
use domain::effect::{EffectResult, FailureClass, FailureSource};

/// Why an effect failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: FailureClass,
    pub(crate) source: FailureSource,
    pub(crate) message: String,
    /// What the agent is to be told, if its work begins anew because of this.
    pub(crate) tell_agent: Option<String>,
}

impl Failure {
    /// A failure that tells the agent nothing.
    pub(crate) fn new(class: FailureClass, source: FailureSource, message: impl Into<String>) -> Self {
        Self { class, source, message: message.into(), tell_agent: None }
    }

    /// The platform's fault, worth another try.
    pub(crate) fn infra(message: impl Into<String>) -> Self {
        Self::new(FailureClass::Retry, FailureSource::Infra, message)
    }

    /// The journal takes no more: the task has ended, or the store failed.
    pub(crate) fn journal(error: JournalError) -> Self {
        Self::infra(error.to_string())
    }

    /// As the result of the effect.
    pub(crate) fn result(&self) -> EffectResult {
        EffectResult::Failed {
            class: self.class,
            source: self.source,
            message: self.message.clone(),
            retry_after_ms: None,
        }
    }
}
