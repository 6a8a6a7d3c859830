//! A task's life, told as events: what follows from what, and what can't.

mod story;

use domain::command::{Command, Refusal, decide};
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::event::{EgressRequest, Event, MessageSource};
use domain::fold::{Illegal, apply, effect_id, fold};
use domain::id::Digest;
use domain::plan::{Action, MAX_FAILURES, plan};
use domain::principal::Principal;
use domain::task::{AgentEnd, OutcomeReason, TaskState, WaitKind};
use story::{Story, at, gate, sha};

#[test]
fn a_new_task_first_learns_its_gates_and_then_starts_an_attempt() {
    let mut story = Story::submitted();
    assert_eq!(plan(&story.task, at(1)), [Action::ChooseGates]);
    story.happens(Event::GatesChosen { gates: vec![gate("test")], config_digest: None });
    assert_eq!(plan(&story.task, at(1)), [Action::StartAttempt { attempt: 1 }]);
    story.happens(Event::AttemptStarted { attempt: 1 });
    assert_eq!(plan(&story.task, at(1)), [Action::RunAgent { attempt: 1 }]);
    assert_eq!(story.task.state, TaskState::Working);
}

#[test]
fn an_environment_is_built_before_the_first_attempt_and_where_it_fails_the_task_ends_with_the_reason() {
    let mut story = Story::submitted();
    story.happens(Event::EnvironmentChosen { environment: story::environment(true) });
    story.happens(Event::GatesChosen { gates: vec![gate("test")], config_digest: None });
    let Action::Perform(build @ Effect::BuildEnvironment { .. }) = story.plans() else { panic!("{:?}", story.plans()) };
    // People may speak while it is built; nobody listens yet, and the agent hears it first.
    story.starts(build.clone());
    assert_eq!(story.task.state, TaskState::Working);
    story.says("be quick");
    let mut failing = story.clone();
    failing.ends(EffectResult::Failed {
        class: FailureClass::Final,
        source: FailureSource::User,
        message: "setup command 1 failed".into(),
        retry_after_ms: None,
    });
    assert!(
        matches!(failing.plans(), Action::End { state: TaskState::Failed, outcome } if outcome.reason == OutcomeReason::User && outcome.message.contains("setup command 1"))
    );

    let layers = vec![Digest::of(b"base"), Digest::of(b"setup")];
    let (env, notes) = (vec![("A".into(), "b".into())], vec!["a note".into()]);
    story.ends(EffectResult::EnvironmentBuilt {
        key: Digest::of(b"key"),
        layers: layers.clone(),
        env,
        notes,
        reused: false,
        duration_ms: 1,
    });
    let built = story.task.environment.clone().unwrap();
    assert_eq!((built.layers, built.env.len()), (Some(layers), 1));
    assert!(story.task.notes.contains(&"a note".to_owned()));
    assert_eq!(story.plans(), Action::StartAttempt { attempt: 1 });
}

#[test]
fn the_newest_kept_files_belong_to_the_attempt_that_kept_them() {
    let mut story = Story::working();
    let sandbox = story.task.attempt_sandbox().unwrap();
    let keep = |turn| Effect::Snapshot { sandbox: sandbox.clone(), attempt: 1, turn };
    let taken = |name: &[u8]| EffectResult::SnapshotTaken { layers: vec![Digest::of(name)], duration_ms: 1 };
    story.does(keep(1), taken(b"one"));
    story.does(keep(3), taken(b"three"));
    let files = story.task.attempt.as_ref().unwrap().files.clone().unwrap();
    assert_eq!((files.turn, files.layers), (3, vec![Digest::of(b"three")]));
    // A step that could not be kept is no failure of the task's.
    story.does(
        keep(4),
        EffectResult::Failed {
            class: FailureClass::Unknown,
            source: FailureSource::Infra,
            message: "no".into(),
            retry_after_ms: None,
        },
    );
    assert!(story.task.failures.is_none());
    story.happens(Event::AgentEnded { attempt: 1, end: AgentEnd::Lost { message: "the box is gone".into() } });
    story.happens(Event::AttemptStarted { attempt: 2 });
    assert!(story.task.attempt.as_ref().unwrap().files.is_none());
}

