//! Snapshots of every page, over logs made by hand.

use domain::effect::EffectResult;
use domain::event::Event;
use domain::id::{Digest, TaskId};
use domain::plan::Action;
use domain::principal::Principal;
use domain::task::{Change, Judgement, Outcome, OutcomeReason, TaskState, TaskSummary, WaitKind};
use insta::assert_snapshot;
use jiff::{SignedDuration, Timestamp};
use server::api::{
    ApprovalRecord, Asked, DecisionRecord, DiffBody, DiffFile, EvidenceBody, EvidenceLine, EvidenceRecord,
    GateStanding, GateStatus, LandingRecord, LiveItem, OutcomeRecord, WhyBody,
};

use super::samples::{self, BEGAN, Log, evidence, gate, sha};
use super::story::{Story, Wishes};
use super::{list, next, patch, task, why, words};
use crate::terminal::{Page, Piece};

const COLUMNS: usize = 80;

fn now() -> Timestamp {
    BEGAN.checked_add(SignedDuration::from_mins(5)).unwrap()
}

/// Pieces as they would stand on a screen without colours.
fn screen(pieces: &[Piece]) -> String {
    let mut text = String::new();
    let mut streaming = false;
    for piece in pieces {
        match piece {
            Piece::Line(line) => {
                if streaming && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&Page { lines: vec![line.clone()] }.draw(false));
            }
            Piece::Stream { text: new, .. } => text.push_str(new),
            Piece::Status(_) => {}
        }
        streaming = matches!(piece, Piece::Stream { .. });
    }
    text
}

fn told(log: &Log, full: bool) -> String {
    let mut story = Story::new(Wishes { columns: COLUMNS, full });
    let pieces: Vec<Piece> = log.envelopes.iter().flat_map(|envelope| story.event(envelope)).collect();
    screen(&pieces)
}

#[test]
fn a_task_up_to_its_review_reads_like_a_conversation() {
    assert_snapshot!(told(&samples::to_review(), false));
}

#[test]
fn a_landing_and_a_failure_end_the_story() {
    let landed = told(&samples::landed(), false);
    assert_snapshot!("landed", landed.rsplit_once("waits for ada").unwrap().1);
    assert_snapshot!("failed", told(&samples::failed(), false));
}

#[test]
fn nothing_is_folded_when_all_is_wanted() {
    let folded = told(&samples::to_review(), false);
    let full = told(&samples::to_review(), true);
    assert!(!folded.contains("case_17") && full.contains("case_17"));
}

#[test]
fn what_streamed_in_is_not_told_again() {
    let log = samples::to_review();
    let mut story = Story::new(Wishes { columns: COLUMNS, full: false });
    let mut pieces = Vec::new();
    for envelope in &log.envelopes {
        if matches!(
            &envelope.event,
            domain::event::Event::EffectEnded { result: domain::effect::EffectResult::ModelAnswered { .. }, .. }
        ) && envelope.seq < 9
        {
            for text in ["I'll look at ", "the parser"] {
                pieces.extend(story.live(&LiveItem::TextDelta { turn: 1, text: text.to_owned() }));
            }
        }
        pieces.extend(story.event(envelope));
    }
    let text = screen(&pieces);
    assert_eq!(text.matches("I'll look at the parser first.").count(), 1, "{text}");
}

#[test]
fn an_output_that_streams_for_ever_does_not_flood_the_screen() {
    let mut story = Story::new(Wishes { columns: COLUMNS, full: false });
    let log = samples::command();
    let mut pieces: Vec<Piece> = log.envelopes.iter().flat_map(|envelope| story.event(envelope)).collect();
    for n in 0..1000 {
        pieces.extend(story.live(&LiveItem::Output { source: "command".to_owned(), text: format!("line {n}\n") }));
    }
    let text = screen(&pieces);
    assert!(text.contains("line 199") && !text.contains("line 200"), "{text}");
    assert_eq!(text.matches("more is coming").count(), 1);
    let at_once: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let mut story = Story::new(Wishes { columns: COLUMNS, full: false });
    log.envelopes.iter().for_each(|envelope| drop(story.event(envelope)));
    let text = screen(&story.live(&LiveItem::Output { source: "command".to_owned(), text: at_once }));
    assert!(text.contains("line 199") && !text.contains("line 200"), "{text}");
}

