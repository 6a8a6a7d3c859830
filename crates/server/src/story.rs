//! Reports that are read from a task's events: its evidence, and why it landed or did not. Pure.
//!
//! A [`Story`] takes the events one by one and keeps only what the reports need, so a long log
//! costs little memory. Absent: opinions. What evidence amounts to and what is allowed was decided
//! by `gates` and `policy` at the time, and is read here from what they recorded.

use domain::effect::{Effect, EffectResult};
use domain::event::{Envelope, Event};
use domain::id::{CommitSha, Digest, EffectId};
use domain::task::{Task, Tier, WaitKind};

use crate::api::{
    ApprovalRecord, Asked, DecisionRecord, DenialRecord, EvidenceBody, EvidenceLine, EvidenceRecord, GateStanding,
    GateStatus, JudgementRecord, LandRequestRecord, LandingRecord, OutcomeRecord, WhyBody,
};

/// What the reports need of a task's log.
#[derive(Debug, Default)]
pub(crate) struct Story {
    asked: Option<Asked>,
    evidence: Vec<EvidenceRecord>,
    judgements: Vec<JudgementRecord>,
    decisions: Vec<DecisionRecord>,
    approvals: Vec<ApprovalRecord>,
    land_requests: Vec<LandRequestRecord>,
    denials: Vec<DenialRecord>,
    landings: Vec<(EffectId, LandingRecord)>,
    outcome: Option<OutcomeRecord>,
}

impl Story {
    /// Takes the next event.
    pub(crate) fn take(&mut self, envelope: &Envelope) {
        let (seq, at, by) = (envelope.seq, envelope.at, || envelope.actor.clone());
        match &envelope.event {
            Event::TaskSubmitted { spec, .. } => {
                self.asked = Some(Asked {
                    seq,
                    at,
                    by: by(),
                    goal: spec.goal.clone(),
                    origin: spec.repo.origin.clone(),
                    base_branch: spec.repo.base_branch.clone(),
                    base: spec.repo.base.clone(),
                });
            }
            Event::EffectStarted { id, effect: Effect::Land { commit, branch, expected_base, .. } } => {
                let landing = LandingRecord {
                    seq,
                    at,
                    branch: branch.clone(),
                    commit: commit.clone(),
                    expected_base: expected_base.clone(),
                    ended_seq: None,
                    landed: false,
                    error: None,
                };
                self.landings.push((id.clone(), landing));
            }
            Event::EffectEnded { id, result } => self.effect_ended(seq, id, result),
            Event::GatesJudged { judgement } => {
                self.judgements.push(JudgementRecord { seq, at, current: false, judgement: judgement.clone() });
            }
            Event::Decided { decision } => {
                self.decisions.push(DecisionRecord { seq, at, current: false, decision: decision.clone() });
            }
            Event::Approved { head, comment } => {
                let (head, comment) = (head.clone(), comment.clone());
                self.approvals.push(ApprovalRecord { seq, at, by: by(), head, current: false, comment });
            }
            Event::LandRequested { head, .. } => {
                self.land_requests.push(LandRequestRecord { seq, at, by: by(), head: head.clone() });
            }
            Event::Denied { action, rule, reason } => {
                let (action, rule, reason) = (action.clone(), rule.clone(), reason.clone());
                self.denials.push(DenialRecord { seq, at, by: by(), action, rule, reason });
            }
            Event::TaskEnded { state, outcome } => {
                self.outcome = Some(OutcomeRecord { seq, at, by: by(), state: *state, outcome: outcome.clone() });
            }
            Event::EgressReported { requests, .. } => {
                for request in requests {
                    let Some(denied) = &request.denied else { continue };
                    let action = format!("reach {} {}:{}{}", request.method, request.host, request.port, request.path);
                    let (rule, reason) = ("egress".to_owned(), denied.clone());
                    self.denials.push(DenialRecord { seq, at: request.at, by: by(), action, rule, reason });
                }
            }
            Event::Noted { .. }
            | Event::EnvironmentChosen { .. }
            | Event::GatesChosen { .. }
            | Event::AttemptStarted { .. }
            | Event::EffectStarted { .. }
            | Event::AgentEnded { .. }
            | Event::MessageAdded { .. }
            | Event::WaitStarted { .. }
            | Event::WaitEnded { .. }
            | Event::CancelRequested { .. } => {}
        }
    }

    fn effect_ended(&mut self, seq: u64, id: &EffectId, result: &EffectResult) {
        if let EffectResult::GateRan { evidence } = result {
            self.evidence.push(EvidenceRecord { seq, digest: evidence.digest(), evidence: (**evidence).clone() });
        }
        if let Some((_, landing)) = self.landings.iter_mut().find(|(landing, _)| landing == id) {
            landing.ended_seq = Some(seq);
            landing.landed = matches!(result, EffectResult::Landed { .. });
            if let EffectResult::Failed { message, .. } = result {
                landing.error = Some(message.clone());
            }
        }
    }

    /// What is proved about the task's change.
    pub(crate) fn evidence(self, task: &Task) -> EvidenceBody {
        let mut earlier = self.evidence;
        let commit = task.proposed().or(task.landed.as_ref()).cloned();
        let gates = task.gates.iter().flatten().map(|gate| {
            let newest = commit.as_ref().and_then(|commit| {
                earlier.iter().rposition(|r| r.evidence.commit == *commit && r.evidence.gate == *gate)
            });
            let record = newest.map(|place| earlier.remove(place));
            let status = match &record {
                None => GateStatus::Missing,
                Some(record) if record.evidence.passed => GateStatus::Passed,
                Some(_) => GateStatus::Failed,
            };
            GateStanding { gate: gate.clone(), status, record }
        });
        let gates = gates.collect();
        EvidenceBody {
            task: task.id.clone(),
            state: task.state,
            commit,
            gates,
            earlier,
            judgement: task.judgement.clone(),
            decision: task.decision.clone(),
        }
    }