#[test]
fn what_was_not_let_out_of_a_box_counts_as_denied_also_after_the_end() {
    let mut story = Story::working();
    let sandbox = story.task.attempt_sandbox().unwrap();
    let request = |denied: Option<&str>| EgressRequest {
        at: at(0),
        method: "GET".into(),
        host: "api.example.com".into(),
        port: 443,
        path: "/".into(),
        rule: None,
        denied: denied.map(str::to_owned),
        failure: None,
        status: None,
        secret: None,
        up_bytes: 1,
        down_bytes: 1,
        duration_ms: 1,
    };
    let report = |sandbox| Event::EgressReported {
        sandbox,
        requests: vec![request(None), request(Some("not listed"))],
        unlisted: 0,
    };
    story.happens(report(sandbox.clone()));
    story.commands(&Command::Cancel { reason: String::new() }).unwrap();
    if !story.task.state.is_terminal() {
        let Action::End { state, outcome } = story.plans() else { panic!("{:?}", story.plans()) };
        story.happens(Event::TaskEnded { state, outcome });
    }
    story.happens(report(sandbox));
    assert_eq!(story.task.denials, 2);
}

#[test]
fn a_finished_agent_is_collected_gated_judged_decided_published_and_then_reviewed() {
    let mut story = Story::working();
    story.agent_finishes();
    assert!(matches!(story.plans(), Action::Perform(Effect::Collect { attempt: 1, round: 0 })));
    story.collected(&sha('b'));
    assert!(matches!(story.plans(), Action::Perform(Effect::RunGate { .. })));
    story.gate_ran(&sha('b'), true);
    assert_eq!(story.plans(), Action::Judge { commit: sha('b') });
    story.judged(true);
    assert_eq!(story.plans(), Action::Decide { commit: sha('b') });
    story.decided();
    assert!(matches!(story.plans(), Action::Perform(Effect::Publish { .. })));
    story.published();
    assert!(matches!(story.plans(), Action::AskReview { .. }));
}

#[test]
fn failed_gates_go_back_to_the_agent_a_bounded_number_of_times() {
    let mut story = Story::working();
    for round in 0..3 {
        story.proposes_failing(&sha(char::from(b'a' + round)));
        assert!(matches!(story.plans(), Action::GiveFeedback { source: MessageSource::Gates, .. }), "round {round}");
        story.happens(Event::MessageAdded { source: MessageSource::Gates, text: "test failed".into() });
        assert_eq!(story.plans(), Action::RunAgent { attempt: 1 });
    }
    story.proposes_failing(&sha('d'));
    let Action::End { state: TaskState::Failed, outcome } = story.plans() else { panic!("{:?}", story.plans()) };
    assert_eq!(outcome.reason, OutcomeReason::Stuck);
}

#[test]
fn an_agent_that_changes_nothing_after_its_gates_failed_is_stuck_at_once() {
    let mut story = Story::working();
    story.proposes_failing(&sha('b'));
    story.happens(Event::MessageAdded { source: MessageSource::Gates, text: "test failed".into() });
    story.agent_finishes();
    story.collected(&sha('b'));
    assert_eq!(story.plans(), Action::Judge { commit: sha('b') }, "the evidence of that commit is there already");
    story.judged(false);
    let Action::End { outcome, .. } = story.plans() else { panic!("{:?}", story.plans()) };
    assert!(outcome.message.contains("changed nothing"), "{}", outcome.message);
}

#[test]
fn an_end_without_any_change_is_asked_about_once() {
    let mut story = Story::working();
    let ends_without_a_change = |story: &mut Story| {
        story.agent_finishes();
        let round = story.task.attempt.as_ref().unwrap().round;
        story.does(Effect::Collect { attempt: 1, round }, EffectResult::Collected { commit: None, notes: vec![] });
    };
    ends_without_a_change(&mut story);
    let Action::GiveFeedback { source, text } = story.plans() else { panic!("{:?}", story.plans()) };
    story.happens(Event::MessageAdded { source, text });
    assert_eq!(story.plans(), Action::RunAgent { attempt: 1 });
    ends_without_a_change(&mut story);
    let Action::End { outcome, .. } = story.plans() else { panic!("{:?}", story.plans()) };
    assert_eq!((outcome.reason, outcome.message.contains("said: done")), (OutcomeReason::Stuck, true));
}

#[test]
fn what_was_made_before_the_budget_ran_out_is_brought_out_of_the_box() {
    let mut story = Story::working();
    let end = AgentEnd::Stopped { reason: OutcomeReason::Budget, message: "spent".into() };
    story.happens(Event::AgentEnded { attempt: 1, end });
    assert!(matches!(story.plans(), Action::Perform(Effect::Collect { .. })));
    story.collected(&sha('b'));
    let Action::End { outcome, .. } = story.plans() else { panic!("{:?}", story.plans()) };
    assert_eq!(outcome.reason, OutcomeReason::Budget);
    assert!(outcome.message.contains("`diff`"), "{}", outcome.message);
}

