//! Tells a task's life in tests: each verb is an event or a command, folded as it happens.
#![allow(dead_code, reason = "each test file uses its own verbs")]

use domain::command::{Command, Refusal, decide};
use domain::contract::Contract;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::event::{EVENT_VERSION, Envelope, Event};
use domain::evidence::{CommandEnd, Evidence, GateSpec};
use domain::fold::{apply, begin, effect_id};
use domain::id::{CommitSha, Digest, EffectId, SandboxId, TaskId};
use domain::plan::{Action, plan};
use domain::principal::Principal;
use domain::step::{EnvironmentChoice, RecipeSource};
use domain::task::{AgentEnd, AgentSpec, Decision, Judgement, RepoSpec, Task, TaskSpec, Tier, Wait, WaitKind};
use jiff::Timestamp;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub fn sha(c: char) -> CommitSha {
    CommitSha::parse(&c.to_string().repeat(40)).unwrap()
}

pub fn gate(name: &str) -> GateSpec {
    GateSpec {
        name: name.into(),
        command: vec!["true".into()],
        required: true,
        time_limit_ms: 1000,
        source: "test".into(),
    }
}

/// An environment that has to be built, or has not.
pub fn environment(needs_build: bool) -> EnvironmentChoice {
    let recipe_digest = Digest::of(b"recipe");
    EnvironmentChoice { source: RecipeSource::File, recipe_digest, needs_build, network: vec![] }
}

#[derive(Clone)]
pub struct Story {
    pub task: Task,
    pub log: Vec<Envelope>,
    pub clock_s: i64,
    open: Vec<EffectId>,
}

impl Story {
    pub fn submitted() -> Self {
        let spec = TaskSpec {
            goal: "mend it".into(),
            repo: RepoSpec { origin: "/repo".into(), base_branch: "main".into(), base: sha('a') },
            agent: AgentSpec::Native { model: "replay:x".into() },
            contract: Contract::default(),
            fork: None,
        };
        let first = Envelope {
            v: EVENT_VERSION,
            task: TaskId::from_random(7),
            seq: 1,
            at: at(0),
            actor: Principal::person("ada"),
            event: Event::TaskSubmitted { spec: Box::new(spec), notes: vec![] },
        };
        Self { task: begin(&first).unwrap(), log: vec![first], clock_s: 0, open: vec![] }
    }

    pub fn working() -> Self {
        let mut story = Self::submitted();
        story.happens(Event::GatesChosen { gates: vec![gate("test")], config_digest: None });
        story.happens(Event::AttemptStarted { attempt: 1 });
        story
    }

    pub fn in_review() -> Self {
        let mut story = Self::working();
        story.proposes(&sha('b'));
        story.asked_for_review("look at it");
        story
    }

    pub fn landing() -> Self {
        let mut story = Self::in_review();
        story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
        story.commands(&Command::Land { update_worktree: false }).unwrap();
        story.starts(Effect::Land {
            commit: sha('b'),
            branch: "main".into(),
            expected_base: sha('a'),
            update_worktree: false,
        });
        story
    }

    pub fn envelope(&self, event: Event) -> Envelope {
        Envelope {
            v: EVENT_VERSION,
            task: self.task.id.clone(),
            seq: self.task.seq + 1,
            at: at(self.clock_s),
            actor: Principal::person("ada"),
            event,
        }
    }

    pub fn happens(&mut self, event: Event) {
        let envelope = self.envelope(event);
        apply(&mut self.task, &envelope).unwrap();
        self.log.push(envelope);
    }

    pub fn plans(&self) -> Action {
        plan(&self.task, at(self.clock_s)).into_iter().next().expect("nothing planned")
    }

    pub fn commands(&mut self, command: &Command) -> Result<(), Refusal> {
        for event in decide(&self.task, command, &Principal::person("ada"))? {
            self.happens(event);
        }
        Ok(())
    }

    pub fn says(&mut self, text: &str) {
        self.commands(&Command::Say { text: text.into() }).unwrap();
    }