    /// Why the task's change landed, or why it has not. Nothing without the event that began the log.
    pub(crate) fn why(self, task: &Task) -> Option<WhyBody> {
        let commit = task.proposed().or(task.landed.as_ref());
        let head = task.change.as_ref().map(|change| &change.head);
        let is_current = |given: &CommitSha| commit == Some(given);
        let mut body = WhyBody {
            task: task.id.clone(),
            seq: task.seq,
            state: task.state,
            summary: String::new(),
            landed: task.landed.clone(),
            missing: missing(task),
            asked: self.asked?,
            change: task.change.clone(),
            evidence: self.evidence.into_iter().map(|record| line(record, &is_current)).collect(),
            judgements: self.judgements,
            decisions: self.decisions,
            approvals: self.approvals,
            land_requests: self.land_requests,
            denials: self.denials,
            landings: self.landings.into_iter().map(|(_, landing)| landing).collect(),
            outcome: self.outcome,
        };
        body.judgements.iter_mut().for_each(|r| r.current = is_current(&r.judgement.commit));
        body.decisions.iter_mut().for_each(|r| r.current = is_current(&r.decision.commit));
        body.approvals.iter_mut().for_each(|r| r.current = head == Some(&r.head));
        body.summary = summary(task, &body);
        Some(body)
    }
}

fn line(record: EvidenceRecord, is_current: &impl Fn(&CommitSha) -> bool) -> EvidenceLine {
    let EvidenceRecord { seq, digest, evidence } = record;
    EvidenceLine {
        seq,
        at: evidence.at,
        gate: evidence.gate.name,
        required: evidence.gate.required,
        current: is_current(&evidence.commit),
        commit: evidence.commit,
        end: evidence.end,
        passed: evidence.passed,
        digest,
        output_digest: evidence.output_digest,
    }
}

/// What still stands between a task and its landing, nearest first.
fn missing(task: &Task) -> Vec<String> {
    if task.state.is_terminal() || task.landed.is_some() {
        return Vec::new();
    }
    let mut missing = Vec::new();
    if let Some(wait) = &task.wait
        && wait.kind != WaitKind::Review
    {
        missing.push(format!("{} ({}): {}", wait.kind.name(), wait.owner, wait.reason));
    }
    let Some(change) = &task.change else {
        missing.push("a change: the agent has not proposed one yet".to_owned());
        return missing;
    };
    match &task.judgement {
        None => {
            let open = task.gates.iter().flatten().filter(|g| task.evidence_for(g, &change.commit).is_none());
            let names: Vec<&str> = open.map(|gate| gate.name.as_str()).collect();
            missing.push(format!("evidence for {}: {}", change.commit.short(), names.join(", ")));
        }
        Some(judgement) if !judgement.passed => {
            missing.push(format!("gates that pass: {} did not", judgement.failed.join(", ")));
        }
        Some(_) => {}
    }
    match &task.decision {
        None => missing.push("a decision of the policy".to_owned()),
        Some(decision) if decision.tier == Tier::Forbidden => {
            missing.push(format!("a policy that allows it: {} says {}", decision.rule, decision.reason));
        }
        Some(_) => {}
    }
    if !task.is_approved() {
        missing.push(format!("a person's approval of {}", change.head.short()));
    }
    if task.land_request.is_none() {
        missing.push("a person who lands it".to_owned());
    }
    missing
}

/// The story in one sentence.
fn summary(task: &Task, why: &WhyBody) -> String {
    if let Some(landed) = &task.landed {
        let passed = why.evidence.iter().filter(|e| e.current && e.passed).count();
        let rule = why.decisions.iter().rfind(|d| d.current);
        let rule =
            rule.map_or_else(String::new, |d| format!(", rule {} ({})", d.decision.rule, d.decision.tier.name()));
        let mut by: Vec<&str> = Vec::new();
        for approval in why.approvals.iter().filter(|a| a.current) {
            let name = approval.by.name.as_str();
            if !by.contains(&name) {
                by.push(name);
            }
        }
        let approved = if by.is_empty() { String::new() } else { format!(", approved by {}", by.join(", ")) };
        let gates = if passed == 1 { "gate" } else { "gates" };
        return format!(
            "landed {} on {}: {passed} {gates} passed{rule}{approved}",
            landed.short(),
            why.asked.base_branch
        );
    }
    match &task.outcome {
        Some(outcome) => {
            format!("nothing landed: {}, because of {}: {}", task.state.name(), outcome.reason.name(), outcome.message)
        }
        None => format!("not landed yet; it still needs {}", why.missing.join("; ")),
    }
}

/// Whether an event names a blob by this digest. Text that an agent wrote is not looked at: it
/// could name any digest.
pub(crate) fn names_blob(envelope: &Envelope, digest: &Digest) -> bool {
    match &envelope.event {
        Event::EffectEnded { result, .. } => match result {
            EffectResult::ToolReturned { output_digest, .. } => output_digest.as_ref() == Some(digest),
            EffectResult::CommandEnded { output_digest, .. } => output_digest == digest,
            EffectResult::GateRan { evidence } => evidence.output_digest == *digest,
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
