//! What has to hold for any bytes at all, for the bounded run in the tests and for the fuzzer.
//!
//! Each check has an oracle of its own, simpler than the code that it checks.

use egress::*;

/// Names that the list of these checks allows.
pub const LISTED: [&str; 3] = ["api.example.com", "192.0.2.7", "[2001:db8::1]"];
/// The one ref that may be pushed.
pub const OURS: &str = "refs/heads/chargehand/task-1";
const VALUE: &str = "canary-7f3a9c51";

/// A list with one host, two addresses, a repository and a path.
pub fn list() -> AllowList {
    let host = |host: &str, paths: &[&str]| AllowEntry {
        host: Some(host.to_owned()),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..AllowEntry::default()
    };
    let repository = AllowEntry {
        group: Some("git:forge.example.com/me/repo".to_owned()),
        push: Some("chargehand/task-1".to_owned()),
        ..AllowEntry::default()
    };
    let mut entries: Vec<AllowEntry> = LISTED.iter().map(|name| host(name, &[])).collect();
    entries.extend([host("paths.example.com", &["/in"]), repository]);
    AllowList::new(entries).unwrap()
}

/// What is compiled once.
pub struct Checks {
    list: AllowList,
    known: KnownValues,
}

impl Checks {
    pub fn new() -> Self {
        Self { list: list(), known: KnownValues::new([("V".to_owned(), Secret::new(VALUE))]).unwrap() }
    }

    /// Panics if anything does not hold.
    pub fn check(&self, data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            self.target(text);
            self.path(text);
        }
        commands(data);
        hello(data);
        self.redaction(data);
    }

    /// Whatever is written: what passes is, but for case and one dot, a listed name and its port.
    fn target(&self, text: &str) {
        let Ok(target) = Target::parse(text) else { return };
        assert_eq!(Target::parse(&target.to_string()), Ok(target.clone()), "one reading");
        assert!(!text.bytes().any(|b| b <= b' ' || b == 0x7f || b"@%/\\?#".contains(&b)), "{text:?}");
        if self.list.tunnel(&target).is_ok() {
            let (host, port) = text.rsplit_once(':').unwrap();
            assert_eq!(port, "443", "{text:?}");
            let host = host.to_ascii_lowercase();
            let name = host.strip_suffix('.').unwrap_or(&host);
            let same_address = || match (&target.host, name.strip_prefix('[')) {
                (Host::Address(address), Some(_)) => format!("[{address}]") == LISTED[2],
                _ => false,
            };
            let mut passing = LISTED.to_vec();
            passing.extend(["paths.example.com", "forge.example.com"]);
            assert!(passing.contains(&name) || same_address(), "{text:?}");
        }
    }

    /// Whatever is written: no server, however often it decodes, is led out of the allowed folder.
    fn path(&self, text: &str) {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let Ok(clean) = CleanPath::parse(path, query) else { return };
        assert_eq!(CleanPath::parse(clean.path(), clean.query()).unwrap().sent(), clean.sent(), "sent as read");
        let target = Target::parse("paths.example.com:443").unwrap();
        let method = "GET".parse().unwrap();
        let asked = Asked { scheme: Scheme::Https, target: &target, method: &method, path: &clean };
        if self.list.request(asked).is_ok() {
            let mut reading = clean.path().as_bytes().to_vec();
            for _ in 0..6 {
                let resolved = resolved(&reading);
                assert!(
                    resolved == b"/in" || resolved.starts_with(b"/in/"),
                    "{text:?} {:?}",
                    String::from_utf8_lossy(&reading)
                );
                reading = decoded(&reading);
            }
        }
    }

    /// However a stream is cut, no value comes through and nothing else is lost.
    fn redaction(&self, data: &[u8]) {
        let Some((&size, data)) = data.split_first() else { return };
        let mut redactor = Redactor::new(self.known.clone(), Mask::SameLength);
        let mut out = Vec::new();
        for piece in data.chunks(usize::from(size).max(1)) {
            out.extend(redactor.push(piece));
        }
        out.extend(redactor.finish());
        assert_eq!(out.len(), data.len());
        assert!(!out.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
        assert!(out.iter().zip(data).all(|(out, byte)| out == byte || *out == b'*'));
    }
}

/// A push that passes updates our ref alone, as a reader that just looks for refs sees it.
fn commands(data: &[u8]) {
    if let Ok(Commands::Allowed { length }) = read_commands(data, OURS) {
        let head = String::from_utf8_lossy(&data[..length]).into_owned();
        assert!(head.ends_with("0000"));
        assert_eq!(head.matches("refs/").count(), head.matches(OURS).count(), "{head:?}");
        assert!(!head.contains("push-options") && !head.contains("push-cert"), "{head:?}");
    }
}

/// A name that is found stands in the bytes.
fn hello(data: &[u8]) {
    if let Hello::Named(Some(name)) = read_hello(data) {
        let handshake: Vec<u8> = data.to_vec();
        let found = handshake.windows(name.len().max(1)).any(|window| window == name.as_bytes());
        assert!(found || name.is_empty() || data.iter().filter(|byte| **byte == 0x16).count() > 1, "{name:?}");
    }
}

/// As the most lenient server decodes.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < path.len() {
        let pair = path.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        let value = pair.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        match value.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| path[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    out
}

/// As a server with parameters in its paths resolves.
fn resolved(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    [b"/".as_slice(), &kept.join(&b'/')].concat()
}
