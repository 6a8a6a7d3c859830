//! What holds for every task, whatever happens to it.

mod story;

use domain::command::{Command, decide};
use domain::effect::{Effect, EffectResult, FailureClass, FailureSource};
use domain::event::{Envelope, Event, chain, chain_root};
use domain::fold::fold;
use domain::id::Digest;
use domain::plan::{Action, plan};
use domain::principal::Principal;
use domain::task::{AgentEnd, OutcomeReason, TaskState};
use proptest::prelude::*;
use story::{Story, at, gate, sha};

/// One roll of the dice per step: what the world answers, and what people do meanwhile.
#[derive(Debug, Clone, Copy)]
struct Roll {
    luck: u8,
    person: u8,
    seconds: u16,
}

fn rolls() -> impl Strategy<Value = Vec<Roll>> {
    let roll =
        (any::<u8>(), any::<u8>(), 0u16..2_000).prop_map(|(luck, person, seconds)| Roll { luck, person, seconds });
    proptest::collection::vec(roll, 1..60)
}

fn failure(class: FailureClass) -> EffectResult {
    EffectResult::Failed { class, source: FailureSource::Infra, message: "no luck".into(), retry_after_ms: None }
}

/// The world's answer to an effect.
fn result(story: &Story, effect: &Effect, luck: u8) -> EffectResult {
    if luck < 30 {
        return failure(if luck < 20 { FailureClass::Retry } else { FailureClass::NeedsPerson });
    }
    let commit = sha(char::from(b'b' + luck % 5));
    match effect {
        Effect::Collect { .. } => EffectResult::Collected { commit: (luck > 60).then_some(commit), notes: vec![] },
        Effect::Publish { .. } => EffectResult::Published { branch: "chargehand/x".into() },
        Effect::MergeBase { .. } => EffectResult::BaseMerged { commit: sha('9') },
        Effect::Land { commit, expected_base, .. } => {
            EffectResult::Landed { commit: commit.clone(), previous: expected_base.clone(), worktree_updated: false }
        }
        Effect::CloseSandbox { .. } => EffectResult::SandboxClosed,
        Effect::BuildEnvironment { .. } => EffectResult::EnvironmentBuilt {
            key: Digest::of(b"key"),
            layers: vec![Digest::of(b"layer")],
            env: vec![],
            notes: vec![],
            reused: luck > 128,
            duration_ms: 1,
        },
        other => panic!("{other:?} is not performed by the platform in {:?}", story.task.state),
    }
}

/// What the orchestrator would do, with the world's answers taken from the dice.
fn step(story: &mut Story, action: Action, luck: u8) {
    match action {
        Action::ChooseGates => {
            let environment = story::environment(luck > 100);
            story.happens(Event::EnvironmentChosen { environment });
            story.happens(Event::GatesChosen { gates: vec![gate("test")], config_digest: None });
        }
        Action::StartAttempt { attempt } => story.happens(Event::AttemptStarted { attempt }),
        Action::RunAgent { attempt } => {
            let sandbox = story.task.attempt_sandbox().unwrap();
            story.does(
                Effect::OpenSandbox { sandbox, attempt },
                EffectResult::SandboxOpened { resumed: false, duration_ms: 1 },
            );
            let end = match luck {
                0..=19 => AgentEnd::Lost { message: "gone".into() },
                20..=29 => AgentEnd::Stopped { reason: OutcomeReason::Budget, message: "spent".into() },
                _ => AgentEnd::Finished { summary: "done".into() },
            };
            story.happens(Event::AgentEnded { attempt, end });
        }
        Action::Recover { id, effect } => {
            let result = result(story, &effect, luck);
            story.happens(Event::EffectEnded { id, result });
        }
        Action::Perform(Effect::RunGate { commit, .. }) => story.gate_ran(&commit, luck > 90),
        Action::Perform(effect) => {
            let result = result(story, &effect, luck);
            story.does(effect, result);
        }
        Action::Judge { commit } => {
            let passed = story.task.evidence_for(&gate("test"), &commit).is_some_and(|e| e.passed);
            story.judged(passed);
        }
        Action::GiveFeedback { source, text } => story.happens(Event::MessageAdded { source, text }),

        Action::Decide { .. } => story.decided(),
        Action::Land => {
            let change = story.task.change.clone().unwrap();
            let effect = if luck % 3 == 0 && change.onto == sha('a') {
                Effect::MergeBase { commit: change.head, onto: sha('8') }
            } else {
                Effect::Land {
                    commit: change.commit,
                    branch: "main".into(),
                    expected_base: change.onto,
                    update_worktree: false,
                }
            };
            let result = result(story, &effect, luck);
            story.does(effect, result);
        }
        Action::AskReview { reason } => story.asked_for_review(&reason),
        Action::End { state, outcome } => story.happens(Event::TaskEnded { state, outcome }),
        Action::WakeAt(_) => {}
    }
}

