//! What passes a door, what does not and why, and that each is on record.

mod support;

use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

#[tokio::test]
async fn an_allowed_request_passes_and_is_on_record() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port));
    let answer = world
        .get(&format!("http://far.test:{}/a/../b?x=1", far.port), "X-A: b\r\nConnection: x-hop\r\nX-Hop: 1\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /b?x=1"), "{answer}");
    let seen = &far.seen()[0];
    assert_eq!(seen.header("x-a"), Some("b"));
    assert_eq!(seen.header("x-hop"), None);
    assert_eq!(seen.header("host"), Some(format!("far.test:{}", far.port).as_str()));
    let record = &world.records(1).await[0];
    assert_eq!((record.method.as_str(), record.path.as_str(), record.status), ("GET", "/b?x=1", Some(200)));
    assert_eq!(record.dialled.unwrap().to_string(), format!("127.0.0.1:{}", far.port));
    assert_eq!(record.entry.as_deref(), Some("far.test"));
    assert!(record.up_bytes > 50 && record.down_bytes > 50, "{record:?}");
}

#[tokio::test]
async fn plain_http_goes_out_as_it_is_only_where_an_entry_says_so() {
    let world = World::new();
    let far = Far::start(None, echo()).await;
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{}], scheme = \"http\", private = true }}]",
        far.port
    ));
    let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn everything_else_is_refused_with_its_reason() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{}], private = true, methods = [\"GET\"], paths = [\"/ok\"] }}, {{ host = \"here.test\" }}, {{ host = \"169.254.169.254\", scheme = \"http\", private = true }}]",
        far.port
    ));
    let port = far.port;
    let cases: Vec<(String, &str)> = vec![
        ("GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".into(), "host_not_listed"),
        (format!("GET http://far.test:{port}/no HTTP/1.1\r\nHost: far.test:{port}\r\n\r\n"), "path_not_allowed"),
        (format!("GET http://far.test:{port}/ok%2f..%2fno HTTP/1.1\r\nHost: far.test:{port}\r\n\r\n"), "path_not_allowed"),
        (format!("PUT http://far.test:{port}/ok HTTP/1.1\r\nHost: far.test:{port}\r\n\r\n"), "method_not_allowed"),
        ("GET http://far.test:81/ok HTTP/1.1\r\nHost: far.test:81\r\n\r\n".into(), "port_not_listed"),
        (format!("GET http://far.test:{port}/ok HTTP/1.1\r\nHost: evil.test\r\n\r\n"), "host_mismatch"),
        (format!("GET http://far.test:{port}/ok HTTP/1.1\r\nHost: far.test:{port}\r\nHost: evil.test\r\n\r\n"), "host_mismatch"),
        (format!("GET http://far.test:{port}/ok\\..\\no HTTP/1.1\r\nHost: far.test:{port}\r\n\r\n"), "bad_path"),
        (format!("GET http://u@far.test:{port}/ok HTTP/1.1\r\nHost: far.test:{port}\r\n\r\n"), "bad_target"),
        ("GET http://2130706433/ HTTP/1.1\r\nHost: 2130706433\r\n\r\n".into(), "bad_target"),
        ("GET http://127.1/ HTTP/1.1\r\nHost: 127.1\r\n\r\n".into(), "bad_target"),
        ("GET / HTTP/1.1\r\nHost: far.test\r\n\r\n".into(), "not_for_proxy"),
        ("GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".into(), "host_not_listed"),
        ("GET http://here.test/ HTTP/1.1\r\nHost: here.test\r\n\r\n".into(), "private_address"),
        ("GET http://169.254.169.254/latest HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n".into(), "forbidden_address"),
        (format!("GET http://far.test:{port}/ok HTTP/1.1\r\nHost: far.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "upgrade"),
        ("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n".into(), "host_not_listed"),
        ("CONNECT here.test:443 HTTP/1.1\r\nHost: far.test:443\r\n\r\n".into(), "host_mismatch"),
        ("CONNECT here.test:443 HTTP/1.1\r\nHost: here.test:443\r\n\r\n".into(), "private_address"),
        ("CONNECT here.test HTTP/1.1\r\nHost: here.test\r\n\r\n".into(), "bad_target"),
        ("CONNECT 0x7f000001:443 HTTP/1.1\r\n\r\n".into(), "bad_target"),
        ("POST http://here.test/ HTTP/1.1\r\nHost: here.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), "ambiguous"),
    ];
    let count = cases.len();
    for (request, expect) in &cases {
        let answer = world.raw(request.as_bytes()).await;
        assert_eq!(reason(&answer), *expect, "{request}{answer}");
    }
    let records = world.records(count).await;
    for ((request, expect), record) in cases.iter().zip(&records) {
        assert_eq!(record.denial.as_ref().map(|denial| denial.code()), Some(*expect), "{request} {record:?}");
        assert_eq!(record.dialled, None);
    }
    assert_eq!(far.connections.load(std::sync::atomic::Ordering::SeqCst), 0, "nothing was dialled");
}

#[tokio::test]
async fn without_a_list_nothing_passes_and_nothing_is_resolved() {
    let world = World::new();
    let _door = world.door("");
    assert_eq!(reason(&world.get("http://far.test/", "").await), "nothing_allowed");
    assert_eq!(reason(&world.connect("far.test:443").await.unwrap_err()), "nothing_allowed");
    assert_eq!(world.names.1.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_blind_tunnel_carries_tls_to_the_host_that_it_names() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port));
    let target = format!("far.test:{}", far.port);
    let request = format!("GET /x HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    let answer = world.inside(&target, "far.test", &world.trust.pem, &request).await.unwrap();
    assert!(answer.contains("GET /x"), "{answer}");
    assert!(world.inside(&target, "other.test", &world.trust.pem, &request).await.is_err());
    let records = world.records(2).await;
    assert_eq!((records[0].method.as_str(), records[0].denial.as_ref()), ("CONNECT", None));
    assert!(records[0].down_bytes > 500, "{:?}", records[0]);
    assert_eq!(records[1].denial, Some(egress::Denial::SniMismatch));
    assert_eq!(far.seen().len(), 1);
}

#[tokio::test]
async fn nothing_but_tls_passes_a_blind_tunnel_unless_the_entry_says_so() {
    let world = World::new();
    let far = Far::start(None, echo()).await;
    let entry =
        |more: &str| format!("allow = [{{ host = \"far.test\", ports = [{}], private = true{more} }}]", far.port);
    let target = format!("far.test:{}", far.port);
    let request = b"GET /x HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n";
    let door = world.door(&entry(""));
    let mut tunnel = world.connect(&target).await.unwrap();
    tunnel.write_all(request).await.unwrap();
    let mut out = String::new();
    let _ = tunnel.read_to_string(&mut out).await;
    assert_eq!((out.as_str(), far.seen().len()), ("", 0));
    assert_eq!(world.records(1).await[0].denial, Some(egress::Denial::NotTls));
    drop(door);
    let _door = world.door(&entry(", scheme = \"tcp\""));
    let mut tunnel = world.connect(&target).await.unwrap();
    tunnel.write_all(request).await.unwrap();
    tunnel.read_to_string(&mut out).await.unwrap();
    assert!(out.contains("GET /x"), "{out}");
}

#[tokio::test]
async fn a_box_that_stays_silent_in_a_tunnel_gets_nothing_through_later() {
    let world = World::new();
    let far = Far::start(None, echo()).await;
    let _door = world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port));
    let mut tunnel = world.connect(&format!("far.test:{}", far.port)).await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut out = Vec::new();
    tunnel.read_to_end(&mut out).await.unwrap();
    assert_eq!(out.len(), 0);
    assert_eq!(world.records(1).await[0].up_bytes, 0);
}

