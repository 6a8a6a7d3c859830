//! Who is let in, and where the server listens.

use std::os::unix::fs::PermissionsExt as _;

use server::api::ProblemType;
use server::{Secret, ServeError, ServerConfig, serve};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::world::{TOKEN, World, good, in_world, problem};

async fn refused(world: &World, change: impl FnOnce(&mut ServerConfig)) -> ServeError {
    let mut config = ServerConfig { unix_socket: None, tcp: None, ..world.config.clone() };
    change(&mut config);
    serve(config, world.handle.clone(), CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn on_tcp_every_route_but_health_needs_the_token() {
    in_world(false, async |world| {
        let client = reqwest::Client::new();
        let get = |path: &str| client.get(format!("{}{path}", world.tcp));
        for path in ["/v1/tasks", "/v1/tasks/abc", "/v1/openapi.json", "/nowhere"] {
            problem(get(path), ProblemType::Unauthorized).await;
            problem(get(path).bearer_auth("wrong-wrong-wrong-wrong"), ProblemType::Unauthorized).await;
        }
        let stranger = good(get("/v1/health")).await;
        assert_eq!(stranger["status"], "ok");
        assert!(stranger.get("tasks_open").is_none() && stranger.get("pid").is_none(), "{stranger}");
        let known = good(get("/v1/health").bearer_auth(TOKEN)).await;
        assert_eq!(known["tasks_open"], 0);
        assert_eq!(good(get("/v1/tasks").bearer_auth(TOKEN)).await["tasks"], serde_json::json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_name_that_was_pointed_at_this_server_gets_nothing_even_with_the_token() {
    in_world(false, async |world| {
        let request = reqwest::Client::new().get(format!("{}/v1/tasks", world.tcp));
        problem(request.bearer_auth(TOKEN).header("host", "evil.example"), ProblemType::WrongHost).await;
    })
    .await;
}

#[tokio::test]
async fn the_unix_socket_is_its_owners_alone_and_needs_no_token() {
    in_world(false, async |world| {
        let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let health = good(world.get("/v1/health")).await;
        assert_eq!(health["version"], "0.1.0-test");
        assert_eq!(health["pid"], std::process::id());
    })
    .await;
}

#[tokio::test]
async fn no_answer_may_be_kept_framed_or_guessed_at_by_a_browser() {
    in_world(false, async |world| {
        for path in ["/v1/health", "/nowhere"] {
            let answer = world.get(path).send().await.unwrap();
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            assert_eq!(answer.headers()["cache-control"], "no-store");
            assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
            assert!(!answer.headers().contains_key("access-control-allow-origin"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced_and_a_living_one_is_not() {
    in_world(false, async |world| {
        let stale = world.dir.path().join("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let config = ServerConfig { unix_socket: Some(stale.clone()), tcp: None, ..world.config.clone() };
        let stop = CancellationToken::new();
        let bound = serve(config, world.handle.clone(), stop.clone()).await.unwrap();
        let client = reqwest::Client::builder().unix_socket(stale.clone()).build().unwrap();
        assert_eq!(good(client.get("http://localhost/v1/health")).await["status"], "ok");
        let second = refused(world, |config| config.unix_socket = Some(stale.clone())).await;
        assert!(matches!(second, ServeError::SocketInUse { .. }), "{second}");
        drop(client);
        bound.stop().await;
        assert!(!stale.exists(), "the socket's file outlived its server");
    })
    .await;
}

#[tokio::test]
async fn what_can_not_be_listened_on_is_refused_with_what_to_do() {
    in_world(false, async |world| {
        let long = world.dir.path().join("x".repeat(100)).join("chargehand.sock");
        let error = refused(world, |config| config.unix_socket = Some(long)).await;
        assert!(matches!(error, ServeError::SocketPathTooLong { .. }));
        assert!(error.to_string().contains("107") && error.to_string().contains("shorter"), "{error}");

        let file = world.dir.path().join("precious.txt");
        std::fs::write(&file, "keep me").unwrap();
        let error = refused(world, |config| config.unix_socket = Some(file.clone())).await;
        assert!(matches!(error, ServeError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "keep me");

        let missing = world.dir.path().join("missing/chargehand.sock");
        let error = refused(world, |config| config.unix_socket = Some(missing)).await;
        assert!(matches!(error, ServeError::Socket { .. }), "{error}");

        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = refused(world, |config| config.tcp = Some(taken.local_addr().unwrap())).await;
        assert!(matches!(error, ServeError::AddressInUse { .. }), "{error}");

        let error = refused(world, |config| config.tcp = Some("203.0.113.1:0".parse().unwrap())).await;
        assert!(matches!(error, ServeError::NoSuchAddress { .. }), "{error}");

        let error = refused(world, |config| {
            config.tcp = Some("127.0.0.1:0".parse().unwrap());
            config.token = Secret::new("short");
        });
        let error = error.await;
        assert!(matches!(error, ServeError::WeakToken { chars: 5, .. }), "{error}");

        let error = refused(world, |_| {}).await;
        assert!(matches!(error, ServeError::Nowhere), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_was_stopped_answers_no_more() {
    in_world(false, async |world| {
        let stop = CancellationToken::new();
        let config = ServerConfig { unix_socket: None, ..world.config.clone() };
        let bound = serve(config, world.handle.clone(), stop.clone()).await.unwrap();
        let url = format!("http://{}/v1/health", bound.tcp.unwrap());
        assert_eq!(good(reqwest::Client::new().get(&url)).await["status"], "ok");
        stop.cancel();
        bound.stopped().await;
        assert!(reqwest::Client::new().get(&url).send().await.unwrap_err().is_connect());
    })
    .await;
}
