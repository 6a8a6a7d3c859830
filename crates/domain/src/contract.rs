//! What was agreed about a task before work begins: five dimensions, a budget, a deadline, gates
//! and a deliverable.
//!
//! A contract is a promise that the engine keeps, so [`Contract::check`] refuses what this build
//! cannot enforce instead of ignoring it. Fields that a contract document does not know are an
//! error for the same reason. Absent: defaults taken from a repository; the caller merges those
//! before a contract is made.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::evidence::GateSpec;

/// The contract version that this build speaks.
pub const CONTRACT_VERSION: &str = "aac/0.1";

/// How the task came to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvocationMode {
    /// Somebody asked.
    #[default]
    Explicit,
    /// An outside happening, delivered by a trigger.
    Event,
}

/// First dimension: who or what sets the task off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Invocation {
    /// Asked for, or set off by an event.
    pub mode: InvocationMode,
    /// For events: where from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// For events: the sender's own id of the happening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
}

/// What the agent does where the goal leaves a choice that matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnAmbiguity {
    /// Decide alone and say so.
    Proceed,
    /// Ask a person and wait.
    #[default]
    Pause,
    /// Stop the task.
    Fail,
}

/// An action that needs a person's word first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRule {
    /// Pattern over actions.
    pub action: String,
    /// Who may approve.
    pub approver: String,
}

/// Second dimension: what the agent may decide alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Autonomy {
    /// What happens at an ambiguity.
    pub on_ambiguity: OnAmbiguity,
    /// Actions that wait for an approval.
    pub approvals: Vec<ApprovalRule>,
}

/// How many agents may work on the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyMode {
    /// One agent.
    #[default]
    Single,
    /// One agent that starts others.
    Orchestrated,
    /// Several agents that coordinate among themselves.
    Choreographed,
}

/// Third dimension: how much at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// One agent or several.
    pub mode: ConcurrencyMode,
    /// Most agents at work at any moment.
    pub max_parallel: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { mode: ConcurrencyMode::Single, max_parallel: 1 }
    }
}

/// How much of the work is shown while it happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObservabilityLevel {
    /// Only the outcome.
    None,
    /// State changes.
    Lifecycle,
    /// Every step, with its tokens as they come.
    #[default]
    Full,
}

/// Fourth dimension: what can be watched, and where the work stops to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Observability {
    /// How much is shown.
    pub level: ObservabilityLevel,
    /// Steps at which the task waits for a person.
    pub breakpoints: Vec<String>,
}

/// How open one side of the box is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Openness {
    /// Only what the environment needs.
    #[default]
    Restricted,
    /// Everything.
    Full,
}

/// Fifth dimension: what the box lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Isolation {
    /// Files outside the work tree.
    pub fs: Openness,
    /// The network.
    pub net: Openness,
    /// Credentials.
    pub creds: Openness,
    /// Kernel interfaces.
    pub kernel: Openness,
    /// Hosts that may be reached although `net` is restricted.
    pub allow_hosts: Vec<String>,
}

/// What a task may use up. Each limit is checked before each call, so it is passed by at most one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// Money for model calls, in millionths of a US dollar.
    pub money_micro_usd: Option<u64>,
    /// Tokens of all classes together.
    pub tokens: Option<u64>,
    /// Model calls.
    pub turns: u32,
    /// Time since the task was accepted, less the time it waited for people.
    pub wall_ms: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { money_micro_usd: Some(5_000_000), tokens: Some(5_000_000), turns: 100, wall_ms: 4 * 60 * 60 * 1000 }
    }
}

/// What the task hands over when it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deliverable {
    /// A change that is proposed, and landed when the policy's conditions are met.
    #[default]
    Change,
    /// A proved branch in the origin; nothing is landed.
    Branch,
}

/// The whole agreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Contract {
    /// Version, [`CONTRACT_VERSION`].
    pub contract: String,
    /// Who or what sets the task off.
    pub invocation: Invocation,
    /// What the agent may decide alone.
    pub autonomy: Autonomy,
    /// How much at once.
    pub concurrency: Concurrency,
    /// What can be watched.
    pub observability: Observability,
    /// What the box lets through.
    pub isolation: Isolation,
    /// What may be used up.
    pub budget: Budget,
    /// When the task ends, done or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// What is handed over.
    pub deliverable: Deliverable,
    /// Gates beside those of the repository.
    pub gates: Vec<GateSpec>,
    /// How many times failed gates go back to the agent before the task ends as stuck.
    pub gate_rounds: u32,
}

impl Default for Contract {
    fn default() -> Self {
        Self {
            contract: CONTRACT_VERSION.to_owned(),
            invocation: Invocation::default(),
            autonomy: Autonomy::default(),
            concurrency: Concurrency::default(),
            observability: Observability::default(),
            isolation: Isolation::default(),
            budget: Budget::default(),
            deadline: None,
            deliverable: Deliverable::default(),
            gates: Vec::new(),
            gate_rounds: 3,
        }
    }
}