#[test]
fn a_branch_that_is_checked_out_leads_to_the_two_ways_round_it() {
    let mut log = samples::to_review();
    log.by(&samples::ada(), Event::Approved { head: sha('c'), comment: String::new() });
    log.by(&samples::ada(), Event::LandRequested { head: sha('c'), update_worktree: false });
    let error = forge::LandError::CheckedOut { branch: "main".to_owned(), path: Some("/home/ada/parser".into()) };
    samples::land_fails(&mut log, &error.to_string());
    let Some(Action::AskReview { reason }) = domain::plan::plan(&log.task(), now()).into_iter().next() else {
        panic!("it is told to the person")
    };
    samples::wait(&mut log, WaitKind::Review, &reason, None);
    let steps = next::steps(&TaskSummary::from(&log.task()));
    let commands: Vec<&str> = steps.iter().map(|(command, _)| command.as_str()).collect();
    assert_eq!(commands[..2], ["chargehand land k3f9q2mz --update-worktree", "chargehand land k3f9q2mz"]);
    let told = told(&log, false);
    assert_eq!(told.matches("is checked out in").count(), 1, "{told}");
}

#[test]
fn a_landing_that_failed_otherwise_needs_no_second_approval() {
    let mut log = samples::to_review();
    log.by(&samples::ada(), Event::Approved { head: sha('c'), comment: String::new() });
    log.by(&samples::ada(), Event::LandRequested { head: sha('c'), update_worktree: false });
    samples::land_fails(&mut log, "the disk is full");
    samples::wait(&mut log, WaitKind::Review, "not landed: the disk is full", None);
    let steps = next::steps(&TaskSummary::from(&log.task()));
    assert_eq!(steps[0].0, "chargehand land k3f9q2mz");
    assert!(steps.iter().all(|(command, _)| !command.contains("approve")), "{steps:?}");
}

#[test]
fn a_failed_gate_is_marked_and_evidence_is_offered_only_where_a_gate_ran() {
    let mut summary = TaskSummary::from(&samples::failed().task());
    assert!(next::steps(&summary).iter().all(|(command, _)| !command.contains("evidence")));
    assert_eq!(words::gates(&summary), "·");
    summary.gates_failed = 1;
    assert!(next::steps(&summary)[0].0.contains("evidence"));
    assert_eq!(words::gates(&summary), "✗");
    summary.gates_total = 9;
    assert_eq!(words::gates(&summary), "0/9 ✗");
}

#[test]
fn a_call_that_fails_again_and_again_is_told_in_a_line_each() {
    let text = told(&samples::unreachable(), false);
    assert_eq!(text.matches("turn 1  ").count(), 1, "{text}");
    assert_eq!(text.matches("connection refused").count(), 1, "{text}");
    assert!(text.contains("failed again (try 3): the same") && !text.contains("tried again"), "{text}");
    assert!(text.contains("✗ stopped (model): the model failed 3 times in a row; the last time: see above"), "{text}");
}

#[test]
fn what_a_person_called_off_is_not_shown_as_a_failure() {
    let mut log = samples::command();
    let events = domain::command::decide(
        &log.task(),
        &domain::command::Command::Cancel { reason: "enough".to_owned() },
        &samples::ada(),
    );
    for event in events.unwrap() {
        log.by(&samples::ada(), event);
    }
    let text = told(&log, false);
    assert!(text.contains("canceled while it ran") && !text.contains('✗'), "{text}");
    assert!(!text.contains("not known"), "{text}");
}