#[test]
fn a_stop_keeps_its_reason_although_nothing_could_be_brought_out() {
    let mut story = Story::working();
    let end = AgentEnd::Stopped { reason: OutcomeReason::Budget, message: "spent".into() };
    story.happens(Event::AgentEnded { attempt: 1, end });
    story.effect_fails(FailureClass::Retry);
    assert!(matches!(story.plans(), Action::End { outcome, .. } if outcome.reason == OutcomeReason::Budget));
}

#[test]
fn evidence_of_an_earlier_commit_proves_nothing_about_a_later_one() {
    let mut story = Story::working();
    story.proposes(&sha('b'));
    story.says("also cover nested lists");
    story.agent_finishes();
    story.collected(&sha('c'));
    assert!(matches!(story.plans(), Action::Perform(Effect::RunGate { commit, .. }) if commit == sha('c')));
}

#[test]
fn an_approval_is_void_for_the_next_commit() {
    let mut story = Story::in_review();
    story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
    assert!(story.task.is_approved());
    story.says("one more thing");
    story.agent_finishes();
    story.collected(&sha('c'));
    assert!(!story.task.is_approved());
}

#[test]
fn nothing_lands_unapproved_and_the_refusal_says_what_to_do() {
    let mut story = Story::in_review();
    let refusal = story.commands(&Command::Land { update_worktree: false }).unwrap_err();
    assert!(matches!(refusal, Refusal::NotApproved { .. }));
    assert!(refusal.to_string().contains("approve"));
}

#[test]
fn approving_another_commit_than_the_proposed_one_is_refused() {
    let mut story = Story::in_review();
    let refusal = story.commands(&Command::Approve { head: Some(sha('e')), comment: String::new() });
    assert!(matches!(refusal, Err(Refusal::Stale { .. })));
}

#[test]
fn an_agent_can_not_give_a_persons_word() {
    let story = Story::in_review();
    let agent = Principal::agent("native", &Principal::person("ada"));
    for command in [Command::Approve { head: None, comment: String::new() }, Command::Land { update_worktree: false }] {
        assert!(matches!(decide(&story.task, &command, &agent), Err(Refusal::NotAPerson { .. })));
    }
}

#[test]
fn cancel_ends_the_task_at_once_and_closes_what_was_open() {
    let mut story = Story::working();
    story.starts(Effect::RunCommand { attempt: 1, argv: vec!["sleep".into()] });
    story.commands(&Command::Cancel { reason: "changed my mind".into() }).unwrap();
    assert_eq!(story.task.state, TaskState::Canceled);
    assert!(story.task.open_effects.is_empty());
}

#[test]
fn a_cancel_during_a_landing_waits_for_its_result_and_names_the_race() {
    let mut story = Story::landing();
    story.commands(&Command::Cancel { reason: String::new() }).unwrap();
    assert_eq!(story.task.state, TaskState::Working);
    let result = EffectResult::Landed { commit: sha('b'), previous: sha('a'), worktree_updated: false };
    story.ends(result);
    let Action::End { state: TaskState::Completed, outcome } = story.plans() else { panic!("{:?}", story.plans()) };
    assert!(outcome.message.contains("had landed when the cancel came"));
}

#[test]
fn what_was_open_when_the_platform_stopped_is_recovered_before_anything_new() {
    let mut story = Story::working();
    story.starts(Effect::RunCommand { attempt: 1, argv: vec!["make".into()] });
    assert!(matches!(story.plans(), Action::Recover { effect: Effect::RunCommand { .. }, .. }));
}

#[test]
fn a_question_waits_for_its_owner_and_the_answer_is_the_tools_result() {
    let mut story = Story::working();
    story.asks("tabs or spaces?");
    assert_eq!(story.task.state, TaskState::InputRequired);
    assert_eq!(story.task.wait.as_ref().unwrap().kind, WaitKind::Question);
    assert!(matches!(story.plans(), Action::WakeAt(_)));
    assert!(matches!(story.commands(&Command::Say { text: "hm".into() }), Err(Refusal::QuestionOpen)));
    story.commands(&Command::Answer { text: "spaces".into() }).unwrap();
    assert_eq!(story.task.state, TaskState::Working);
    assert!(story.task.wait.is_none() && story.task.open_effects.is_empty());
}

#[test]
fn a_wait_that_nobody_ends_expires_with_a_reason() {
    let mut story = Story::working();
    story.asks("tabs or spaces?");
    let late = story.task.wait.as_ref().unwrap().expires_at;
    let planned = plan(&story.task, late);
    let [Action::End { outcome, .. }] = planned.as_slice() else { panic!("{planned:?}") };
    assert_eq!(outcome.reason, OutcomeReason::Timeout);
    assert!(outcome.message.contains("tabs or spaces?"));
}

