//! Secrets reach the hosts that they are bound to, and nobody else sees them: not the box, not the
//! records, not other hosts.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use egress::*;
use http_body_util::Full;
use hyper::Response;
use support::*;

fn bound(port: u16, more: &str) -> String {
    format!("allow = [{{ host = \"far.test\", ports = [{port}], private = true, secret = \"TOKEN\"{more} }}]")
}

#[tokio::test]
async fn a_secret_is_added_to_the_gateway_and_taken_out_of_the_answer() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&bound(far.port, ""));
    let headers = "Authorization: Bearer chargehand-secret-TOKEN\r\nCookie: own=1\r\nRange: bytes=0-1\r\n";
    let answer = world.get(&format!("http://far.test:{}/me", far.port), headers).await;
    let seen = &far.seen()[0];
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    assert_eq!((seen.header("cookie"), seen.header("range")), (None, None));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert!(answer.contains("authorization: Bearer ***********************"), "{answer}");
    assert!(!answer.contains(CANARY), "{answer}");
    let record = &world.records(1).await[0];
    assert_eq!((record.secret.as_deref(), record.status), (Some("TOKEN"), Some(200)));
}

#[tokio::test]
async fn basic_credentials_and_own_headers_are_placed_and_searched_for_in_their_encoded_form() {
    let world = World::new();
    let far = world.far().await;
    for (place, name) in [("{ basic = \"me\" }", "authorization"), ("{ header = \"X-Api-Key\" }", "x-api-key")] {
        let _door = world.door(&bound(far.port, &format!(", as = {place}")));
        let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
        let sent = far.seen().last().unwrap().header(name).unwrap().to_owned();
        assert!(!answer.contains(&sent), "{answer}");
        assert!(answer.contains("****"), "{answer}");
    }
    assert_eq!(far.seen()[0].header("authorization"), Some("Basic bWU6Y2FuYXJ5LTdmM2E5YzUxZTJkODRiNjA="));
}

#[tokio::test]
async fn a_client_that_insists_on_tls_gets_it_from_the_boxs_own_authority() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&bound(far.port, ", paths = [\"/ok\"]"));
    let target = format!("far.test:{}", far.port);
    let ask = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let own = world.authority.certificate_pem();
    let answer = world.inside(&target, "far.test", own, &ask("/ok/x", &target)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(CANARY), "{answer}");
    assert_eq!(far.seen()[0].header("authorization"), Some(format!("Bearer {CANARY}").as_str()));
    let denied = world.inside(&target, "far.test", own, &ask("/ok/../no", &target)).await.unwrap();
    assert_eq!(reason(&denied), "path_not_allowed");
    let fronted = world.inside(&target, "far.test", own, &ask("/ok", "other.test")).await.unwrap();
    assert_eq!(reason(&fronted), "host_mismatch");
    let two_lengths =
        "POST /ok HTTP/1.1\r\nHost: far.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let smuggled = world.inside(&target, "far.test", own, two_lengths).await.unwrap();
    assert_eq!(reason(&smuggled), "ambiguous");
    let nested =
        world.inside(&target, "far.test", own, "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n").await;
    assert_eq!(reason(&nested.unwrap()), "host_mismatch");
    assert!(world.inside(&target, "other.test", own, &ask("/ok", "other.test")).await.is_err(), "another server name");
    assert!(
        world.inside(&target, "far.test", &world.trust.pem, &ask("/ok", &target)).await.is_err(),
        "a pinned client"
    );
    let records = world.records(7).await;
    assert_eq!(records[5].denial, Some(Denial::SniMismatch));
    assert!(records[6].failure.as_ref().unwrap().contains("certificate authority"), "{:?}", records[6]);
    assert_eq!(far.seen().len(), 1);
}

