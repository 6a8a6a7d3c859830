//! Event logs made by hand, for the tests of pages. They fold: `log` sees to it.

use domain::contract::Contract;
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource, TokenUsage};
use domain::event::{EVENT_VERSION, Envelope, Event, MessageSource};
use domain::evidence::{CommandEnd, Evidence, GateSpec};
use domain::id::{CommitSha, Digest, EffectId, SandboxId, TaskId};
use domain::principal::Principal;
use domain::task::{
    AgentEnd, AgentSpec, Decision, Judgement, Outcome, OutcomeReason, RepoSpec, TaskSpec, TaskState, Tier, Wait,
    WaitKind,
};
use jiff::{SignedDuration, Timestamp};

/// When the sample tasks begin.
pub const BEGAN: Timestamp = Timestamp::constant(1_795_000_000, 0);

pub fn ada() -> Principal {
    Principal::person("ada")
}

pub fn sha(digit: char) -> CommitSha {
    CommitSha::parse(&digit.to_string().repeat(40)).unwrap()
}

pub fn gate() -> GateSpec {
    GateSpec {
        name: "test".to_owned(),
        command: vec!["cargo".to_owned(), "test".to_owned()],
        required: true,
        time_limit_ms: 600_000,
        source: "Cargo.toml".to_owned(),
    }
}

pub fn evidence(commit: char, code: i32) -> Evidence {
    let tail = if code == 0 {
        "test result: ok. 4 passed\n"
    } else {
        "test nested ... FAILED\n\ntest result: FAILED. 3 passed; 1 failed\n"
    };
    Evidence {
        gate_digest: gate().digest(),
        gate: gate(),
        commit: sha(commit),
        end: CommandEnd::Exited { code },
        passed: code == 0,
        duration_ms: 3_210,
        output_digest: Digest::of(tail.as_bytes()),
        output_bytes: tail.len() as u64,
        output_tail: tail.to_owned(),
        sandbox: SandboxId::parse("k3f9q2mzzzzz-g1").unwrap(),
        at: BEGAN,
    }
}

/// Puts events into a log, one second apart, and folds it to be sure that it could happen.
pub struct Log {
    pub envelopes: Vec<Envelope>,
}

impl Log {
    pub fn new(spec: TaskSpec, notes: Vec<String>) -> Self {
        let mut log = Self { envelopes: Vec::new() };
        log.by(&ada(), Event::TaskSubmitted { spec: Box::new(spec), notes });
        log
    }

    pub fn by(&mut self, actor: &Principal, event: Event) -> &mut Self {
        let seq = self.envelopes.len() as u64 + 1;
        let at = BEGAN.checked_add(SignedDuration::from_secs(seq.cast_signed() - 1)).unwrap();
        let task = TaskId::parse("k3f9q2mzzzzz").unwrap();
        self.envelopes.push(Envelope { v: EVENT_VERSION, task, seq, at, actor: actor.clone(), event });
        domain::fold(&self.envelopes).unwrap();
        self
    }

    pub fn then(&mut self, event: Event) -> &mut Self {
        self.by(&Principal::platform(), event)
    }

    pub fn effect(&mut self, effect: Effect, result: EffectResult) -> &mut Self {
        let id = EffectId::parse(&format!("e{}", self.envelopes.len() + 1)).unwrap();
        self.then(Event::EffectStarted { id: id.clone(), effect });
        self.then(Event::EffectEnded { id, result })
    }

    pub fn task(&self) -> domain::task::Task {
        domain::fold(&self.envelopes).unwrap()
    }
}

pub fn spec(agent: AgentSpec) -> TaskSpec {
    TaskSpec {
        goal: "make the parser accept trailing commas".to_owned(),
        repo: RepoSpec { origin: "/home/ada/parser".to_owned(), base_branch: "main".to_owned(), base: sha('a') },
        agent,
        contract: Contract { gates: vec![gate()], ..Contract::default() },
        fork: None,
    }
}

pub fn call_model(turn: u32) -> Effect {
    let request_digest = Digest::of(b"request");
    Effect::CallModel { attempt: 1, turn, model: "anthropic/claude-sonnet-5-5".to_owned(), request_digest }
}

pub fn answered(text: &str) -> EffectResult {
    let message = model::AssistantMessage {
        wire: model::Wire::AnthropicMessages,
        provider: "anthropic".to_owned(),
        model: "claude-sonnet-5-5".to_owned(),
        blocks: vec![model::BlockView::Text { text: text.to_owned() }.into()],
        stop: model::StopReason::EndTurn,
    };
    let usage = TokenUsage { input_tokens: 204, cache_read_tokens: 1_000, cache_write_tokens: 0, output_tokens: 210 };
    EffectResult::ModelAnswered {
        message_json: serde_json::to_string(&message).unwrap(),
        usage: Some(usage),
        cost_micro_usd: Some(4_100),
        duration_ms: 2_345,
    }
}