    pub fn starts(&mut self, effect: Effect) {
        let id = effect_id(&self.task);
        self.open.push(id.clone());
        self.happens(Event::EffectStarted { id, effect });
    }

    pub fn ends(&mut self, result: EffectResult) {
        let id = self.open.pop().expect("no open effect");
        self.happens(Event::EffectEnded { id, result });
    }

    pub fn does(&mut self, effect: Effect, result: EffectResult) {
        self.starts(effect);
        self.ends(result);
    }

    pub fn agent_finishes(&mut self) {
        let attempt = self.task.attempt.as_ref().unwrap().number;
        self.happens(Event::AgentEnded { attempt, end: AgentEnd::Finished { summary: "done".into() } });
    }

    pub fn collected(&mut self, commit: &CommitSha) {
        let round = self.task.attempt.as_ref().unwrap().round;
        self.does(
            Effect::Collect { attempt: 1, round },
            EffectResult::Collected { commit: Some(commit.clone()), notes: vec![] },
        );
    }

    pub fn gate_ran(&mut self, commit: &CommitSha, passed: bool) {
        let gate = gate("test");
        let evidence = Evidence {
            gate_digest: gate.digest(),
            gate: gate.clone(),
            commit: commit.clone(),
            end: CommandEnd::Exited { code: i32::from(!passed) },
            passed,
            duration_ms: 5,
            output_digest: Digest::of(b""),
            output_bytes: 0,
            output_tail: String::new(),
            sandbox: SandboxId::from_random(1),
            at: at(self.clock_s),
        };
        self.does(
            Effect::RunGate { gate, commit: commit.clone() },
            EffectResult::GateRan { evidence: Box::new(evidence) },
        );
    }

    pub fn judged(&mut self, passed: bool) {
        let commit = self.task.proposed().unwrap().clone();
        let failed = if passed { vec![] } else { vec!["test".to_owned()] };
        self.happens(Event::GatesJudged {
            judgement: Judgement { commit, passed, failed, feedback: "test failed".into() },
        });
    }

    pub fn decided(&mut self) {
        let commit = self.task.proposed().unwrap().clone();
        self.happens(Event::Decided {
            decision: Decision {
                tier: Tier::ByHuman,
                rule: "test".into(),
                reason: String::new(),
                policy_digest: Digest::of(b""),
                commit,
                evidence_digests: vec![],
            },
        });
    }

    pub fn published(&mut self) {
        let commit = self.task.proposed().unwrap().clone();
        self.does(Effect::Publish { commit }, EffectResult::Published { branch: "chargehand/x".into() });
    }

    pub fn proposes(&mut self, commit: &CommitSha) {
        self.agent_finishes();
        self.collected(commit);
        self.gate_ran(commit, true);
        self.judged(true);
        self.decided();
        self.published();
    }

    pub fn proposes_failing(&mut self, commit: &CommitSha) {
        self.agent_finishes();
        self.collected(commit);
        self.gate_ran(commit, false);
        self.judged(false);
    }

    pub fn asked_for_review(&mut self, reason: &str) {
        self.waits(WaitKind::Review, reason, None);
    }

    pub fn asks(&mut self, question: &str) {
        self.starts(Effect::RunTool {
            attempt: 1,
            turn: 1,
            call_id: "c1".into(),
            tool: "ask".into(),
            input_json: "{}".into(),
        });
        let effect = self.open.pop();
        self.waits(WaitKind::Question, question, effect);
    }

    fn waits(&mut self, kind: WaitKind, reason: &str, effect: Option<EffectId>) {
        let wait = Wait {
            kind,
            owner: "person:ada".into(),
            reason: reason.into(),
            since: at(self.clock_s),
            expires_at: at(self.clock_s + 14 * 24 * 3600),
            effect,
        };
        self.happens(Event::WaitStarted { wait });
    }

    pub fn effect_fails(&mut self, class: FailureClass) {
        let Action::Perform(effect) = self.plans() else { panic!("{:?}", self.plans()) };
        self.does(
            effect,
            EffectResult::Failed {
                class,
                source: FailureSource::Infra,
                message: "no luck".into(),
                retry_after_ms: None,
            },
        );
    }
}
