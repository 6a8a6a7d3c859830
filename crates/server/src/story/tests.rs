//! Stories read from whole logs, each folded as the engine would.

use domain::effect::{FailureClass, FailureSource};
use domain::event::MessageSource;
use domain::evidence::{CommandEnd, Evidence, GateSpec};
use domain::id::{EffectId, SandboxId};
use domain::principal::Principal;
use domain::task::{AgentEnd, Decision, Judgement, Outcome, OutcomeReason, TaskState, Wait};
use jiff::Timestamp;

use super::*;
use crate::fixture::{Log, sha};

fn gate(name: &str) -> GateSpec {
    let command = vec!["cargo".to_owned(), name.to_owned()];
    GateSpec { name: name.to_owned(), command, required: true, time_limit_ms: 1000, source: String::new() }
}

fn evidence(gate: &GateSpec, commit: CommitSha, code: i32) -> Evidence {
    Evidence {
        gate_digest: gate.digest(),
        gate: gate.clone(),
        commit,
        end: CommandEnd::Exited { code },
        passed: code == 0,
        duration_ms: 5,
        output_digest: Digest::of(format!("{} {code}", gate.name).as_bytes()),
        output_bytes: 6,
        output_tail: "ok".to_owned(),
        sandbox: SandboxId::parse("box").unwrap(),
        at: Timestamp::UNIX_EPOCH,
    }
}

/// One log, told in the words of what happened.
struct Teller(Log);

impl Teller {
    async fn begin() -> Self {
        let mut log = Log::begin(&store::memory::open(), 1).await;
        let gates = vec![gate("test"), gate("lint")];
        log.add(vec![Event::GatesChosen { gates, config_digest: None }, Event::AttemptStarted { attempt: 1 }]).await;
        Self(log)
    }

    async fn effect(&mut self, effect: Effect, result: EffectResult) {
        let id = EffectId::parse(&format!("e{}", self.0.task.seq + 1)).unwrap();
        self.0.add(vec![Event::EffectStarted { id: id.clone(), effect }, Event::EffectEnded { id, result }]).await;
    }

    async fn collected(&mut self, commit: CommitSha) {
        let end = AgentEnd::Finished { summary: "done".to_owned() };
        self.0.add(vec![Event::AgentEnded { attempt: 1, end }]).await;
        let result = EffectResult::Collected { commit: Some(commit), notes: Vec::new() };
        self.effect(Effect::Collect { attempt: 1, round: 0 }, result).await;
    }

    async fn gate_ran(&mut self, name: &str, commit: CommitSha, code: i32) -> Evidence {
        let gate = gate(name);
        let record = evidence(&gate, commit.clone(), code);
        let result = EffectResult::GateRan { evidence: Box::new(record.clone()) };
        self.effect(Effect::RunGate { gate, commit }, result).await;
        record
    }

    async fn judged(&mut self, commit: CommitSha, failed: &[&str]) {
        let failed: Vec<String> = failed.iter().map(|name| (*name).to_owned()).collect();
        let judgement = Judgement { commit, passed: failed.is_empty(), failed, feedback: String::new() };
        self.0.add(vec![Event::GatesJudged { judgement }]).await;
    }

    async fn decided(&mut self, commit: CommitSha, evidence_digests: Vec<Digest>) {
        let decision = Decision {
            tier: Tier::ByHuman,
            rule: "cautious.by_human".to_owned(),
            reason: "every change needs a person".to_owned(),
            policy_digest: Digest::of(b"policy"),
            commit,
            evidence_digests,
        };
        let wait = Wait {
            kind: WaitKind::Review,
            owner: "a person".to_owned(),
            reason: "look at it".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::MAX,
            effect: None,
        };
        self.0.add(vec![Event::Decided { decision }, Event::WaitStarted { wait }]).await;
    }

    async fn approved(&mut self, head: CommitSha) {
        self.0.add_by(&Principal::person("bob"), vec![Event::Approved { head, comment: "fine".to_owned() }]).await;
    }

    fn story(&self) -> Story {
        let mut story = Story::default();
        self.0.envelopes.iter().for_each(|envelope| story.take(envelope));
        story
    }

