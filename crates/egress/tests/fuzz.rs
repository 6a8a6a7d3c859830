//! A bounded run of the fuzzer's checks: seeds that are near to what passes, changed at random from
//! a fixed beginning, so that every run is the same.

#[path = "support/checks.rs"]
mod checks;
mod support;

use std::sync::atomic::Ordering;

use checks::{Checks, OURS};

/// Inputs of the bounded run.
const INPUTS: usize = 200_000;

/// Pieces that mean something to some parser.
const PIECES: [&str; 44] = [
    "api.example.com",
    "paths.example.com",
    "192.0.2.7",
    "[2001:db8::1]",
    "[2001:DB8:0::1]",
    "forge.example.com",
    ":443",
    ":80",
    ".",
    "..",
    "/",
    "//",
    "\\",
    "%",
    "%2e",
    "%2E",
    "%2f",
    "%5c",
    "%25",
    "%00",
    "@",
    ":",
    ";",
    "?",
    "#",
    "\0",
    " ",
    "\t",
    "\r\n",
    "xn--",
    "0x7f",
    "0177.",
    "::ffff:",
    "/in",
    "/in/",
    "a",
    "A",
    "0000",
    "refs/heads/",
    "chargehand/task-1",
    "canary-7f3a9c51",
    "push-options",
    "evil.test",
    "\u{3002}",
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn changed(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut out = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len() + 1);
            match self.below(5) {
                0 => out.insert(at, u8::try_from(self.below(256)).unwrap()),
                1 if at < out.len() => out[at] = u8::try_from(self.below(256)).unwrap(),
                2 if at < out.len() => drop(out.remove(at)),
                3 => {
                    let end = (at + self.below(8)).min(out.len());
                    out.drain(at..end);
                }
                _ => {
                    let piece = PIECES[self.below(PIECES.len())].bytes();
                    out.splice(at..at, piece);
                }
            }
        }
        out
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let command = |name: &str| {
        let line = format!("{} {} {name}\0 report-status side-band-64k", "1".repeat(40), "2".repeat(40));
        format!("{:04x}{line}", line.len() + 4)
    };
    let mut seeds: Vec<Vec<u8>> = [
        "api.example.com:443",
        "API.example.com.:443",
        "192.0.2.7:443",
        "[2001:db8::1]:443",
        "paths.example.com:443",
        "/in/a/b?x=y",
        "/in/../out",
        "/in/%2e%2e/out",
        "/in%2f..%2fout",
        "/in/a;x/..",
        "/in/%252e%252e/out",
        "/in/..%2f..%2fout",
        "/in/a%252f..%252f../../out",
        "\x03abc canary-7f3a9c51 def",
        "\x01Y2FuYXJ5LTdmM2E5YzUx",
    ]
    .iter()
    .map(|seed| seed.as_bytes().to_vec())
    .collect();
    seeds.push(format!("{}0000PACK", command(OURS)).into_bytes());
    seeds.push(format!("{}{}0000", command(OURS), command("refs/heads/main")).into_bytes());
    seeds.push(hello());
    seeds
}

/// What rustls would send.
fn hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("api.example.com").unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut out = Vec::new();
    client.write_tls(&mut out).unwrap();
    out
}

#[test]
fn nothing_that_must_hold_breaks_under_changed_inputs() {
    let checks = Checks::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut pool = seeds();
    for seed in &pool {
        checks.check(seed);
    }
    for _ in 0..INPUTS {
        let seed = pool[random.below(pool.len())].clone();
        let input = random.changed(&seed);
        checks.check(&input);
        // Some changes are built upon, so that inputs wander away from the seeds.
        if random.below(8) == 0 && input.len() < 2000 {
            let place = random.below(500);
            match pool.get_mut(place).filter(|_| place > 17) {
                Some(old) => *old = input,
                None => pool.push(input),
            }
        }
    }
}

#[tokio::test]
async fn whatever_is_sent_to_a_door_only_listed_names_are_ever_resolved() {
    let mut world = support::World::new();
    world.limits.denials_per_second = 10_000;
    let _door =
        world.door("allow = [{ host = \"api.example.com\" }, { host = \"paths.example.com\", paths = [\"/in\"] }]");
    // They lead to addresses that are refused, so nothing is dialled.
    world.names.set("api.example.com", &[&["10.0.0.1"]]);
    world.names.set("paths.example.com", &[&["10.0.0.2"]]);
    let seeds: [&str; 5] = [
        "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n",
        "GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n",
        "GET http://paths.example.com/in/a HTTP/1.1\r\nHost: paths.example.com\r\nConnection: close\r\n\r\n",
        "POST https://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "GET http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    ];
    let mut random = Random(7);
    for _ in 0..2000 {
        let seed = seeds[random.below(seeds.len())].as_bytes();
        let mut input = random.changed(seed);
        input.extend(b"\r\n\r\n");
        let answer = world.half_closed(&input).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert!(world.names.1.load(Ordering::SeqCst) > 100, "some of them were resolved");
    for record in world.book_now() {
        assert_eq!(record.dialled, None);
        let resolved = matches!(record.denial, Some(egress::Denial::PrivateAddress { .. }));
        if resolved {
            assert!(["api.example.com", "paths.example.com"].contains(&record.host.as_str()), "{record:?}");
        }
    }
    let asked = world.names.asked();
    assert_eq!(asked, ["api.example.com", "paths.example.com"]);
}
