//! One box against another: processes, files, sockets, the layer that both stand on.
//!
//! Absent: two tenants of one server; that is the server's matter.

use sandbox::ExecRequest;

use crate::inside;
use crate::row::{Fate, Rows};
use crate::world::{INSIDE, World, answers, run, runs_on_host, shell, soon};

pub async fn attack(world: &World, rows: &mut Rows) -> anyhow::Result<()> {
    let victim = world.start("victim").await?;
    let seconds = format!("7{}", 1_000_000 + std::process::id());
    shell(&victim, "work", &format!("echo private > /tmp/private; echo private > /dev/shm/private; echo private > private.txt; sleep {seconds} >/dev/null 2>&1 &")).await?;
    let running = soon(|| runs_on_host(&seconds)).await;
    let attacker = world.start("attacker").await?;

    let seen = shell(&attacker, "processes", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'").await?;
    let fate = if running { Fate::blocked_if(!seen.lines().any(|line| line == seconds)) } else { Fate::Broken };
    rows.add("S23", "see a sibling's processes", fate, "");
    run(&attacker, ExecRequest::shell("kill", "kill -9 -1")).await?;
    rows.add("S23", "kill a sibling's processes", Fate::blocked_if(runs_on_host(&seconds)), "");
    answers(&attacker, "after").await?;

    for (what, path) in [
        ("read a sibling's temporary files", "/tmp/private"),
        ("read a sibling's shared memory", "/dev/shm/private"),
        ("read a sibling's work", "/workspace/private.txt"),
    ] {
        let control = shell(&victim, &format!("control {path}"), &format!("cat {path}")).await?;
        let found = shell(&attacker, path, &format!("cat {path} 2>&1 || true")).await?;
        let fate = if control == "private\n" { Fate::blocked_if(found != "private\n") } else { Fate::Broken };
        rows.add("S23", what, fate, found.trim());
    }

    shell(&attacker, "poison", "echo poisoned > hello.txt; rm -rf /workspace/.x; echo poisoned > /workspace/planted")
        .await?;
    let later = world.start("later").await?;
    for (what, box_) in [("a sibling that runs", &victim), ("a later box", &later)] {
        let found = shell(box_, &format!("look {what}"), "cat hello.txt; ls").await?;
        let fate = if found.starts_with("hello\n") { Fate::blocked_if(!found.contains("planted")) } else { Fate::Open };
        rows.add("S23", &format!("poison the common layer for {what}"), fate, "");
    }

    let name = format!("sibling-{}", std::process::id());
    let listen = format!(
        "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(\"\\0{name}\")) or die; listen(S, 5); sleep 20' >/dev/null 2>&1 & sleep 0.5"
    );
    shell(&victim, "listen", &listen).await?;
    let connect = format!("{INSIDE} {} abstract {name}", inside::WORD);
    let control = shell(&victim, "own", &connect).await?;
    let answer = shell(&attacker, "other", &connect).await?;
    let fate =
        if control.trim() == "connected" { Fate::blocked_if(answer.trim() != "connected") } else { Fate::Broken };
    rows.add("S23", "an abstract socket of a sibling", fate, answer.trim());
    for one in [&victim, &attacker, &later] {
        world.destroy(one).await?;
    }
    Ok(())
}