    fn why(&self) -> WhyBody {
        self.story().why(&self.0.task).unwrap()
    }
}

/// A change that is proved and waits for a person.
async fn reviewable() -> (Teller, Vec<Digest>) {
    let mut teller = Teller::begin().await;
    teller.collected(sha('a')).await;
    let digests =
        vec![teller.gate_ran("test", sha('a'), 0).await.digest(), teller.gate_ran("lint", sha('a'), 0).await.digest()];
    teller.judged(sha('a'), &[]).await;
    teller.decided(sha('a'), digests.clone()).await;
    (teller, digests)
}

async fn land(teller: &mut Teller, result: EffectResult) {
    let head = sha('a');
    teller.0.add_by(&Principal::person("ada"), vec![Event::LandRequested { head, update_worktree: false }]).await;
    let effect =
        Effect::Land { commit: sha('a'), branch: "main".to_owned(), expected_base: sha('0'), update_worktree: false };
    teller.effect(effect, result).await;
}

#[tokio::test]
async fn the_why_of_a_landing_names_who_asked_what_was_proved_which_rule_and_who_approved() {
    let (mut teller, digests) = reviewable().await;
    teller.approved(sha('a')).await;
    let result = EffectResult::Landed { commit: sha('a'), previous: sha('0'), worktree_updated: false };
    land(&mut teller, result).await;
    let outcome = Outcome { reason: OutcomeReason::Done, message: "landed".to_owned() };
    teller.0.add(vec![Event::TaskEnded { state: TaskState::Completed, outcome }]).await;
    let why = teller.why();
    assert_eq!(why.asked.by, Principal::person("ada"));
    assert_eq!(why.landed, Some(sha('a')));
    assert!(why.missing.is_empty(), "{:?}", why.missing);
    assert_eq!(why.decisions[0].decision.evidence_digests, digests);
    let proved: Vec<Digest> = why.evidence.iter().map(|line| line.digest.clone()).collect();
    assert_eq!(proved, digests);
    assert!(why.approvals[0].current && why.approvals[0].by == Principal::person("bob"));
    assert!(why.landings[0].landed && why.landings[0].error.is_none());
    for part in ["aaaaaaaaaa", "main", "2 gates passed", "cautious.by_human", "bob"] {
        assert!(why.summary.contains(part), "`{part}` is not in: {}", why.summary);
    }
}

#[tokio::test]
async fn a_person_who_approved_twice_is_named_once_and_one_gate_is_one_gate() {
    let (mut teller, _) = reviewable().await;
    teller.approved(sha('a')).await;
    teller.approved(sha('a')).await;
    let result = EffectResult::Landed { commit: sha('a'), previous: sha('0'), worktree_updated: false };
    land(&mut teller, result).await;
    assert!(teller.why().summary.ends_with("approved by bob"), "{}", teller.why().summary);
    let mut why = teller.why();
    why.evidence.truncate(1);
    assert!(summary(&teller.0.task, &why).contains(": 1 gate passed"), "{}", summary(&teller.0.task, &why));
}

#[tokio::test]
async fn every_record_of_the_why_can_be_looked_up_by_its_event() {
    let (mut teller, _) = reviewable().await;
    teller.approved(sha('a')).await;
    let why = teller.why();
    let at = |seq: u64| teller.0.envelopes.iter().find(|envelope| envelope.seq == seq).unwrap().event.name();
    assert_eq!(at(why.asked.seq), "task_submitted");
    assert!(why.evidence.iter().all(|line| at(line.seq) == "effect_ended"));
    assert_eq!(at(why.judgements[0].seq), "gates_judged");
    assert_eq!(at(why.decisions[0].seq), "decided");
    assert_eq!(at(why.approvals[0].seq), "approved");
}

#[tokio::test]
async fn the_why_of_a_change_that_waits_says_what_it_still_needs() {
    let (mut teller, _) = reviewable().await;
    assert_eq!(teller.why().missing, ["a person's approval of aaaaaaaaaa", "a person who lands it"]);
    teller.approved(sha('a')).await;
    assert_eq!(teller.why().missing, ["a person who lands it"]);
}