/// Why a contract is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// The document is of another major version, or of none.
    #[error(
        "contract version `{given}` is not spoken here: this server speaks `{CONTRACT_VERSION}`; set `contract` to that or leave it out"
    )]
    Version {
        /// What the document says.
        given: String,
    },
    /// A field asks for something that this build does not enforce, and a promise not kept is worse than none.
    #[error("the contract asks for `{field} = {value}`, which this server cannot enforce: {instead}")]
    NotEnforced {
        /// The field's path.
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What to do.
        instead: &'static str,
    },
    /// A value that makes no sense.
    #[error("the contract's `{field}` is wrong: {why}")]
    Invalid {
        /// The field's path.
        field: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
}

impl Contract {
    /// Checks version, sense and that everything asked for is enforced by this build.
    ///
    /// # Errors
    /// The first thing found wrong, with what to write instead.
    pub fn check(&self) -> Result<(), ContractError> {
        let (major, minor) = self.contract.split_once('.').unwrap_or((self.contract.as_str(), ""));
        if major != "aac/0" || minor.is_empty() || !minor.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ContractError::Version { given: self.contract.clone() });
        }
        let not = |field, value: String, instead| Err(ContractError::NotEnforced { field, value, instead });
        if self.invocation.source.is_some() || self.invocation.event_id.is_some() {
            return not("invocation.source", "set".into(), "leave source and event_id out; they belong to events");
        }
        if self.observability.level != ObservabilityLevel::Full {
            let level = format!("{:?}", self.observability.level).to_lowercase();
            return not("observability.level", level, "every step is recorded and shown; use `full`");
        }
        if self.invocation.mode == InvocationMode::Event {
            return not("invocation.mode", "event".into(), "triggers are not part of this version; use `explicit`");
        }
        if !self.autonomy.approvals.is_empty() {
            return not(
                "autonomy.approvals",
                format!("{} rules", self.autonomy.approvals.len()),
                "leave it empty; every change already waits for a person before it lands",
            );
        }
        if self.concurrency.mode != ConcurrencyMode::Single || self.concurrency.max_parallel != 1 {
            return not(
                "concurrency",
                format!("{:?}, max_parallel {}", self.concurrency.mode, self.concurrency.max_parallel).to_lowercase(),
                "use mode `single` with max_parallel 1",
            );
        }
        if !self.observability.breakpoints.is_empty() {
            return not("observability.breakpoints", self.observability.breakpoints.join(", "), "leave it empty");
        }
        for (field, side) in [
            ("isolation.fs", self.isolation.fs),
            ("isolation.net", self.isolation.net),
            ("isolation.creds", self.isolation.creds),
            ("isolation.kernel", self.isolation.kernel),
        ] {
            if side == Openness::Full {
                return not(field, "full".into(), "boxes are always restricted; leave it out");
            }
        }
        if !self.isolation.allow_hosts.is_empty() {
            return not(
                "isolation.allow_hosts",
                self.isolation.allow_hosts.join(", "),
                "boxes have no network; leave it empty",
            );
        }
        let budget = &self.budget;
        if budget.turns == 0 || budget.wall_ms == 0 || budget.tokens == Some(0) || budget.money_micro_usd == Some(0) {
            let why = "each limit must be at least 1; leave tokens or money_micro_usd out for no limit of that kind";
            return Err(ContractError::Invalid { field: "budget", why: why.into() });
        }
        let mut names: Vec<&str> = Vec::new();
        for gate in &self.gates {
            gate.check().map_err(|why| ContractError::Invalid { field: "gates", why })?;
            if names.contains(&gate.name.as_str()) {
                return Err(ContractError::Invalid {
                    field: "gates",
                    why: format!("two gates are called `{}`; give each its own name", gate.name),
                });
            }
            names.push(&gate.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_contract_is_one_that_is_enforced() {
        assert_eq!(Contract::default().check(), Ok(()));
    }

    #[test]
    fn another_major_version_is_refused_and_the_message_names_ours() {
        for version in ["aac/1.0", "aac/0", "", "aac/0.x"] {
            let contract = Contract { contract: version.to_owned(), ..Contract::default() };
            let error = contract.check().unwrap_err().to_string();
            assert!(error.contains("aac/0.1"), "{error}");
        }
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_it() {
        let error = serde_json::from_str::<Contract>(r#"{"contract":"aac/0.1","autonmy":{}}"#).unwrap_err();
        assert!(error.to_string().contains("autonmy"), "{error}");
    }

    #[test]
    fn what_cannot_be_enforced_is_refused_by_name() {
        let mut contract = Contract::default();
        contract.isolation.net = Openness::Full;
        assert!(contract.check().unwrap_err().to_string().contains("isolation.net"));
    }
}