fn person_acts(story: &mut Story, dice: u8) {
    let command = match dice {
        0..=20 => Command::Say { text: "more".into() },
        21..=60 => Command::Approve { head: None, comment: String::new() },
        61..=110 => Command::Land { update_worktree: false },
        111..=114 => Command::Cancel { reason: String::new() },
        115..=118 => Command::Reject { message: "no".into() },
        _ => return,
    };
    let _ = story.commands(&command);
}

fn live(rolls: &[Roll]) -> Story {
    let mut story = Story::submitted();
    for roll in rolls {
        let next = plan(&story.task, at(story.clock_s)).into_iter().next();
        let planned_on = story.task.seq;
        // People act at any moment, also between a plan and what it leads to.
        person_acts(&mut story, roll.person);
        match next {
            Some(action) if story.task.seq == planned_on => step(&mut story, action, roll.luck),
            Some(_) => {}
            None => break,
        }
        story.clock_s += i64::from(roll.seconds);
    }
    story
}

proptest! {
    #[test]
    fn every_prefix_of_every_life_folds_and_replay_equals_live(rolls in rolls()) {
        let story = live(&rolls);
        for end in 1..=story.log.len() {
            prop_assert!(fold(&story.log[..end]).is_ok());
        }
        prop_assert_eq!(&fold(&story.log).unwrap(), &story.task);
    }

    #[test]
    fn stored_bytes_give_back_the_event_and_the_same_bytes(rolls in rolls()) {
        for envelope in &live(&rolls).log {
            let bytes = envelope.encode().unwrap();
            let read = Envelope::decode(&bytes).unwrap();
            prop_assert_eq!(&read, envelope);
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn no_life_leads_to_a_landing_without_an_approved_judged_change_and_its_evidence(rolls in rolls()) {
        let story = live(&rolls);
        for end in 1..=story.log.len() {
            let Some(Event::EffectStarted { effect: Effect::Land { commit, .. }, .. }) = story.log.get(end).map(|e| &e.event) else { continue };
            let before = fold(&story.log[..end]).unwrap();
            prop_assert!(before.is_approved());
            prop_assert!(before.evidence_for(&gate("test"), commit).is_some_and(|e| e.passed));
            prop_assert!(before.judgement.is_some_and(|j| j.passed && j.commit == *commit));
        }
    }

    #[test]
    fn a_plan_is_the_same_for_the_same_task_and_time_and_empty_only_at_the_end(rolls in rolls()) {
        let story = live(&rolls);
        let now = at(story.clock_s);
        let planned = plan(&story.task, now);
        prop_assert_eq!(&planned, &plan(&story.task, now));
        let cleaning = story.task.failures.as_ref().is_some_and(|failures| failures.effect == "close_sandbox");
        prop_assert!(!planned.is_empty() || story.task.state.is_terminal());
        prop_assert!(planned.is_empty() || !story.task.state.is_terminal() || cleaning || !story.task.sandboxes.is_empty());
        prop_assert_eq!(story.task.wait.is_some(), matches!(story.task.state, TaskState::InputRequired | TaskState::AuthRequired));
        prop_assert_eq!(story.task.outcome.is_some(), story.task.state.is_terminal());
    }

    #[test]
    fn left_alone_every_task_comes_to_an_end(rolls in rolls()) {
        let mut story = live(&rolls);
        for _ in 0..400 {
            let Some(action) = plan(&story.task, at(story.clock_s)).into_iter().next() else { break };
            if let Action::WakeAt(until) = action {
                story.clock_s = until.as_second() - at(0).as_second() + 1;
                continue;
            }
            step(&mut story, action, 200);
        }
        prop_assert!(story.task.state.is_terminal(), "{:?}", story.task.state);
    }

    #[test]
    fn whoever_waits_for_a_person_can_be_helped_by_one(rolls in rolls()) {
        let story = live(&rolls);
        if story.task.wait.is_some() {
            let ways = [
                Command::Answer { text: "yes".into() },
                Command::Approve { head: None, comment: String::new() },
            ];
            let ada = Principal::person("ada");
            prop_assert!(ways.iter().any(|way| decide(&story.task, way, &ada).is_ok()), "{:?}", story.task.wait);
        }
    }

    #[test]
    fn whoever_is_no_person_commands_nothing(rolls in rolls()) {
        let story = live(&rolls);
        let agent = Principal::agent("native", &Principal::person("ada"));
        for command in [Command::Land { update_worktree: true }, Command::Cancel { reason: String::new() }] {
            prop_assert!(decide(&story.task, &command, &agent).is_err());
        }
    }
}

#[test]
fn a_changed_byte_changes_every_hash_after_it() {
    let story = Story::in_review();
    let hashes = |flip: bool| {
        let mut hash = chain_root(&story.task.id);
        let mut all = Vec::new();
        for (number, envelope) in story.log.iter().enumerate() {
            let mut bytes = envelope.encode().unwrap();
            if flip && number == 2 {
                bytes[10] ^= 1;
            }
            hash = chain(&hash, &bytes);
            all.push(hash.clone());
        }
        all
    };
    let (good, bad) = (hashes(false), hashes(true));
    assert_eq!(good[..2], bad[..2]);
    assert!(good.iter().zip(&bad).skip(2).all(|(a, b)| a != b));
}