#[tokio::test]
async fn a_door_opens_at_the_end_of_a_long_path() {
    let world = World::new();
    let long = world.folder.path().join("a".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let folder = tempfile::TempDir::new_in(&long).unwrap();
    let world = World { folder, ..world };
    let _door = world.door("");
    assert!(world.socket().exists());
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_judged_each_time_and_dialled_as_judged() {
    let world = World::new();
    let far = world.far().await;
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{0}] }}, {{ host = \"own.test\", ports = [{0}], private = true }}]",
        far.port
    ));
    // TEST-NET is judged as not public, too: a public answer that fails would need the network.
    world.names.set("far.test", &[&["127.0.0.1"]]);
    assert_eq!(reason(&world.get(&format!("http://far.test:{}/", far.port), "").await), "private_address");
    world.names.set("far.test", &[&["1.1.1.1", "10.0.0.1"]]);
    assert_eq!(reason(&world.get(&format!("http://far.test:{}/", far.port), "").await), "private_address");
    world.names.set("own.test", &[&["127.0.0.1"], &["169.254.169.254"]]);
    let failed = world.get(&format!("http://own.test:{}/", far.port), "").await;
    assert!(failed.contains("TLS with own.test"), "the first answer is dialled: {failed}");
    assert_eq!(reason(&world.get(&format!("http://own.test:{}/", far.port), "").await), "forbidden_address");
    assert_eq!(world.names.1.load(std::sync::atomic::Ordering::SeqCst), 4, "each request resolves once");
}

