//! Requests and answers, without a task at work.

use reqwest::StatusCode;
use serde_json::json;
use server::api::{EventPage, ProblemType, TaskList};

use crate::world::{can_submit, good, in_world, problem};

#[tokio::test]
async fn the_same_key_and_body_find_the_same_task_and_another_body_is_a_conflict() {
    in_world(false, async |world| {
        if !can_submit(world, "the same idempotency key finds the same task").await {
            return;
        }
        let send = |goal: &str| world.post("/v1/tasks", &world.wish(goal)).header("idempotency-key", "key-1").send();
        let first = send("mend it").await.unwrap();
        assert_eq!(first.status(), StatusCode::CREATED);
        let location = first.headers()["location"].to_str().unwrap().to_owned();
        let first: server::api::Submitted = first.json().await.unwrap();
        assert_eq!(location, format!("/v1/tasks/{}", first.task.id));
        assert_eq!(first.task.requester.name, "ada");
        let second = send("mend it").await.unwrap();
        assert_eq!(second.status(), StatusCode::OK);
        let second: server::api::Submitted = second.json().await.unwrap();
        assert_eq!((second.task.id, second.created), (first.task.id.clone(), false));
        let other = world.post("/v1/tasks", &world.wish("something else")).header("idempotency-key", "key-1");
        let other = problem(other, ProblemType::KeyReused).await;
        assert_eq!(other.task, Some(first.task.id));
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said_with_the_field() {
    in_world(false, async |world| {
        let post = |body: serde_json::Value| world.post("/v1/tasks", &body);
        let wrong = problem(post(json!({"repo": "/r"})), ProblemType::InvalidBody).await;
        assert!(wrong.detail.contains("goal"), "{wrong:?}");
        let wrong = post(json!({"goal": "g", "repo": "/r", "contract": {"isolation": {"nett": "full"}}}));
        let wrong = problem(wrong, ProblemType::InvalidBody).await;
        assert_eq!(wrong.field.as_deref(), Some("contract.isolation.nett"));
        let wrong = post(json!({"goal": "g", "repo": "/r", "contract": {"contract": "aac/7.0"}}));
        let wrong = problem(wrong, ProblemType::InvalidContract).await;
        assert!(wrong.detail.contains("aac/0.1"), "{wrong:?}");
        let empty = problem(post(json!({"goal": "  ", "repo": "/r"})), ProblemType::InvalidBody).await;
        assert_eq!(empty.field.as_deref(), Some("goal"));
        let agent = problem(post(json!({"goal": "g", "repo": "/r", "agent": "robot"})), ProblemType::InvalidBody).await;
        assert_eq!(agent.field.as_deref(), Some("agent"));
        let model = json!({"goal": "g", "repo": "/r", "agent": "command", "argv": ["true"], "model": "a/b"});
        let model = problem(post(model), ProblemType::InvalidBody).await;
        assert_eq!(model.field.as_deref(), Some("model"));
        let argv = problem(post(json!({"goal": "g", "repo": "/r", "argv": ["true"]})), ProblemType::InvalidBody).await;
        assert_eq!(argv.field.as_deref(), Some("argv"));
        problem(post(json!({"goal": "g", "repo": "/r"})), ProblemType::NoModel).await;
        let text = world.local.post("http://localhost/v1/tasks").body("goal=x");
        problem(text, ProblemType::UnsupportedMediaType).await;
        let large = json!({"goal": "x".repeat(1 << 20), "repo": "/r"});
        problem(post(large), ProblemType::TooLarge).await;
    })
    .await;
}

#[tokio::test]
async fn a_repository_that_is_none_is_refused_and_nothing_is_stored() {
    in_world(false, async |world| {
        if !can_submit(world, "a folder that is no repository is refused").await {
            return;
        }
        let before = good(world.get("/v1/health")).await["tasks_open"].clone();
        let mut wish = world.wish("mend it");
        wish["repo"] = json!(world.dir.path());
        let wrong = problem(world.post("/v1/tasks", &wish), ProblemType::Repository).await;
        assert_eq!(wrong.field.as_deref(), Some("repo"));
        assert_eq!(good(world.get("/v1/health")).await["tasks_open"], before);
    })
    .await;
}

#[tokio::test]
async fn unknown_paths_methods_and_parameters_are_problems_too() {
    in_world(false, async |world| {
        problem(world.get("/v1/nothing"), ProblemType::NoSuchRoute).await;
        problem(world.get("/v1/tasks?limit=0"), ProblemType::MalformedRequest).await;
        problem(world.get("/v1/tasks?limti=5"), ProblemType::MalformedRequest).await;
        problem(world.get("/v1/tasks?state=done"), ProblemType::MalformedRequest).await;
        problem(world.get("/v1/tasks/zzz"), ProblemType::NotFound).await;
        problem(world.get("/v1/tasks/zzz/events"), ProblemType::NotFound).await;
        let delete = || world.local.delete("http://localhost/v1/tasks");
        problem(delete(), ProblemType::MethodNotAllowed).await;
        let allow = delete().send().await.unwrap().headers()["allow"].to_str().unwrap().to_owned();
        assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    })
    .await;
}

#[tokio::test]
async fn tasks_are_listed_newest_first_page_by_page_and_found_by_a_prefix() {
    in_world(false, async |world| {
        if !can_submit(world, "tasks are listed page by page").await {
            return;
        }
        for n in 0..40 {
            world.submit(&format!("goal {n}")).await;
        }
        let mut goals = Vec::new();
        let mut path = "/v1/tasks?limit=7&open=true".to_owned();
        let mut ids = Vec::new();
        loop {
            let page: TaskList = serde_json::from_value(good(world.get(&path)).await).unwrap();
            assert!(page.tasks.len() <= 7);
            goals.extend(page.tasks.iter().map(|task| task.goal.clone()));
            ids.extend(page.tasks.iter().map(|task| task.id.clone()));
            match page.next_cursor {
                Some(cursor) => path = format!("/v1/tasks?limit=7&open=true&cursor={cursor}"),
                None => break,
            }
        }
        let mut expected: Vec<String> = (0..40).rev().map(|n| format!("goal {n}")).collect();
        expected.push("try".to_owned());
        assert_eq!(goals, expected);

        let found = good(world.get(&format!("/v1/tasks/{}", ids[0].short()))).await;
        assert_eq!(found["id"], ids[0].as_str());
        // 41 ids begin with 32 different letters, so two share the first one.
        let shared = ids
            .iter()
            .map(|id| &id.as_str()[..1])
            .find(|letter| ids.iter().filter(|id| id.as_str().starts_with(letter)).count() > 1);
        let shared = shared.unwrap();
        let ambiguous = problem(world.get(&format!("/v1/tasks/{shared}")), ProblemType::AmbiguousId).await;
        assert!(ambiguous.candidates.len() > 1);
        assert!(ambiguous.candidates.iter().all(|id| id.as_str().starts_with(shared)));
    })
    .await;
}

#[tokio::test]
async fn events_are_given_as_they_are_stored_and_their_chain_holds() {
    in_world(false, async |world| {
        if !can_submit(world, "events are given as they are stored").await {
            return;
        }
        let id = world.submit("mend it").await;
        for n in 0..25 {
            let answer = world.post(&format!("/v1/tasks/{id}/cancel"), &json!({"reason": format!("{n}")})).send();
            let status = answer.await.unwrap().status();
            assert_eq!(status, if n == 0 { StatusCode::OK } else { StatusCode::CONFLICT });
        }
        let mut hash = domain::event::chain_root(&id);
        let mut path = format!("/v1/tasks/{id}/events?limit=1");
        let mut names = Vec::new();
        loop {
            let page: EventPage = world.get(&path).send().await.unwrap().json().await.unwrap();
            for item in &page.events {
                hash = domain::event::chain(&hash, item.envelope.get().as_bytes());
                assert_eq!(hash, item.hash);
                names.push(item.decode().unwrap().event.name());
            }
            match page.next_after {
                Some(after) => path = format!("/v1/tasks/{id}/events?limit=1&after={after}"),
                None => break,
            }
        }
        assert_eq!(names, ["task_submitted", "cancel_requested", "task_ended"]);
    })
    .await;
}

#[tokio::test]
async fn a_command_that_the_task_does_not_allow_is_refused_with_a_word_for_programs() {
    in_world(false, async |world| {
        if !can_submit(world, "a refused command says why").await {
            return;
        }
        let id = world.submit("mend it").await;
        let post = |verb: &str, body: serde_json::Value| world.post(&format!("/v1/tasks/{id}/{verb}"), &body);
        for (verb, body, reason) in [
            ("answer", json!({"text": "yes"}), "no_question"),
            ("say", json!({"text": "hello"}), "no_listener"),
            ("approve", json!({}), "nothing_to_review"),
            ("land", json!({}), "nothing_to_review"),
            ("reject", json!({"message": "no"}), "nothing_to_review"),
        ] {
            let refused = problem(post(verb, body), ProblemType::Refused).await;
            assert_eq!(refused.reason.as_deref(), Some(reason), "{verb}");
        }
        let empty = problem(post("say", json!({"text": " "})), ProblemType::InvalidBody).await;
        assert_eq!(empty.field.as_deref(), Some("text"));
        let diff = problem(world.get(&format!("/v1/tasks/{id}/diff")), ProblemType::NotFound).await;
        assert_eq!(diff.reason.as_deref(), Some("no_change"));
        let without_body = world.local.post(format!("http://localhost/v1/tasks/{id}/cancel"));
        assert_eq!(good(without_body).await["state"], "canceled");
        let refused = problem(post("cancel", json!({})), ProblemType::Refused).await;
        assert_eq!(refused.reason.as_deref(), Some("ended"));
        let why = good(world.get(&format!("/v1/tasks/{id}/why"))).await;
        assert!(why["summary"].as_str().unwrap().starts_with("nothing landed: canceled"), "{why}");
        assert_eq!(why["asked"]["by"]["name"], "ada");
    })
    .await;
}
