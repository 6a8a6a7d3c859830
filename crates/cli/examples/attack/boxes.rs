//! One box against its host: the kernel's calls, the network, and what a host program would have inherited.
//!
//! The single calls are made by the sandbox's own `box-attack`, which prints a line for each.

use std::net::TcpListener;

use anyhow::{Context as _, bail};
use sandbox::{Ended, ExecRequest};

use crate::row::{Fate, Rows};
use crate::world::{ATTACK, INSIDE, World, answers, run, shell};
use crate::{Arguments, files, limits, siblings};

type Tried = anyhow::Result<(Fate, String)>;

pub async fn attack(arguments: &Arguments, rows: &mut Rows) -> anyhow::Result<()> {
    let world = match World::open(arguments).await {
        Ok(world) => world,
        Err(error) => {
            rows.skipped(&[("S22", "everything from inside a box")], &format!("{error:#}"));
            return Ok(());
        }
    };
    let done = attack_in(&world, rows).await;
    world.close().await?;
    done
}

async fn attack_in(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    calls(world, rows).await?;
    inheritance(world, rows).await?;
    network(world, rows).await?;
    rows.tried("H7", "kill the hand", hand_killed(world).await);
    limits::attack(world, rows).await;
    files::attack(world, rows).await?;
    siblings::attack(world, rows).await
}

/// What `box-attack` says of one attack.
#[derive(serde::Deserialize)]
struct Call {
    kind: String,
    attack: String,
    blocked: bool,
    errno: i32,
}

/// Every line that `box-attack` prints is one attack.
async fn calls(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    let sandbox = world.start("calls").await?;
    let ran = run(&sandbox, ExecRequest::new("attacks", [ATTACK, "attacks", "--json"])).await?;
    if ran.outcome.ended != (Ended::Exited { code: 0 }) || ran.text.lines().count() < 20 {
        bail!("the attacking program did not do its work: {:?}\n{}", ran.outcome.ended, ran.text);
    }
    for line in ran.text.lines() {
        let call: Call = serde_json::from_str(line).with_context(|| format!("not an attack's line: {line}"))?;
        let what = format!("{}: {}", call.kind, call.attack);
        rows.add(class(&what), &what, Fate::blocked_if(call.blocked), &format!("errno {}", call.errno));
    }
    let control = answers(&sandbox, "after").await.map(|()| (Fate::Blocked, "the box still works".to_owned()));
    rows.tried("S22", "break the box by all of these", control);
    world.destroy(&sandbox).await
}

/// The number of a call in the published list of attacks.
fn class(what: &str) -> &'static str {
    let known = [
        ("clone", "H1"),
        ("unshare", "H1"),
        ("setns", "H1"),
        ("user namespaces", "H1"),
        ("socket", "H2"),
        ("connect", "S5"),
        ("command line", "H4"),
        ("keys", "H4"),
        ("kernel memory", "H4"),
        ("pidfd", "H5"),
        ("memfd", "H5"),
        ("personality", "H5"),
        ("descriptor", "H6"),
        ("terminal", "H6"),
        ("device", "S11"),
        ("whiteout", "S11"),
    ];
    known.into_iter().find(|(word, _)| what.contains(word)).map_or("S22", |(_, class)| class)
}

