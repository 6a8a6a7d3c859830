//! May this principal do this here? Gives out permits that effects demand.
//!
//! First form: one built-in rule set, `cautious`. Every change needs a person: its tier is
//! `by_human`, and it lands only after a person approved exactly the commit that the agent made,
//! with passing evidence for exactly the commit that lands. A principal that is no person never
//! approves and never lands.
//!
//! ```text
//! facts ─decide→ Decision (tier, rule, digests) ─ + approvals + evidence ─permit→ LandPermit ─→ forge::land
//! ```
//!
//! [`LandPermit`] has no public constructor: whoever holds one got it from [`permit`]. Pure: no
//! I/O and no clock. Absent: rules written by the user; those come with the policy language.

use domain::evidence::{Evidence, GateSpec};
use domain::id::{CommitSha, Digest, TaskId};
use domain::principal::{Principal, PrincipalKind};
use domain::task::{Approval, Decision, Judgement, Task, Tier};
use serde::Serialize;

/// The text of the built-in rules: what a decision's policy digest is taken over.
pub const CAUTIOUS: &str = "\
cautious/1
tier by_human: every change, when all required gates passed on the proposed commit
tier forbidden: a change whose required gates did not pass
land: by a person, after a person's approval of the agent's commit, with passing evidence for the landed commit
";

/// What a decision is made from.
#[derive(Debug, Clone, Serialize)]
pub struct ChangeFacts<'a> {
    /// The commit that would land.
    pub commit: &'a CommitSha,
    /// What its evidence amounts to.
    pub judgement: &'a Judgement,
    /// The evidence itself.
    pub evidence: Vec<&'a Evidence>,
}

/// Sorts a change into its tier.
#[must_use]
pub fn decide(facts: &ChangeFacts<'_>) -> Decision {
    let proved = facts.judgement.passed && facts.judgement.commit == *facts.commit;
    let (tier, rule, reason) = if proved {
        (Tier::ByHuman, "cautious.by_human", "every change needs a person".to_owned())
    } else {
        (
            Tier::Forbidden,
            "cautious.unproved",
            format!("required gates did not pass: {}", facts.judgement.failed.join(", ")),
        )
    };
    Decision {
        tier,
        rule: rule.to_owned(),
        reason,
        policy_digest: Digest::of(CAUTIOUS.as_bytes()),
        commit: facts.commit.clone(),
        evidence_digests: facts.evidence.iter().map(|evidence| evidence.digest()).collect(),
    }
}

/// The right to move one branch from one commit to another, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandPermit {
    task: TaskId,
    commit: CommitSha,
    branch: String,
    expected_base: CommitSha,
    policy_digest: Digest,
    evidence_digests: Vec<Digest>,
}

impl LandPermit {
    /// The task whose change it is.
    #[must_use]
    pub fn task(&self) -> &TaskId {
        &self.task
    }
    /// The commit that may land.
    #[must_use]
    pub fn commit(&self) -> &CommitSha {
        &self.commit
    }
    /// The branch that may move.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.branch
    }
    /// Where that branch must stand.
    #[must_use]
    pub fn expected_base(&self) -> &CommitSha {
        &self.expected_base
    }
    /// The policy that allowed it.
    #[must_use]
    pub fn policy_digest(&self) -> &Digest {
        &self.policy_digest
    }
    /// The evidence that it rests on.
    #[must_use]
    pub fn evidence_digests(&self) -> &[Digest] {
        &self.evidence_digests
    }
}

/// Why nothing may land. Recorded as an event, like every denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody asked, or no person.
    #[error("{who} may not land a change: only a person can")]
    NotAPerson {
        /// Who asked.
        who: String,
    },
    /// There is no change, or nothing was decided about it.
    #[error("there is no decision about the proposed commit")]
    Undecided,
    /// The tier does not allow it.
    #[error("the policy forbids this change: {reason}")]
    Forbidden {
        /// Why.
        reason: String,
    },
    /// A gate has no passing evidence for this very commit.
    #[error("gate `{gate}` has no passing evidence for {commit}")]
    Unproved {
        /// Which gate.
        gate: String,
        /// Which commit.
        commit: String,
    },
    /// No person approved the agent's commit.
    #[error("no person approved {head}")]
    NotApproved {
        /// Which commit.
        head: String,
    },
}

impl Denied {
    /// The rule's name.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NotAPerson { .. } => "cautious.land.person",
            Self::Undecided => "cautious.land.decision",
            Self::Forbidden { .. } => "cautious.land.tier",
            Self::Unproved { .. } => "cautious.land.evidence",
            Self::NotApproved { .. } => "cautious.land.approval",
        }
    }
}

/// Gives the permit to land the proposed change of a task, or says what is missing.
///
/// Looks at the task's recorded evidence again instead of trusting the decision alone.
///
/// # Errors
/// [`Denied`], to be recorded as an event.
pub fn permit(task: &Task, who: &Principal) -> Result<LandPermit, Denied> {
    if who.kind != PrincipalKind::Person {
        return Err(Denied::NotAPerson { who: who.to_string() });
    }
    let (Some(change), Some(decision)) = (&task.change, &task.decision) else {
        return Err(Denied::Undecided);
    };
    if decision.commit != change.commit {
        return Err(Denied::Undecided);
    }
    if decision.tier == Tier::Forbidden {
        return Err(Denied::Forbidden { reason: decision.reason.clone() });
    }
    let evidence_digests = proof(task, task.gates.as_deref().unwrap_or_default(), &change.commit)?;
    if !task.approvals.iter().any(|approval| counts(approval, &change.head)) {
        return Err(Denied::NotApproved { head: change.head.short().to_owned() });
    }
    Ok(LandPermit {
        task: task.id.clone(),
        commit: change.commit.clone(),
        branch: task.spec.repo.base_branch.clone(),
        expected_base: change.onto.clone(),
        policy_digest: decision.policy_digest.clone(),
        evidence_digests,
    })
}

/// Only a person's approval of exactly the agent's commit counts.
fn counts(approval: &Approval, head: &CommitSha) -> bool {
    approval.by.kind == PrincipalKind::Person && approval.head == *head
}

fn proof(task: &Task, gates: &[GateSpec], commit: &CommitSha) -> Result<Vec<Digest>, Denied> {
    let mut digests = Vec::with_capacity(gates.len());
    for gate in gates {
        match task.evidence_for(gate, commit) {
            Some(evidence) if evidence.passed && evidence.end.succeeded() && evidence.gate_digest == gate.digest() => {
                digests.push(evidence.digest());
            }
            _ if !gate.required => {}
            _ => return Err(Denied::Unproved { gate: gate.name.clone(), commit: commit.short().to_owned() }),
        }
    }
    Ok(digests)
}
