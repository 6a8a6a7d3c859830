//! A task's whole life over the API: delegated, watched, looked at, approved, landed, explained.

use domain::event::{Envelope, Event};
use serde_json::json;
use server::api::{DiffBody, EvidenceBody, GateStatus, ProblemType, WhyBody};

use crate::world::{Messages, TOKEN, World, can_submit, good, in_world, problem};

/// Watches over TCP, coming back after every few events, until `until` or the end.
async fn watch(world: &World, id: &str, log: &mut Vec<Envelope>, until: impl Fn(&Event) -> bool) {
    loop {
        let request = reqwest::Client::new().get(format!("{}/v1/tasks/{id}/events", world.tcp)).bearer_auth(TOKEN);
        let last = log.last().map_or(0, |envelope| envelope.seq);
        let mut messages = Messages::open(request.header("last-event-id", last.to_string())).await;
        for _ in 0..5 {
            let message = messages.next().await.unwrap();
            match message.event.as_str() {
                "event" => {
                    let envelope: Envelope = serde_json::from_str(&message.data).unwrap();
                    assert_eq!(message.id, Some(envelope.seq));
                    assert_eq!(envelope.seq, log.len() as u64 + 1);
                    log.push(envelope);
                    if until(&log[log.len() - 1].event) {
                        return;
                    }
                }
                "live" => {}
                "end" => return,
                other => panic!("{other}: {}", message.data),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_delegated_watched_looked_at_approved_landed_and_explained() {
    in_world(true, async |world| {
        if !can_submit(world, "a task's whole life over the API").await {
            return;
        }
        let id = world.submit("mend the readme").await;
        let at = |what: &str| format!("/v1/tasks/{id}{what}");
        let mut log = Vec::new();
        watch(world, id.as_str(), &mut log, |event| matches!(event, Event::WaitStarted { .. })).await;
        let names: Vec<_> = log.iter().map(|envelope| envelope.event.name()).collect();
        assert!(names.contains(&"decided"), "{:#?}", log.last());

        let diff: DiffBody = serde_json::from_value(good(world.get(&at("/diff"))).await).unwrap();
        assert_eq!((diff.files[0].path.as_str(), diff.files[0].added_lines), ("README.md", 1));
        let patch = world.get(&at("/diff")).header("accept", "text/x-diff").send().await.unwrap();
        assert_eq!(patch.headers()["content-type"], "text/x-diff; charset=utf-8");
        assert_eq!(patch.text().await.unwrap(), diff.patch);
        assert!(diff.patch.contains("+mended"), "{}", diff.patch);

        let evidence: EvidenceBody = serde_json::from_value(good(world.get(&at("/evidence"))).await).unwrap();
        let mended = evidence.gates.iter().find(|standing| standing.gate.name == "mended").unwrap();
        assert_eq!(mended.status, GateStatus::Passed);
        let output = &mended.record.as_ref().unwrap().evidence.output_digest;
        let blob = world.get(&at(&format!("/blobs/{output}"))).send().await.unwrap();
        assert_eq!(blob.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(blob.text().await.unwrap().contains("mended"));
        let foreign = world.handle.store().blobs.put(b"of another task".to_vec()).await.unwrap();
        problem(world.get(&at(&format!("/blobs/{foreign}"))), ProblemType::NotFound).await;

        let early = problem(world.post(&at("/land"), &json!({})), ProblemType::Refused).await;
        assert_eq!(early.reason.as_deref(), Some("not_approved"));
        let stale = problem(world.post(&at("/approve"), &json!({"head": diff.base})), ProblemType::Refused).await;
        assert_eq!(stale.reason.as_deref(), Some("stale"));
        good(world.post(&at("/approve"), &json!({"head": diff.head, "comment": "fine"}))).await;
        good(world.post(&at("/land"), &json!({"update_worktree": true}))).await;
        watch(world, id.as_str(), &mut log, |_| false).await;

        let task = good(world.get(&at(""))).await;
        assert_eq!(task["state"], "completed", "{task}");
        let landed = world.repo.read_at("main", "README.md").unwrap();
        assert_eq!(String::from_utf8(landed).unwrap(), "a sample\nmended\n");
        let why: WhyBody = serde_json::from_value(good(world.get(&at("/why"))).await).unwrap();
        assert_eq!(why.landed.as_ref().unwrap().as_str(), world.repo.head_of("main").unwrap());
        assert_eq!(why.approvals[0].by.name, "ada");
        assert!(why.summary.contains("approved by ada") && why.missing.is_empty(), "{}", why.summary);
        assert_eq!(why.decisions[0].decision.evidence_digests, [mended.record.as_ref().unwrap().digest.clone()]);
    })
    .await;
}