#[tokio::test]
async fn an_authority_that_was_kept_is_the_same_to_the_box() {
    let world = World::new();
    let far = world.far().await;
    let kept = BoxAuthority::from_private_pem("b1", world.authority.private_pem()).unwrap();
    assert_eq!(kept.certificate_pem(), world.authority.certificate_pem());
    assert!(!kept.certificate_pem().contains("PRIVATE"));
    let old = world.authority.certificate_pem().to_owned();
    let world = World { authority: Arc::new(kept), ..world };
    let _door = world.door(&bound(far.port, ""));
    let target = format!("far.test:{}", far.port);
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    assert!(world.inside(&target, "far.test", &old, &request).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_of_one_connection_share_one_to_the_far_side() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&bound(far.port, ""));
    let target = format!("far.test:{}", far.port);
    let one = format!("GET /a HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let last = format!("GET /b HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    let answer = world
        .inside(&target, "far.test", world.authority.certificate_pem(), &format!("{one}{one}{last}"))
        .await
        .unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 3, "{answer}");
    assert_eq!(far.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    world.records(3).await;
}

#[tokio::test]
async fn a_placeholder_anywhere_else_is_a_violation() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{0}], private = true, secret = \"TOKEN\" }}, {{ host = \"other.test\", ports = [{0}], private = true }}]",
        far.port
    ));
    let elsewhere = world.get(&format!("http://other.test:{}/", far.port), "X-Key: chargehand-secret-TOKEN\r\n").await;
    assert_eq!(reason(&elsewhere), "placeholder_elsewhere");
    let in_path = world.get(&format!("http://far.test:{}/?k=chargehand-secret-TOKEN", far.port), "").await;
    assert_eq!(reason(&in_path), "placeholder_elsewhere");
    let other_name = world.get(&format!("http://far.test:{}/", far.port), "X-Key: chargehand-secret-OTHER\r\n").await;
    assert_eq!(reason(&other_name), "placeholder_elsewhere");
    world.records(3).await;
    assert_eq!(far.seen().len(), 0);
}

#[tokio::test]
async fn a_secret_that_is_missing_or_unfit_closes_the_way() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&bound(far.port, ""));
    for value in [None, Some("tiny-1"), Some("long enough\nbut of two lines")] {
        let mut vault = world.vault.0.lock().unwrap();
        vault.remove("TOKEN");
        if let Some(value) = value {
            vault.insert("TOKEN".into(), value.into());
        }
        drop(vault);
        let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
        assert_eq!(reason(&answer), "secret_unavailable", "{value:?}");
        assert!(value.is_none_or(|value| !answer.contains(value)), "{answer}");
    }
    assert_eq!(far.seen().len(), 0);
}

#[tokio::test]
async fn an_answer_that_hides_the_secret_in_an_encoding_does_not_pass() {
    let world = World::new();
    let answering = Arc::new(|_: &Seen| {
        Response::builder().header("content-encoding", "gzip").body(Full::new(Bytes::from_static(b"\x1f\x8b"))).unwrap()
    });
    let far = Far::start(Some(world.trust.server(&["far.test"])), answering).await;
    let _door = world.door(&bound(far.port, ""));
    let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
    assert_eq!(reason(&answer), "encoded_answer");
}

#[tokio::test]
async fn a_value_split_over_many_chunks_is_taken_out() {
    let world = World::new();
    let answering = Arc::new(|seen: &Seen| {
        let value = seen.header("authorization").unwrap().replace("Bearer ", "");
        Response::new(Full::new(Bytes::from(format!("{}{value}{}", "x".repeat(16_380), "y".repeat(100)))))
    });
    let far = Far::start(Some(world.trust.server(&["far.test"])), answering).await;
    let _door = world.door(&bound(far.port, ""));
    let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body, format!("{}{}{}", "x".repeat(16_380), "*".repeat(CANARY.len()), "y".repeat(100)));
}

#[tokio::test]
async fn a_switched_protocol_is_searched_as_well() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1000];
        let count = stream.read(&mut head).await.unwrap();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(&[answer, &head[..count]].concat()).await.unwrap();
    });
    let _door = world.door(&bound(port, ", scheme = \"http\", upgrade = true"));
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let request = format!("GET http://far.test:{port}/ HTTP/1.1\r\nHost: far.test:{port}\r\n{headers}\r\n");
    let answer = world.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("authorization: Bearer ****"), "{answer}");
    assert!(!answer.contains(CANARY));
}

#[tokio::test]
async fn a_known_value_in_a_path_is_not_in_the_record() {
    let mut world = World::new();
    world.known = KnownValues::new([("TOKEN".to_owned(), Secret::new(CANARY))]).unwrap();
    let _door = world.door("");
    world.get(&format!("http://far.test/?k={CANARY}"), "").await;
    world.get(&format!("http://{CANARY}.test/"), "").await;
    let records = world.records(2).await;
    assert!(records[1].host.contains("[secret TOKEN]"), "{:?}", records[1]);
}
