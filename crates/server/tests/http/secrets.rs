//! Secrets over HTTP: values go in, and nothing that comes out has one.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use server::api::ProblemType;

use crate::world::{TOKEN, World, good, in_world, problem};

const VALUE: &str = "canary-5d1f77aa-value";

fn call(world: &World, method: Method, path: &str) -> RequestBuilder {
    world.local.request(method, format!("http://localhost{path}"))
}

fn put(world: &World, body: &Value) -> RequestBuilder {
    call(world, Method::PUT, "/v1/secrets").json(body)
}

fn token() -> Value {
    json!({ "name": "TOKEN", "hosts": ["api.example"], "value": VALUE })
}

/// A wish that differs from a good one in one field.
fn with(field: &str, value: Value) -> Value {
    let mut wish = token();
    wish[field] = value;
    wish
}

#[tokio::test]
async fn a_secret_is_set_listed_replaced_and_removed_and_its_value_never_comes_back() {
    in_world(false, async |world| {
        let mut said = String::new();
        let set = good(put(world, &token())).await;
        assert_eq!(
            (&set["name"], &set["hosts"], &set["as"]),
            (&json!("TOKEN"), &json!(["api.example"]), &json!("bearer"))
        );
        said += &set.to_string();
        let mut here = with("repo", json!("/srv/project"));
        here["environment"] = json!("ci");
        here["as"] = json!("basic:robot");
        said += &good(put(world, &here)).await.to_string();
        said += &good(put(world, &with("hosts", json!(["b.example", "a.example"])))).await.to_string();
        let list = good(world.get("/v1/secrets")).await;
        let listed = list["secrets"].as_array().unwrap();
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0]["hosts"], json!(["a.example", "b.example"]));
        assert!(listed[0].get("repo").is_none());
        assert_eq!((&listed[1]["environment"], &listed[1]["as"]), (&json!("ci"), &json!("basic:robot")));
        said += &list.to_string();

        let gone = call(world, Method::DELETE, "/v1/secrets/TOKEN").send().await.unwrap();
        assert_eq!(gone.status(), StatusCode::NO_CONTENT);
        problem(call(world, Method::DELETE, "/v1/secrets/TOKEN"), ProblemType::NotFound).await;
        problem(call(world, Method::DELETE, "/v1/secrets/TOKEN?repo=/srv/project"), ProblemType::NotFound).await;
        let place = "/v1/secrets/TOKEN?repo=/srv/project&environment=ci";
        assert!(call(world, Method::DELETE, place).send().await.unwrap().status().is_success());
        assert_eq!(good(world.get("/v1/secrets")).await["secrets"], json!([]));

        let audit = good(world.get("/v1/secrets/audit")).await;
        let told: Vec<_> = audit["changes"].as_array().unwrap().iter().map(|change| &change["action"]).collect();
        assert_eq!(told, ["removed", "removed", "set", "set", "set"]);
        assert!(audit["changes"].as_array().unwrap().iter().all(|change| change["actor"] == "person:ada"));
        said += &audit.to_string();
        assert!(!said.contains(VALUE), "{said}");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_field_is_named_and_a_value_is_not_repeated_by_any_error() {
    in_world(false, async |world| {
        for (field, value) in [
            ("name", json!("lower")),
            ("hosts", json!([])),
            ("hosts", json!(["*.example"])),
            ("hosts", json!(["https://api.example/x"])),
            ("as", json!("query:key")),
            ("repo", json!("relative")),
            ("value", json!("")),
            ("value", json!("short")),
            ("value", json!(format!("{VALUE}\n{VALUE}"))),
            ("value", json!(VALUE.repeat(4_000))),
            ("value", json!(4_111_222_233_334_444_u64)),
            ("value", json!([VALUE])),
        ] {
            let problem = problem(put(world, &with(field, value.clone())), ProblemType::InvalidBody).await;
            assert_eq!(problem.field.as_deref(), Some(field), "{value}: {problem:?}");
            assert!(!problem.detail.contains(VALUE) && !problem.detail.contains("4111"), "{problem:?}");
        }
        problem(put(world, &with("environment", json!("ci"))), ProblemType::InvalidBody).await;
        problem(put(world, &with("unknown", json!(1))), ProblemType::InvalidBody).await;
        for broken in [format!("{{\"value\":\"{VALUE}\""), VALUE.to_owned()] {
            let request = call(world, Method::PUT, "/v1/secrets").header("content-type", "application/json");
            let problem = problem(request.body(broken), ProblemType::MalformedRequest).await;
            assert!(!problem.detail.contains(VALUE), "{problem:?}");
        }
        problem(call(world, Method::DELETE, "/v1/secrets/lower"), ProblemType::InvalidBody).await;
        assert_eq!(good(world.get("/v1/secrets")).await["secrets"], json!([]));
        assert_eq!(good(world.get("/v1/secrets/audit")).await["changes"], json!([]), "what was refused is no change");
        assert!(!world.dir.path().join("secrets.key").exists(), "no key is made for what is not stored");
    })
    .await;
}

#[tokio::test]
async fn on_tcp_secrets_need_the_token_like_everything_else() {
    in_world(false, async |world| {
        let client = reqwest::Client::new();
        let at = |method: Method, path: &str| client.request(method, format!("{}{path}", world.tcp));
        for (method, path) in [
            (Method::PUT, "/v1/secrets"),
            (Method::GET, "/v1/secrets"),
            (Method::DELETE, "/v1/secrets/TOKEN"),
            (Method::GET, "/v1/secrets/audit"),
            (Method::POST, "/v1/secrets/rotate-key"),
        ] {
            problem(at(method.clone(), path).json(&token()), ProblemType::Unauthorized).await;
            problem(at(method, path).bearer_auth("wrong-wrong-wrong-wrong"), ProblemType::Unauthorized).await;
        }
        assert_eq!(good(world.get("/v1/secrets")).await["secrets"], json!([]));
        good(at(Method::PUT, "/v1/secrets").bearer_auth(TOKEN).json(&token())).await;
        assert_eq!(good(at(Method::GET, "/v1/secrets").bearer_auth(TOKEN)).await["secrets"][0]["name"], "TOKEN");
    })
    .await;
}

#[tokio::test]
async fn the_key_can_be_changed_and_a_missing_one_is_a_problem_that_says_what_to_do() {
    in_world(false, async |world| {
        let first = good(put(world, &token())).await["key"].clone();
        let rotated = good(call(world, Method::POST, "/v1/secrets/rotate-key")).await;
        assert_eq!(rotated["resealed"], 1);
        assert_ne!(rotated["key"], first);
        assert_eq!(good(world.get("/v1/secrets")).await["secrets"][0]["key"], rotated["key"]);

        let key = world.dir.path().join("secrets.key");
        std::fs::rename(&key, world.dir.path().join("kept")).unwrap();
        for request in [put(world, &with("name", json!("OTHER"))), call(world, Method::POST, "/v1/secrets/rotate-key")]
        {
            let problem = problem(request, ProblemType::SecretKey).await;
            assert!(
                problem.detail.contains("secrets.key") && problem.detail.contains("Put that key back"),
                "{problem:?}"
            );
        }
        assert_eq!(good(world.get("/v1/secrets")).await["secrets"].as_array().unwrap().len(), 1);
        std::fs::rename(world.dir.path().join("kept"), &key).unwrap();
        good(put(world, &with("name", json!("OTHER")))).await;
    })
    .await;
}