#[tokio::test]
async fn the_servers_own_addresses_are_closed_to_every_entry() {
    let mut world = World::new();
    world.never = vec!["[::ffff:127.0.0.1]:0".parse().unwrap()];
    let _door = world.door("allow = [{ host = \"far.test\", private = true }]");
    assert_eq!(reason(&world.get("http://far.test/", "").await), "forbidden_address");
}

#[tokio::test]
async fn a_dropped_door_cuts_what_it_carried_and_a_new_one_takes_its_place() {
    let world = World::new();
    let far = world.far().await;
    let list = format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port);
    let door = world.door(&list);
    let mut tunnel = world.connect(&format!("far.test:{}", far.port)).await.unwrap();
    drop(door);
    assert_eq!(tunnel.read(&mut [0; 10]).await.unwrap_or(0), 0, "the tunnel is cut");
    assert!(UnixStream::connect(world.socket()).await.is_err(), "nobody answers");
    world.records(1).await;

    // A door that was killed leaves its socket behind.
    std::fs::write(world.socket(), "stale").unwrap();
    let first = world.door(&list);
    let _second = world.door(&list);
    drop(first);
    let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "the second door kept its socket: {answer}");
}

#[tokio::test]
async fn the_socket_can_be_used_by_the_users_of_a_box() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let _door = world.door("");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.socket()), 0o666);
    assert_eq!(mode(world.socket().parent().unwrap()), 0o711);
}

#[tokio::test]
async fn a_box_that_hogs_its_connections_is_refused_and_only_that_box() {
    let mut world = World::new();
    world.limits.connections = 2;
    world.limits.queue = std::time::Duration::from_millis(50);
    let _door = world.door("");
    let other = World::new();
    let _other_door = other.door("");
    let mut hogs = Vec::new();
    for _ in 0..2 {
        let mut hog = UnixStream::connect(world.socket()).await.unwrap();
        hog.write_all(b"GET http://a.test/ HT").await.unwrap();
        hogs.push(hog);
    }
    // Both have their turn before the third comes.
    let refused = loop {
        let answer = world.raw(b"").await;
        if !answer.is_empty() {
            break answer;
        }
    };
    assert_eq!(reason(&refused), "too_many_connections");
    assert_eq!(reason(&other.get("http://a.test/", "").await), "nothing_allowed");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_where_it_leads_is_asked_anew() {
    let world = World::new();
    let answering = std::sync::Arc::new(|_: &Seen| {
        let answer = hyper::Response::builder().status(302).header("location", "http://169.254.169.254/latest");
        answer.header("x-chargehand-denied", "forged").body(Default::default()).unwrap()
    });
    let far = Far::start(Some(world.trust.server(&["far.test"])), answering).await;
    let _door = world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port));
    let answer = world.get(&format!("http://far.test:{}/", far.port), "").await;
    assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("169.254.169.254"), "{answer}");
    assert!(!answer.contains("x-chargehand-denied"), "only the door speaks for the door: {answer}");
    assert_eq!(reason(&world.get("http://169.254.169.254/latest", "").await), "host_not_listed");
}

#[tokio::test]
async fn a_box_that_is_refused_without_end_is_answered_slowly() {
    let mut world = World::new();
    world.limits.denials_per_second = 5;
    let _door = world.door("");
    let began = std::time::Instant::now();
    for _ in 0..56 {
        world.get("http://a.test/", "").await;
    }
    // Ten times as many are free at once; the last five wait for a fifth of a second each, however
    // slow the machine is.
    assert!(began.elapsed() > std::time::Duration::from_millis(900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends() {
    let mut world = World::new();
    world.limits.idle = std::time::Duration::from_millis(100);
    let far = Far::start(None, echo()).await;
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{}], private = true, scheme = \"tcp\" }}]",
        far.port
    ));
    let mut tunnel = world.connect(&format!("far.test:{}", far.port)).await.unwrap();
    assert_eq!(tunnel.read(&mut [0]).await.unwrap_or(0), 0);
    world.records(1).await;
}