#[test]
fn lines_left_out_of_a_text_that_is_a_part_are_counted_as_such() {
    let mut log = samples::to_review();
    let text: String = (1..=50).map(|n| format!("line {n}\n")).collect();
    samples::at_work_again(&mut log);
    log.effect(
        samples::tool(5, "shell", r#"{"command":"cargo test"}"#),
        EffectResult::ToolReturned {
            text,
            is_error: false,
            output_digest: Some(Digest::of(b"all of it")),
            duration_ms: 5,
        },
    );
    let text = told(&log, false);
    assert!(text.contains("39 more lines of what the model was shown"), "{text}");
}

#[test]
fn a_command_is_shown_as_it_could_be_typed() {
    let argv = ["sh", "-c", "echo 42 > answer.txt"].map(str::to_owned).to_vec();
    let log = Log::new(samples::spec(domain::task::AgentSpec::Command { argv }), Vec::new());
    assert!(told(&log, false).contains("command: sh -c 'echo 42 > answer.txt'"));
}

#[test]
fn the_page_of_a_task_says_where_it_stands_and_what_to_type() {
    assert_snapshot!("show_review", task::page(&samples::to_review().task(), now(), COLUMNS).draw(false));
    assert_snapshot!("show_landed", task::page(&samples::landed().task(), now(), COLUMNS).draw(false));
    assert_snapshot!("show_command", task::page(&samples::command().task(), now(), COLUMNS).draw(false));
}

#[test]
fn the_list_puts_what_needs_you_first() {
    let named = |log: &Log, id: &str, minutes: i64| {
        let mut summary = TaskSummary::from(&log.task());
        summary.id = TaskId::parse(id).unwrap();
        summary.submitted_at = BEGAN.checked_add(SignedDuration::from_mins(-minutes)).unwrap();
        summary
    };
    let mut hostile = named(&samples::command(), "hhhhhhhhhhhh", 3000);
    hostile.goal = "a goal\nof two lines with \u{202e}tricks and a very long tail that does not fit".to_owned();
    let tasks = [
        named(&samples::landed(), "aaaaaaaaaaaa", 90),
        hostile,
        named(&samples::failed(), "bbbbbbbbbbbb", 1),
        named(&samples::to_review(), "cccccccccccc", 10),
    ];
    let wishes = list::Wishes { now: now(), columns: COLUMNS, all: false, left_out: false };
    assert_snapshot!("list", list::page(&tasks, wishes).draw(false));
    assert_snapshot!("list_empty", list::page(&[], wishes).draw(false));
    let ended: Vec<TaskSummary> = (0..9).map(|_| named(&samples::landed(), "aaaaaaaaaaaa", 1)).collect();
    assert!(list::page(&ended, wishes).draw(false).contains("and 4 more"));
    let wishes = list::Wishes { left_out: true, ..wishes };
    assert!(list::page(&ended, wishes).draw(false).contains("and more"), "nobody knows how many more");
    assert_eq!(list::page(&ended, list::Wishes { all: true, ..wishes }).draw(false).matches("aaaaaaaa").count(), 9);
}

#[test]
fn a_refused_landing_names_both_ways_out() {
    let mut summary = TaskSummary::from(&samples::to_review().task());
    summary.reason = "not landed: main is checked out in /home/ada/parser".to_owned();
    let page = super::next::page(&summary).draw(false);
    assert!(page.contains("land k3f9q2mz --update-worktree") && page.contains("checked out another branch"), "{page}");
}

#[test]
fn a_change_is_shown_as_patch_and_as_files() {
    let file = |path: &str, old: Option<&str>, status: &str, added, removed, binary| DiffFile {
        path: path.to_owned(),
        old_path: old.map(str::to_owned),
        status: status.to_owned(),
        added_lines: added,
        removed_lines: removed,
        binary,
    };
    let diff = DiffBody {
        base: sha('a'),
        head: sha('c'),
        files: vec![
            file("src/parse.rs", None, "modified", 120, 3, false),
            file("src/new\u{202e}.rs", Some("src/old.rs"), "renamed", 0, 0, false),
            file("logo.png", None, "added", 0, 0, true),
        ],
        patch: "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new \x1b[2J\n".to_owned(),
        truncated: true,
        notes: Vec::new(),
    };
    assert_snapshot!("stat", patch::stat(&diff).draw(false));
    assert_snapshot!("patch", patch::page(&diff).draw(true).replace('\x1b', "ESC"));
}

fn record(commit: char, code: i32, seq: u64) -> EvidenceRecord {
    EvidenceRecord { seq, digest: evidence(commit, code).digest(), evidence: evidence(commit, code) }
}

#[test]
fn evidence_is_shown_gate_by_gate() {
    let mut other = gate();
    other.name = "lint".to_owned();
    other.required = false;
    let mut failed = gate();
    failed.name = "unit".to_owned();
    let body = EvidenceBody {
        task: TaskId::parse("k3f9q2mzzzzz").unwrap(),
        state: TaskState::InputRequired,
        commit: Some(sha('c')),
        gates: vec![
            GateStanding { gate: gate(), status: GateStatus::Passed, record: Some(record('c', 0, 30)) },
            GateStanding { gate: failed, status: GateStatus::Failed, record: Some(record('c', 101, 31)) },
            GateStanding { gate: other, status: GateStatus::Missing, record: None },
        ],
        earlier: vec![record('b', 101, 20)],
        judgement: Some(Judgement {
            commit: sha('c'),
            passed: false,
            failed: vec!["unit".to_owned()],
            feedback: String::new(),
        }),
        decision: None,
    };
    assert_snapshot!(super::evidence::page(&body, COLUMNS).draw(false));
}

#[test]
fn why_names_people_rules_digests_and_events() {
    let log = samples::landed();
    let folded = log.task();
    let at = |seq: u64| log.envelopes.iter().find(|envelope| envelope.seq == seq).unwrap().at;
    let line = |commit: char, code: i32, seq: u64, current| EvidenceLine {
        seq,
        at: at(seq),
        gate: "test".to_owned(),
        required: true,
        commit: sha(commit),
        current,
        end: evidence(commit, code).end,
        passed: code == 0,
        digest: Digest::of(b"evidence"),
        output_digest: Digest::of(b"output"),
    };
    let body = WhyBody {
        task: folded.id.clone(),
        seq: folded.seq,
        state: TaskState::Completed,
        summary: "ada asked, 1 gate passed on cccccccccc, ada approved, and it landed on main.".to_owned(),
        landed: folded.landed.clone(),
        missing: Vec::new(),
        asked: Asked {
            seq: 1,
            at: at(1),
            by: Principal::person("ada"),
            goal: folded.spec.goal.clone(),
            origin: folded.spec.repo.origin.clone(),
            base_branch: "main".to_owned(),
            base: sha('a'),
        },
        change: Some(Change { head: sha('c'), commit: sha('c'), onto: sha('a'), branch: None }),
        evidence: vec![line('b', 101, 20, false), line('c', 0, 30, true)],
        judgements: Vec::new(),
        decisions: vec![DecisionRecord {
            seq: 31,
            at: at(31),
            current: true,
            decision: folded.decision.clone().unwrap(),
        }],
        approvals: vec![ApprovalRecord {
            seq: 35,
            at: at(35),
            by: Principal::person("ada"),
            head: sha('c'),
            current: true,
            comment: "good".to_owned(),
        }],
        land_requests: Vec::new(),
        denials: Vec::new(),
        landings: vec![LandingRecord {
            seq: 37,
            at: at(37),
            branch: "main".to_owned(),
            commit: sha('c'),
            expected_base: sha('a'),
            ended_seq: Some(38),
            landed: true,
            error: None,
        }],
        outcome: Some(OutcomeRecord {
            seq: 39,
            at: at(39),
            by: Principal::platform(),
            state: TaskState::Completed,
            outcome: Outcome { reason: OutcomeReason::Done, message: "landed on main".to_owned() },
        }),
    };
    assert_snapshot!(why::page(&body, COLUMNS).draw(false));
}