pub fn tool(turn: u32, tool: &str, input_json: &str) -> Effect {
    Effect::RunTool {
        attempt: 1,
        turn,
        call_id: format!("c{turn}"),
        tool: tool.to_owned(),
        input_json: input_json.to_owned(),
    }
}

fn returned(text: &str, is_error: bool) -> EffectResult {
    EffectResult::ToolReturned { text: text.to_owned(), is_error, output_digest: None, duration_ms: 812 }
}

/// A task that was asked a question, failed a gate once, and then waits for a review.
pub fn to_review() -> Log {
    let mut log = Log::new(
        spec(AgentSpec::Native { model: "anthropic/claude-sonnet-5-5".to_owned() }),
        vec!["the work tree has uncommitted changes; the task starts from the commit".to_owned()],
    );
    log.then(Event::GatesChosen { gates: vec![gate()], config_digest: None })
        .then(Event::AttemptStarted { attempt: 1 });
    log.effect(
        Effect::OpenSandbox { sandbox: SandboxId::parse("k3f9q2mzzzzz-a1").unwrap(), attempt: 1 },
        EffectResult::SandboxOpened { resumed: false, duration_ms: 42 },
    );
    log.effect(call_model(1), answered("I'll look at the parser first."));
    log.effect(
        tool(1, "search", r#"{"pattern":"fn parse_list","glob":"*.rs"}"#),
        returned("src/parse.rs:40:fn parse_list(", false),
    );
    let long: String = (1..=30).map(|n| format!("test case_{n} ... ok\n")).collect();
    log.effect(
        tool(1, "shell", r#"{"command":"cargo test\necho done"}"#),
        returned(&format!("{long}test nested ... FAILED"), true),
    );
    log.effect(call_model(2), answered("Now the fix."));
    log.effect(
        tool(2, "edit", r#"{"path":"src/parse.rs","old":"if next == ']' {","new":"if next == ',' && peek == ']' {\n    skip();\n}\nif next == ']' {"}"#),
        returned("1 replaced", false),
    );
    question(&mut log);
    log.effect(call_model(3), answered("Trailing commas are accepted now."));
    finish(&mut log, 'b', 1);
    log.then(Event::MessageAdded {
        source: MessageSource::Gates,
        text: "gate `test` failed (exit 101):\ntest nested ... FAILED".to_owned(),
    });
    log.effect(call_model(4), answered("Nested lists too."));
    finish(&mut log, 'c', 0);
    decide(&mut log, 'c');
    wait(
        &mut log,
        WaitKind::Review,
        "change cccccccccc is ready: 1 gate passed; look at it, then `approve` and `land`",
        None,
    );
    log
}

fn question(log: &mut Log) {
    let id = EffectId::parse("eask").unwrap();
    let effect = tool(2, "ask", r#"{"question":"Should `[,]` be accepted as well?"}"#);
    log.then(Event::EffectStarted { id: id.clone(), effect });
    wait(log, WaitKind::Question, "Should `[,]` be accepted as well?", Some(id.clone()));
    let result =
        EffectResult::ToolReturned { text: "no".to_owned(), is_error: false, output_digest: None, duration_ms: 0 };
    log.by(&ada(), Event::EffectEnded { id, result });
}

pub fn wait(log: &mut Log, kind: WaitKind, reason: &str, effect: Option<EffectId>) {
    let expires_at = BEGAN.checked_add(SignedDuration::from_hours(72)).unwrap();
    log.then(Event::WaitStarted {
        wait: Wait { kind, owner: "ada".to_owned(), reason: reason.to_owned(), since: BEGAN, expires_at, effect },
    });
}

fn finish(log: &mut Log, commit: char, code: i32) {
    let round = log.task().attempt.unwrap().round;
    log.then(Event::AgentEnded {
        attempt: 1,
        end: AgentEnd::Finished { summary: "Trailing commas are accepted now.".to_owned() },
    });
    log.effect(
        Effect::Collect { attempt: 1, round },
        EffectResult::Collected { commit: Some(sha(commit)), notes: Vec::new() },
    );
    log.effect(
        Effect::RunGate { gate: gate(), commit: sha(commit) },
        EffectResult::GateRan { evidence: Box::new(evidence(commit, code * 101)) },
    );
    let failed = if code == 0 { Vec::new() } else { vec!["test".to_owned()] };
    log.then(Event::GatesJudged {
        judgement: Judgement { commit: sha(commit), passed: code == 0, failed, feedback: String::new() },
    });
}

fn decide(log: &mut Log, commit: char) {
    log.then(Event::Decided {
        decision: Decision {
            tier: Tier::ByHuman,
            rule: "cautious.by_human".to_owned(),
            reason: "every change needs a person".to_owned(),
            policy_digest: Digest::of(b"policy"),
            commit: sha(commit),
            evidence_digests: vec![evidence(commit, 0).digest()],
        },
    });
    log.effect(
        Effect::Publish { commit: sha(commit) },
        EffectResult::Published { branch: "chargehand/k3f9q2mz".to_owned() },
    );
}

/// The same task, approved and landed.
pub fn landed() -> Log {
    let mut log = to_review();
    log.by(&ada(), Event::Approved { head: sha('c'), comment: "good".to_owned() });
    log.by(&ada(), Event::LandRequested { head: sha('c'), update_worktree: false });
    log.effect(
        Effect::Land { commit: sha('c'), branch: "main".to_owned(), expected_base: sha('a'), update_worktree: false },
        EffectResult::Landed { commit: sha('c'), previous: sha('a'), worktree_updated: false },
    );
    let outcome = Outcome { reason: OutcomeReason::Done, message: "landed on main as cccccccccc".to_owned() };
    log.then(Event::TaskEnded { state: TaskState::Completed, outcome });
    log
}

/// A task whose model could not be reached.
pub fn failed() -> Log {
    let mut log = Log::new(spec(AgentSpec::Native { model: "openai/gpt-6.1-sol".to_owned() }), Vec::new());
    log.then(Event::GatesChosen { gates: vec![gate()], config_digest: None })
        .then(Event::AttemptStarted { attempt: 1 });
    log.effect(
        call_model(1),
        EffectResult::Failed {
            class: FailureClass::NeedsPerson,
            source: FailureSource::Model,
            message: "openai: 401, wrong key \x1b]0;evil\x07".to_owned(),
            retry_after_ms: None,
        },
    );
    let message = "the model can't be asked: wrong key. Check the key that is configured for this provider.".to_owned();
    log.then(Event::AgentEnded {
        attempt: 1,
        end: AgentEnd::Stopped { reason: OutcomeReason::Model, message: message.clone() },
    });
    log.then(Event::TaskEnded { state: TaskState::Failed, outcome: Outcome { reason: OutcomeReason::Model, message } });
    log
}

/// A landing that a person must look at.
pub fn land_fails(log: &mut Log, message: &str) {
    log.effect(
        Effect::Land { commit: sha('c'), branch: "main".to_owned(), expected_base: sha('a'), update_worktree: false },
        EffectResult::Failed {
            class: FailureClass::NeedsPerson,
            source: FailureSource::User,
            message: message.to_owned(),
            retry_after_ms: None,
        },
    );
}

/// A person's word during the review sends the agent back to work.
pub fn at_work_again(log: &mut Log) {
    log.by(&ada(), Event::MessageAdded { source: MessageSource::Person, text: "also nested lists".to_owned() });
}

/// A task whose model was not there, three times.
pub fn unreachable() -> Log {
    let mut log = Log::new(spec(AgentSpec::Native { model: "openai/qwen".to_owned() }), Vec::new());
    log.then(Event::GatesChosen { gates: vec![gate()], config_digest: None })
        .then(Event::AttemptStarted { attempt: 1 });
    let why = "openai: connection refused. Check the URL.";
    for _ in 0..3 {
        log.effect(
            call_model(1),
            EffectResult::Failed {
                class: FailureClass::Retry,
                source: FailureSource::Model,
                message: why.to_owned(),
                retry_after_ms: Some(500),
            },
        );
    }
    let message = format!("the model failed 3 times in a row; the last time: {why}");
    log.then(Event::AgentEnded {
        attempt: 1,
        end: AgentEnd::Stopped { reason: OutcomeReason::Model, message: message.clone() },
    });
    log.then(Event::TaskEnded { state: TaskState::Failed, outcome: Outcome { reason: OutcomeReason::Model, message } });
    log
}

/// A command agent at work.
pub fn command() -> Log {
    let argv = vec!["cargo".to_owned(), "fix".to_owned(), "--allow-dirty".to_owned()];
    let mut log = Log::new(spec(AgentSpec::Command { argv: argv.clone() }), Vec::new());
    log.then(Event::GatesChosen { gates: Vec::new(), config_digest: None }).then(Event::AttemptStarted { attempt: 1 });
    let id = EffectId::parse("ecmd").unwrap();
    log.then(Event::EffectStarted { id, effect: Effect::RunCommand { attempt: 1, argv } });
    log
}