#[test]
fn waiting_for_people_does_not_use_up_the_wall_budget() {
    let mut story = Story::in_review();
    let wall_s = i64::try_from(story.task.spec.contract.budget.wall_ms / 1000).unwrap();
    story.clock_s += wall_s * 2;
    assert!(matches!(story.plans(), Action::WakeAt(_)));
    story.says("go on");
    assert_eq!(story.plans(), Action::RunAgent { attempt: 1 });
    story.clock_s += wall_s;
    assert!(matches!(story.plans(), Action::End { state: TaskState::Failed, .. }));
}

#[test]
fn a_failed_effect_is_tried_again_later_and_not_for_ever() {
    let mut story = Story::working();
    story.agent_finishes();
    for _ in 1..MAX_FAILURES {
        story.effect_fails(FailureClass::Retry);
        assert!(matches!(story.plans(), Action::WakeAt(_)));
        story.clock_s += 130;
        assert!(matches!(story.plans(), Action::Perform(Effect::Collect { .. })));
    }
    story.effect_fails(FailureClass::Retry);
    let Action::End { outcome, .. } = story.plans() else { panic!("{:?}", story.plans()) };
    assert_eq!(outcome.reason, OutcomeReason::Infra);
}

#[test]
fn a_landing_that_needs_a_person_goes_back_to_review_with_the_reason() {
    let mut story = Story::landing();
    story.ends(EffectResult::Failed {
        class: FailureClass::NeedsPerson,
        source: FailureSource::User,
        message: "main is checked out".into(),
        retry_after_ms: None,
    });
    let Action::AskReview { reason } = story.plans() else { panic!("{:?}", story.plans()) };
    assert!(reason.contains("main is checked out"));
    story.asked_for_review(&reason);
    story.commands(&Command::Land { update_worktree: true }).unwrap();
    assert_eq!(story.plans(), Action::Land);
}

#[test]
fn a_message_while_the_result_is_collected_makes_that_result_out_of_date() {
    let mut story = Story::working();
    story.agent_finishes();
    story.starts(Effect::Collect { attempt: 1, round: 0 });
    story.says("wait, also rename it");
    story.ends(EffectResult::Collected { commit: Some(sha('b')), notes: vec![] });
    assert_eq!(story.plans(), Action::RunAgent { attempt: 1 });
    story.agent_finishes();
    assert!(matches!(story.plans(), Action::Perform(Effect::Collect { .. })));
}

#[test]
fn a_lost_attempt_is_followed_by_another_on_a_new_box_and_not_for_ever() {
    let mut story = Story::working();
    for attempt in 1..domain::plan::MAX_ATTEMPTS {
        story.happens(Event::AgentEnded { attempt, end: AgentEnd::Lost { message: "box gone".into() } });
        assert!(matches!(story.plans(), Action::WakeAt(_)), "what was lost once is likely to be lost at once again");
        story.clock_s += 10;
        assert_eq!(story.plans(), Action::StartAttempt { attempt: attempt + 1 });
        story.happens(Event::AttemptStarted { attempt: attempt + 1 });
    }
    story.happens(Event::AgentEnded { attempt: 3, end: AgentEnd::Lost { message: "box gone".into() } });
    assert!(matches!(story.plans(), Action::End { state: TaskState::Failed, .. }));
}

#[test]
fn a_branch_that_can_not_be_shown_leaves_the_proved_change_in_review_and_landable() {
    let mut story = Story::working();
    story.agent_finishes();
    story.collected(&sha('b'));
    story.gate_ran(&sha('b'), true);
    story.judged(true);
    story.decided();
    story.effect_fails(FailureClass::NeedsPerson);
    let Action::AskReview { reason } = story.plans() else { panic!("{:?}", story.plans()) };
    story.asked_for_review(&reason);
    story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
    story.commands(&Command::Land { update_worktree: false }).unwrap();
    assert_eq!(story.plans(), Action::Land);
}

#[test]
fn a_merge_whose_gates_fail_can_not_be_landed() {
    let mut story = Story::in_review();
    story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
    story.commands(&Command::Land { update_worktree: false }).unwrap();
    story.does(Effect::MergeBase { commit: sha('b'), onto: sha('f') }, EffectResult::BaseMerged { commit: sha('e') });
    story.gate_ran(&sha('e'), false);
    story.judged(false);
    let Action::AskReview { reason } = story.plans() else { panic!("{:?}", story.plans()) };
    story.asked_for_review(&reason);
    let refusal = story.commands(&Command::Land { update_worktree: false }).unwrap_err();
    assert!(matches!(refusal, Refusal::GatesFailed { .. }), "{refusal}");
}

