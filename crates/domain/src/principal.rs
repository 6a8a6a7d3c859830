//! Who acts. Every command and every event names one; there is no anonymous act.
//!
//! Absent: sign-in. How a caller proves to be a principal is the server's business.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of actor a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A human being.
    Person,
    /// A model-driven or scripted worker, acting for whoever asked for the task.
    Agent,
    /// An outside happening that was let in by a rule.
    Trigger,
    /// The engine itself: it measures, times out, cleans up. It never approves.
    Platform,
}

/// An actor, and for whom it acts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Principal {
    /// What kind of actor.
    pub kind: PrincipalKind,
    /// Its name, unique within the kind.
    pub name: String,
    /// The person at the root of the lineage, when that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

impl Principal {
    /// A person.
    #[must_use]
    pub fn person(name: impl Into<String>) -> Self {
        Self { kind: PrincipalKind::Person, name: name.into(), on_behalf_of: None }
    }
    /// The engine.
    #[must_use]
    pub fn platform() -> Self {
        Self { kind: PrincipalKind::Platform, name: "chargehand".to_owned(), on_behalf_of: None }
    }
    /// An agent that works for `requester`.
    #[must_use]
    pub fn agent(name: impl Into<String>, requester: &Principal) -> Self {
        Self {
            kind: PrincipalKind::Agent,
            name: name.into(),
            on_behalf_of: Some(requester.on_behalf_of.clone().unwrap_or_else(|| requester.name.clone())),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PrincipalKind::Person => "person",
            PrincipalKind::Agent => "agent",
            PrincipalKind::Trigger => "trigger",
            PrincipalKind::Platform => "platform",
        };
        write!(f, "{kind}:{}", self.name)
    }
}
