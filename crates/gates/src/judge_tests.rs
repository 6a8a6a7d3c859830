//! Tests of [`super::judge`]: what counts as proof, and what the agent is told.

use domain::evidence::{CommandEnd, Evidence, GateSpec};
use domain::id::{CommitSha, Digest, SandboxId};
use proptest::prelude::*;

use super::{MAX_FEEDBACK_CHARS, judge};

fn commit(digit: char) -> CommitSha {
    CommitSha::parse(&digit.to_string().repeat(40)).unwrap()
}

fn gate(name: &str, command: &[&str]) -> GateSpec {
    GateSpec {
        name: name.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        required: true,
        time_limit_ms: 600_000,
        source: "detected from Cargo.toml".to_owned(),
    }
}

fn ran(gate: &GateSpec, commit: &CommitSha, end: CommandEnd, output: &str) -> Evidence {
    Evidence {
        gate: gate.clone(),
        gate_digest: gate.digest(),
        commit: commit.clone(),
        passed: end.succeeded(),
        end,
        duration_ms: 1200,
        output_digest: Digest::of(output.as_bytes()),
        output_bytes: output.len() as u64,
        output_tail: output.to_owned(),
        sandbox: SandboxId::from_random(1),
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

const OK: CommandEnd = CommandEnd::Exited { code: 0 };
const BAD: CommandEnd = CommandEnd::Exited { code: 101 };

#[test]
fn all_gates_with_passing_evidence_pass() {
    let (test, lint) = (gate("cargo-test", &["cargo", "test"]), gate("lint", &["./lint"]));
    let evidence = [ran(&test, &commit('a'), OK, "ok"), ran(&lint, &commit('a'), OK, "")];
    let judgement = judge(&[test, lint], &evidence, &commit('a'));
    assert!(judgement.passed && judgement.failed.is_empty());
    assert_eq!(judgement.feedback, "All 2 gates passed on commit aaaaaaaaaa.");
}

#[test]
fn no_evidence_is_a_failure_and_named_as_such() {
    let test = gate("cargo-test", &["cargo", "test"]);
    let judgement = judge(std::slice::from_ref(&test), &[ran(&test, &commit('b'), OK, "ok")], &commit('a'));
    assert!(!judgement.passed);
    assert_eq!(judgement.failed, ["cargo-test"]);
    insta::assert_snapshot!(judgement.feedback, @r"
    1 of 1 gate did not pass on commit aaaaaaaaaa.

    Gate `cargo-test` (required): no evidence for this commit. It was not run on it, or not with this command.
    Command: cargo test
    ");
}

#[test]
fn the_feedback_says_what_was_run_how_it_ended_and_shows_the_end_of_the_output() {
    let test = gate("cargo-test", &["cargo", "test", "--locked"]);
    let e2e = gate("e2e", &["sh", "-c", "make && ./e2e 'all'"]);
    let tool = gate("lint", &["just", "lint"]);
    let docs = GateSpec { required: false, ..gate("docs", &["./docs"]) };
    let evidence = [
        ran(
            &test,
            &commit('a'),
            BAD,
            "running 2 tests\n\u{1b}[31mtest adds ... FAILED\u{1b}[0m\n\nassertion `left == right` failed\n  left: 4\n right: 5\n",
        ),
        ran(&docs, &commit('a'), CommandEnd::Exited { code: 2 }, "broken link\n"),
        ran(&e2e, &commit('a'), CommandEnd::TimedOut { limit_ms: 600_000 }, ""),
        ran(&tool, &commit('a'), CommandEnd::NotStarted { why: "no such file".into() }, ""),
    ];
    let judgement = judge(&[docs, test, e2e, tool], &evidence, &commit('a'));
    assert_eq!(judgement.failed, ["cargo-test", "e2e", "lint"]);
    insta::assert_snapshot!(judgement.feedback, @r"
    4 of 4 gates did not pass on commit aaaaaaaaaa.

    Gate `cargo-test` (required) failed: exit 101
    Command: cargo test --locked
    The end of its output:
    running 2 tests
    test adds ... FAILED

    assertion `left == right` failed
      left: 4
     right: 5

    Gate `e2e` (required) failed: stopped after 600 s
    Command: sh -c 'make && ./e2e '\''all'\'''
    It wrote no output.

    Gate `lint` (required) failed: it could not be started: no such file. The program is missing in the sandbox or the gate's command is wrong
    Command: just lint
    It wrote no output.

    Gate `docs` (not required) failed: exit 2
    Command: ./docs
    The end of its output:
    broken link
    ");
}

#[test]
fn a_gate_that_is_not_required_does_not_hold_a_change_back() {
    let docs = GateSpec { required: false, ..gate("docs", &["./docs"]) };
    let judgement = judge(std::slice::from_ref(&docs), &[ran(&docs, &commit('a'), BAD, "x")], &commit('a'));
    assert!(judgement.passed && judgement.failed.is_empty());
    assert!(judgement.feedback.contains("`docs` (not required) failed"), "{}", judgement.feedback);
}

#[test]
fn the_newest_evidence_counts() {
    let test = gate("t", &["t"]);
    let (good, bad) = (ran(&test, &commit('a'), OK, ""), ran(&test, &commit('a'), BAD, ""));
    let gates = [test];
    assert!(judge(&gates, &[bad.clone(), good.clone()], &commit('a')).passed);
    assert!(!judge(&gates, &[good, bad], &commit('a')).passed);
}

#[test]
fn a_record_that_contradicts_itself_is_no_proof() {
    let test = gate("t", &["t"]);
    let lies = Evidence { passed: true, ..ran(&test, &commit('a'), BAD, "") };
    let doubts = Evidence { passed: false, ..ran(&test, &commit('a'), OK, "") };
    let other = Evidence { gate_digest: gate("t", &["true"]).digest(), ..ran(&test, &commit('a'), OK, "") };
    for evidence in [lies, doubts, other] {
        assert!(
            !judge(std::slice::from_ref(&test), std::slice::from_ref(&evidence), &commit('a')).passed,
            "{evidence:?}"
        );
    }
}

#[test]
fn without_gates_nothing_is_proved_and_the_feedback_says_so() {
    let judgement = judge(&[], &[], &commit('a'));
    assert!(judgement.passed);
    assert!(judgement.feedback.contains("nothing was proved"));
}

#[test]
fn the_feedback_is_bounded_however_much_failed() {
    for count in [1_u32, 2, 8, 9, 300] {
        let gates: Vec<GateSpec> =
            (0..count).map(|n| gate(&format!("gate-{n}-{}", "x".repeat(50)), &["run", &"y".repeat(5000)])).collect();
        let output = format!("{}\n", "a line of output with an ä in it\n".repeat(2000));
        let evidence: Vec<Evidence> = gates.iter().map(|gate| ran(gate, &commit('a'), BAD, &output)).collect();
        let feedback = judge(&gates, &evidence, &commit('a')).feedback;
        let chars = feedback.chars().count();
        assert!(chars <= MAX_FEEDBACK_CHARS, "{chars} characters for {count} gates");
        assert!(!feedback.ends_with('…'), "{count} gates: cut off in the middle: {feedback}");
        assert!(feedback.contains(&gates[0].name) && feedback.contains("a line of output"), "{feedback}");
    }
}

/// Gates `g0`, `g1`, … of which some are not required.
fn gates() -> impl Strategy<Value = Vec<GateSpec>> {
    prop::collection::vec((any::<bool>(), 0..3_u8), 0..5).prop_map(|specs| {
        let build = |(n, (required, command)): (usize, (bool, u8))| GateSpec {
            required,
            ..gate(&format!("g{n}"), &["run", &command.to_string()])
        };
        specs.into_iter().enumerate().map(build).collect()
    })
}

/// Evidence on one of three commits, for a gate of the task or for one that was changed a little.
fn evidence_for(gates: Vec<GateSpec>) -> impl Strategy<Value = Vec<Evidence>> {
    let count = gates.len();
    let one = (0..count.max(1), 0..4_u8, prop::sample::select(vec!['a', 'b', 'c']), 0..3_i32).prop_filter_map(
        "no gates",
        move |(index, twist, on, code)| {
            let mut gate = gates.get(index)?.clone();
            match twist {
                1 => gate.command.push("--skip".to_owned()),
                2 => gate.required = !gate.required,
                3 => gate.time_limit_ms += 1,
                _ => {}
            }
            Some(ran(&gate, &commit(on), CommandEnd::Exited { code: code.saturating_sub(1) }, "out"))
        },
    );
    prop::collection::vec(one, if count == 0 { 0..1 } else { 0..12 })
}

/// A task's gates with evidence of all sorts.
fn records() -> impl Strategy<Value = (Vec<GateSpec>, Vec<Evidence>)> {
    gates().prop_flat_map(|gates| {
        let none = gates.is_empty();
        let evidence = if none { Just(Vec::new()).boxed() } else { evidence_for(gates.clone()).boxed() };
        (Just(gates), evidence)
    })
}

proptest! {
    #[test]
    fn it_never_passes_without_evidence_of_each_required_gate_on_that_very_commit((gates, evidence) in records()) {
        let target = commit('a');
        let proved = |gate: &GateSpec| evidence.iter().any(|e| {
            e.commit == target && e.gate.command == gate.command && e.gate == *gate && e.end.succeeded()
        });
        let judgement = judge(&gates, &evidence, &target);
        if judgement.passed {
            for gate in gates.iter().filter(|gate| gate.required) {
                prop_assert!(proved(gate), "passed without proof of {}", gate.name);
            }
        }
        prop_assert_eq!(judgement.passed, judgement.failed.is_empty());
        prop_assert!(judgement.feedback.chars().count() <= MAX_FEEDBACK_CHARS);
    }

    #[test]
    fn evidence_of_another_commit_or_another_command_changes_nothing((gates, evidence) in records()) {
        let target = commit('a');
        let of_this: Vec<Evidence> =
            evidence.iter().filter(|e| e.commit == target && gates.contains(&e.gate)).cloned().collect();
        prop_assert_eq!(judge(&gates, &evidence, &target), judge(&gates, &of_this, &target));
    }

    #[test]
    fn taking_away_the_evidence_of_a_required_gate_fails_it((gates, evidence) in records(), index in 0..5_usize) {
        let target = commit('a');
        if let Some(gate) = gates.get(index).filter(|gate| gate.required) {
            let rest: Vec<Evidence> = evidence.into_iter().filter(|e| e.gate != *gate).collect();
            prop_assert!(judge(&gates, &rest, &target).failed.contains(&gate.name));
        }
    }
}
