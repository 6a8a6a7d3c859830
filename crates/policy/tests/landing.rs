//! What the built-in rules allow: told as lives of tasks, and as laws over all of them.

#[path = "../../domain/tests/story/mod.rs"]
mod story;

use domain::command::Command;
use domain::effect::{Effect, EffectResult};
use domain::event::Event;
use domain::id::Digest;
use domain::principal::Principal;
use domain::task::{Decision, Task, Tier};
use policy::{ChangeFacts, Denied, LandPermit, decide, permit};
use proptest::prelude::*;
use story::{Story, gate, sha};

fn ada() -> Principal {
    Principal::person("ada")
}

/// A change that is proved, decided and approved.
fn approved() -> Story {
    let mut story = Story::in_review();
    story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
    story
}

fn decision_of(task: &Task) -> Decision {
    let change = task.change.as_ref().unwrap();
    decide(&ChangeFacts {
        commit: &change.commit,
        judgement: task.judgement.as_ref().unwrap(),
        evidence: task.evidence.iter().collect(),
    })
}

#[test]
fn every_proved_change_needs_a_person() {
    let decision = decision_of(&Story::in_review().task);
    assert_eq!((decision.tier, decision.rule.as_str()), (Tier::ByHuman, "cautious.by_human"));
    assert_eq!(decision.evidence_digests.len(), 1);
    assert_eq!(decision.policy_digest, Digest::of(policy::CAUTIOUS.as_bytes()));
}

#[test]
fn a_change_whose_gates_failed_is_forbidden() {
    let mut story = Story::working();
    story.proposes_failing(&sha('b'));
    assert_eq!(decision_of(&story.task).tier, Tier::Forbidden);
}

#[test]
fn the_same_facts_give_the_same_decision() {
    let task = Story::in_review().task;
    assert_eq!(decision_of(&task), decision_of(&task));
}

#[test]
fn a_permit_names_the_commit_the_branch_where_it_must_stand_and_the_evidence() {
    let task = approved().task;
    let permit = permit(&task, &ada()).unwrap();
    assert_eq!((permit.commit(), permit.branch(), permit.expected_base()), (&sha('b'), "main", &sha('a')));
    assert_eq!(permit.evidence_digests(), [task.evidence[0].digest()]);
    assert_eq!(permit.task(), &task.id);
}

#[test]
fn nobody_but_a_person_gets_a_permit() {
    let task = approved().task;
    for who in [Principal::platform(), Principal::agent("native", &ada())] {
        assert!(matches!(permit(&task, &who), Err(Denied::NotAPerson { .. })));
    }
}

#[test]
fn an_unapproved_change_gets_no_permit() {
    assert!(matches!(permit(&Story::in_review().task, &ada()), Err(Denied::NotApproved { .. })));
}

#[test]
fn an_agents_approval_does_not_count() {
    let mut story = Story::in_review();
    let mut envelope = story.envelope(Event::Approved { head: sha('b'), comment: String::new() });
    envelope.actor = Principal::agent("native", &ada());
    domain::fold::apply(&mut story.task, &envelope).unwrap();
    assert!(matches!(permit(&story.task, &ada()), Err(Denied::NotApproved { .. })));
}

#[test]
fn a_merge_needs_evidence_of_its_own() {
    let mut story = approved();
    story.commands(&Command::Land { update_worktree: false }).unwrap();
    story.does(Effect::MergeBase { commit: sha('b'), onto: sha('f') }, EffectResult::BaseMerged { commit: sha('e') });
    assert!(matches!(permit(&story.task, &ada()), Err(Denied::Undecided)));
    story.gate_ran(&sha('e'), true);
    story.judged(true);
    story.decided();
    let permit = permit(&story.task, &ada()).unwrap();
    assert_eq!((permit.commit(), permit.expected_base()), (&sha('e'), &sha('f')));
}

#[test]
fn evidence_that_only_says_passed_while_the_command_failed_is_not_believed() {
    let mut task = approved().task;
    task.evidence[0].end = domain::evidence::CommandEnd::Exited { code: 1 };
    assert!(matches!(permit(&task, &ada()), Err(Denied::Unproved { .. })));
}

/// A task whose parts are put together at random, as a broken or hostile log could.
fn tasks() -> impl Strategy<Value = Task> {
    (0usize..3, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 0usize..3).prop_map(
        |(evidence_of, passed, approve, decide_it, required, approval_of)| {
            let commits = [sha('b'), sha('c'), sha('d')];
            let mut story = Story::in_review();
            story.task.evidence[0].commit = commits[evidence_of].clone();
            story.task.evidence[0].passed = passed;
            let mut spec = gate("test");
            spec.required = required;
            story.task.gates = Some(vec![spec]);
            if !decide_it {
                story.task.decision = None;
            }
            if approve {
                story.commands(&Command::Approve { head: None, comment: String::new() }).unwrap();
                story.task.approvals[0].head = commits[approval_of].clone();
            }
            story.task
        },
    )
}

/// What a permit must rest on, said once more and differently than in the code.
fn rests_on_proof(task: &Task, permit: &LandPermit) -> bool {
    let proved = task.gates.iter().flatten().filter(|gate| gate.required).all(|gate| {
        task.evidence.iter().any(|e| e.gate == *gate && e.commit == *permit.commit() && e.passed && e.end.succeeded())
    });
    let approved = task.approvals.iter().any(|a| Some(&a.head) == task.change.as_ref().map(|change| &change.head));
    proved && approved && task.decision.is_some()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_permit_without_a_decision_an_approval_of_that_change_and_proof_of_that_commit(task in tasks()) {
        if let Ok(permit) = permit(&task, &ada()) {
            prop_assert!(rests_on_proof(&task, &permit));
        }
    }
}