/// What a program started by this one would have from it: variables, files, privileges.
async fn inheritance(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    let sandbox = world.start("inheritance").await?;
    let environment = shell(&sandbox, "env", "env").await?;
    // What every shell has is no news; what is not ours by name and value was not taken from here.
    let usual = ["PATH", "HOME", "PWD", "LANG", "LC_ALL", "TERM", "SHLVL", "_", "OLDPWD", "USER", "LOGNAME", "SHELL"];
    let ours: Vec<(String, String)> = std::env::vars().filter(|(name, _)| !usual.contains(&name.as_str())).collect();
    let theirs: Vec<(&str, &str)> = environment.lines().filter_map(|line| line.split_once('=')).collect();
    let is_theirs = |name: &str, value: &str| theirs.iter().any(|their| *their == (name, value));
    let taken = ours.iter().filter(|(name, value)| !value.is_empty() && is_theirs(name, value));
    let taken: Vec<&str> = taken.map(|(name, _)| name.as_str()).collect();
    // The control: there is something to take, and a box has variables.
    let known = !ours.is_empty() && theirs.iter().any(|(name, _)| *name == "PATH");
    let control = if known { Fate::blocked_if(taken.is_empty()) } else { Fate::Broken };
    rows.add("S1", "variables of the program that started the box", control, &format!("{taken:?}"));

    let listing = shell(&sandbox, "fds", &format!("{INSIDE} {} descriptors", crate::inside::WORD)).await?;
    let fate = match listing.trim().parse::<u32>() {
        Ok(0) => Fate::Blocked,
        Ok(_) => Fate::Open,
        Err(_) => Fate::Broken,
    };
    rows.add("H6", "open files besides the three of a command", fate, listing.trim());

    let status = shell(&sandbox, "status", "cat /proc/self/status").await?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
    let confined = field("NoNewPrivs:") == "1" && field("Seccomp:") == "2";
    rows.add(
        "H8",
        "a command without the filter or with new privileges",
        Fate::blocked_if(confined),
        field("Seccomp:"),
    );
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setfcap.
    let few = u64::from_str_radix(field("CapBnd:"), 16).is_ok_and(|all| all & !0x8000_00fb == 0);
    rows.add("H8", "a capability beyond the eight of a box", Fate::blocked_if(few), field("CapBnd:"));
    let mounts = shell(&sandbox, "mounts", "cat /proc/self/mountinfo").await?;
    let told = mounts.contains(&*world.folder.to_string_lossy());
    rows.add(
        "H3",
        "host folders by name in the list of mounts",
        Fate::blocked_if(!told && mounts.contains("overlay")),
        "",
    );
    world.destroy(&sandbox).await
}

/// Listeners of the host, by TCP and by an abstract name.
async fn network(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    let sandbox = world.start("network").await?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::net::TcpStream::connect(("127.0.0.1", port)).context("the control: the host reaches its own listener")?;
    let inside = |words: &str| format!("{INSIDE} {} {words}", crate::inside::WORD);
    let control = shell(&sandbox, "loopback", &inside("loopback")).await?;
    let answer = shell(&sandbox, "tcp", &inside(&format!("connect 127.0.0.1:{port}"))).await?;
    let fate =
        if control.trim() == "connected" { Fate::blocked_if(answer.trim() != "connected") } else { Fate::Broken };
    rows.add("S5", "a listener on the host's loopback", fate, answer.trim());

    let name = format!("chargehand-attack-{}-{port}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address)?;
    std::os::unix::net::UnixStream::connect_addr(&address).context("the control: the host reaches its own socket")?;
    let answer = shell(&sandbox, "abstract", &inside(&format!("abstract {name}"))).await?;
    rows.add("S22", "an abstract socket of the host", Fate::blocked_if(answer.trim() != "connected"), answer.trim());

    for (what, words) in [
        ("ask a resolver by UDP", "udp 8.8.8.8:53"),
        ("ask by multicast DNS", "udp 224.0.0.251:5353"),
        ("DNS over TLS", "connect 1.1.1.1:853"),
        ("DNS over HTTPS by address", "connect 1.1.1.1:443"),
        ("resolve a name", "resolve example.com"),
        ("the metadata address by IPv6", "connect [fd00:ec2::254]:80"),
        ("an IPv4 address in IPv6 form", "connect [::ffff:169.254.169.254]:80"),
    ] {
        let answer = shell(&sandbox, what, &inside(words)).await?;
        let class = if words.contains("169.254") || words.contains("ec2") { "S5" } else { "S4" };
        let reached = matches!(answer.trim(), "connected" | "sent" | "resolved");
        rows.add(class, what, Fate::blocked_if(!reached), answer.trim());
    }
    world.destroy(&sandbox).await
}

async fn hand_killed(world: &World) -> Tried {
    let sandbox = world.start("hand").await?;
    run(&sandbox, ExecRequest::shell("kill", "kill -9 1; kill -STOP 1; kill -TERM 1; kill -SEGV 1")).await?;
    let fate = Fate::blocked_if(answers(&sandbox, "after").await.is_ok());
    world.destroy(&sandbox).await?;
    Ok((fate, String::new()))
}