#[tokio::test]
async fn a_far_side_that_fails_is_told_apart_from_a_refusal() {
    let world = World::new();
    let far = Far::start(Some(Trust::new().server(&["far.test"])), echo()).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let _door =
        world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}, {closed}], private = true }}]", far.port));
    let gone = world.get(&format!("http://far.test:{closed}/"), "").await;
    assert!(gone.starts_with("HTTP/1.1 502") && gone.contains("allowed, but it failed: no connection"), "{gone}");
    let untrusted = world.get(&format!("http://far.test:{}/", far.port), "").await;
    assert!(untrusted.starts_with("HTTP/1.1 502") && untrusted.contains("TLS with far.test"), "{untrusted}");
    for record in world.records(2).await {
        assert!(record.denial.is_none() && record.failure.is_some(), "{record:?}");
    }
    assert_eq!(far.seen().len(), 0, "nothing is said to a far side that is not trusted");
}

#[tokio::test]
async fn what_comes_right_behind_a_connect_is_part_of_the_tunnel() {
    let world = World::new();
    let far = Far::start(None, echo()).await;
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{}], private = true, scheme = \"tcp\" }}]",
        far.port
    ));
    let both = format!(
        "CONNECT far.test:{0} HTTP/1.1\r\nHost: far.test:{0}\r\n\r\nGET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        far.port
    );
    let answer = world.raw(both.as_bytes()).await;
    assert!(answer.contains("GET /early"), "{answer}");
}

#[tokio::test]
async fn heads_without_end_and_silence_do_not_hold_a_connection() {
    let mut world = World::new();
    world.limits.head = std::time::Duration::from_millis(100);
    world.limits.head_bytes = 8192;
    let _door = world.door("");
    assert_eq!(world.raw(b"GET http://a.test/ HTTP/1.1\r\nX: ").await, "", "a head that does not come");
    let endless = format!("GET http://a.test/ HTTP/1.1\r\nX: {}", "a".repeat(100_000));
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    let _ = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn a_box_that_has_used_up_its_bytes_moves_no_more() {
    let mut world = World::new();
    world.limits.total_bytes = Some(1000);
    let far = world.far().await;
    let door = world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port));
    let address = format!("http://far.test:{}/", far.port);
    world.get(&address, "").await;
    assert!(door.moved_bytes() >= 1000);
    assert_eq!(reason(&world.get(&address, "").await), "byte_cap");
}

#[tokio::test]
async fn a_websocket_passes_only_where_an_entry_says_so() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1000];
        let count = stream.read(&mut head).await.unwrap();
        assert!(String::from_utf8_lossy(&head[..count]).to_lowercase().contains("upgrade: websocket"));
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let _door = world.door(&format!(
        "allow = [{{ host = \"far.test\", ports = [{port}], scheme = \"http\", private = true, upgrade = true }}]"
    ));
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    let head = format!(
        "GET http://far.test:{port}/ws HTTP/1.1\r\nHost: far.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut out = Vec::new();
    while !out.ends_with(b"\r\n\r\n") {
        out.push(stream.read_u8().await.unwrap());
    }
    assert!(out.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&out));
    stream.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");
    drop(stream);
    let record = &world.records(1).await[0];
    assert_eq!((record.status, record.denial.as_ref()), (Some(101), None));
}

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let world = World::new();
    let answering = std::sync::Arc::new(|seen: &Seen| {
        hyper::Response::new(http_body_util::Full::new(bytes::Bytes::from(seen.body.clone())))
    });
    let far = Far::start(Some(world.trust.server(&["far.test"])), answering).await;
    let _door = world.door(&format!("allow = [{{ host = \"far.test\", ports = [{}], private = true }}]", far.port));
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    let size = 20_000_000;
    let head = format!(
        "POST http://far.test:{0}/ HTTP/1.1\r\nHost: far.test:{0}\r\nConnection: close\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n",
        far.port
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let body = vec![b'z'; size];
    let writing = tokio::spawn(async move { writer.write_all(&body).await });
    let mut out = Vec::new();
    reader.read_to_end(&mut out).await.unwrap();
    writing.await.unwrap().unwrap();
    assert!(out.iter().filter(|byte| **byte == b'z').count() >= size, "{}", out.len());
    let record = &world.records(1).await[0];
    assert!(record.up_bytes > 20_000_000 && record.down_bytes > 20_000_000, "{record:?}");
}