#[tokio::test]
async fn an_approval_of_an_older_change_does_not_count_for_the_new_one() {
    let (mut teller, _) = reviewable().await;
    teller.approved(sha('a')).await;
    let message = Event::MessageAdded { source: MessageSource::Person, text: "also nested lists".to_owned() };
    teller.0.add_by(&Principal::person("ada"), vec![message]).await;
    teller.collected(sha('b')).await;
    let why = teller.why();
    assert!(!why.approvals[0].current && !why.decisions[0].current);
    assert!(why.evidence.iter().all(|line| !line.current));
    assert!(why.missing[0].contains("test, lint"), "{:?}", why.missing);
}

#[tokio::test]
async fn a_landing_that_failed_and_a_denial_are_told_with_their_reasons() {
    let (mut teller, _) = reviewable().await;
    teller.approved(sha('a')).await;
    let moved = EffectResult::Failed {
        class: FailureClass::NeedsPerson,
        source: FailureSource::User,
        message: "main moved meanwhile".to_owned(),
        retry_after_ms: None,
    };
    land(&mut teller, moved).await;
    let denied = Event::Denied {
        action: "land".to_owned(),
        rule: "cautious.by_human".to_owned(),
        reason: "evidence is of another commit".to_owned(),
    };
    teller.0.add(vec![denied]).await;
    let why = teller.why();
    assert_eq!(why.landings[0].error.as_deref(), Some("main moved meanwhile"));
    assert!(!why.landings[0].landed && why.landed.is_none());
    assert_eq!(why.denials[0].reason, "evidence is of another commit");
    assert!(why.summary.starts_with("not landed yet"), "{}", why.summary);
}

#[tokio::test]
async fn the_evidence_lists_gates_that_are_missing_and_keeps_older_runs_apart() {
    let mut teller = Teller::begin().await;
    teller.collected(sha('a')).await;
    teller.gate_ran("test", sha('a'), 1).await;
    teller.gate_ran("test", sha('a'), 0).await;
    let body = teller.story().evidence(&teller.0.task);
    let standing: Vec<_> = body.gates.iter().map(|gate| (gate.gate.name.as_str(), gate.status)).collect();
    assert_eq!(standing, [("test", GateStatus::Passed), ("lint", GateStatus::Missing)]);
    assert_eq!(body.earlier.len(), 1);
    assert!(!body.earlier[0].evidence.passed);
    assert_eq!(body.commit, Some(sha('a')));
    let record = body.gates[0].record.as_ref().unwrap();
    assert_eq!(record.digest, record.evidence.digest());
}

#[tokio::test]
async fn a_digest_of_a_request_names_no_blob_because_requests_are_not_kept() {
    let mut teller = Teller::begin().await;
    let request_digest = Digest::of(b"request");
    let effect =
        Effect::CallModel { attempt: 1, turn: 1, model: "m".to_owned(), request_digest: request_digest.clone() };
    teller
        .effect(
            effect,
            EffectResult::Failed {
                class: FailureClass::Retry,
                source: FailureSource::Model,
                message: "away".to_owned(),
                retry_after_ms: None,
            },
        )
        .await;
    assert!(!teller.0.envelopes.iter().any(|envelope| names_blob(envelope, &request_digest)));
}

#[tokio::test]
async fn a_digest_that_an_agent_only_wrote_about_names_no_blob() {
    let foreign = Digest::of(b"another task's output");
    let mut teller = Teller::begin().await;
    let own = Digest::of(b"own output");
    let effect = Effect::RunTool {
        attempt: 1,
        turn: 1,
        call_id: "c".to_owned(),
        tool: "shell".to_owned(),
        input_json: format!("\"{foreign}\""),
    };
    let result = EffectResult::ToolReturned {
        text: format!("see {foreign}"),
        is_error: false,
        output_digest: Some(own.clone()),
        duration_ms: 1,
    };
    teller.effect(effect, result).await;
    assert!(teller.0.envelopes.iter().any(|envelope| names_blob(envelope, &own)));
    assert!(!teller.0.envelopes.iter().any(|envelope| names_blob(envelope, &foreign)));
}