#[test]
fn nobody_is_asked_to_look_at_a_change_that_is_not_there() {
    let mut story = Story::in_review();
    story.says("one more thing");
    let wait = Story::in_review().task.wait.unwrap();
    let envelope = story.envelope(Event::WaitStarted { wait });
    assert!(matches!(apply(&mut story.task, &envelope), Err(Illegal::Transition { .. })));
}

#[test]
fn a_landing_that_nobody_approved_or_that_is_not_proposed_can_not_even_begin() {
    let land = |commit| Effect::Land { commit, branch: "main".into(), expected_base: sha('a'), update_worktree: false };
    let mut story = Story::in_review();
    story.happens(Event::WaitEnded { because: "test".into() });
    let unapproved = story.envelope(Event::EffectStarted { id: effect_id(&story.task), effect: land(sha('b')) });
    assert!(apply(&mut story.task, &unapproved).is_err());
    story.happens(Event::Approved { head: sha('b'), comment: String::new() });
    let other = story.envelope(Event::EffectStarted { id: effect_id(&story.task), effect: land(sha('c')) });
    assert!(apply(&mut story.task, &other).is_err());
    let proposed = story.envelope(Event::EffectStarted { id: effect_id(&story.task), effect: land(sha('b')) });
    assert!(apply(&mut story.task, &proposed).is_ok());
}

#[test]
fn a_box_of_an_ended_task_that_can_not_be_removed_is_left_after_a_while() {
    let mut story = Story::working();
    let sandbox = story.task.attempt_sandbox().unwrap();
    story.does(
        Effect::OpenSandbox { sandbox, attempt: 1 },
        EffectResult::SandboxOpened { resumed: false, duration_ms: 1 },
    );
    story.commands(&Command::Cancel { reason: String::new() }).unwrap();
    for _ in 0..domain::plan::MAX_CLOSE_FAILURES {
        story.effect_fails(FailureClass::Retry);
        story.clock_s += 200;
    }
    assert_eq!(plan(&story.task, at(story.clock_s)), []);
}

#[test]
fn a_base_that_moved_needs_new_evidence_for_the_merge() {
    let mut story = Story::in_review();
    story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
    story.commands(&Command::Land { update_worktree: false }).unwrap();
    story.starts(Effect::MergeBase { commit: sha('b'), onto: sha('f') });
    story.ends(EffectResult::BaseMerged { commit: sha('e') });
    assert!(matches!(story.plans(), Action::Perform(Effect::RunGate { commit, .. }) if commit == sha('e')));
    story.gate_ran(&sha('e'), true);
    story.judged(true);
    story.decided();
    assert_eq!(story.plans(), Action::Land);
}

#[test]
fn a_terminal_task_takes_no_event_but_cleaning_up() {
    let mut story = Story::working();
    story.commands(&Command::Cancel { reason: String::new() }).unwrap();
    for event in [
        Event::AttemptStarted { attempt: 2 },
        Event::CancelRequested { reason: String::new() },
        Event::MessageAdded { source: MessageSource::Person, text: "hello".into() },
    ] {
        let envelope = story.envelope(event);
        let before = story.task.clone();
        assert!(matches!(apply(&mut story.task, &envelope), Err(Illegal::Transition { .. })));
        assert_eq!(story.task, before, "a refused event changes nothing");
    }
}

#[test]
fn only_the_legal_moves_between_states_exist() {
    use TaskState as S;
    let legal: Vec<(S, S)> = S::ALL
        .iter()
        .flat_map(|from| S::ALL.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from.may_become(*to))
        .collect();
    assert_eq!(legal.len(), 4 + 6 + 5 + 5);
    assert!(legal.iter().all(|(from, _)| !from.is_terminal()));
    assert!(!legal.contains(&(S::Submitted, S::Completed)));
}

#[test]
fn a_log_with_a_gap_a_double_or_a_foreign_event_does_not_fold() {
    let story = Story::in_review();
    let mut gap = story.log.clone();
    gap.remove(3);
    assert!(matches!(fold(&gap), Err(Illegal::Sequence { .. })));
    let mut double = story.log.clone();
    double.insert(3, double[3].clone());
    assert!(matches!(fold(&double), Err(Illegal::Sequence { .. })));
    assert!(matches!(fold(&story.log[1..]), Err(Illegal::Beginning { .. })));
    assert!(matches!(fold(&[]), Err(Illegal::Beginning { seq: 0, .. })));
}
