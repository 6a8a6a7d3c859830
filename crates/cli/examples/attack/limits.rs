//! One box against its limits: processes, memory, disk, output, time, and what outlives it.
//!
//! Each box has small limits, because other people work on this machine. Absent: the limits' own
//! tests; here it counts that host and neighbours are left alone and the box can still be used.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sandbox::{CgroupSupport, Ended, ExecRequest, Limits, Provider as _, Sandbox};

use crate::row::{Fate, Rows};
use crate::world::{ATTACK, World, answers, run, runs_on_host, shell, soon};

/// What a bombed box may have at most.
const BOMB_PIDS: u32 = 120;
const DISK_BYTES: u64 = 64 << 20;

type Tried = anyhow::Result<(Fate, String)>;

pub async fn attack(world: &World, rows: &mut Rows) {
    for (what, word) in [("a fork bomb", "bomb"), ("a fork bomb that leaves its session", "scatter")] {
        rows.tried("S22", what, bomb(world, word).await);
    }
    rows.tried("S22", "take all memory", memory(world).await);
    rows.tried("S22", "write without end", flood(world).await);
    rows.tried("S22", "never end", forever(world).await);
    rows.tried("S22", "outlive the box as a hidden daemon", hidden(world).await);
    rows.tried("S11", "folders too deep and locked to remove", nested(world).await);
    rows.tried("S22", "fill the disk with one file", fill(world, "cat /dev/zero > full").await);
    let many = "i=0; while :; do head -c 1000000 /dev/zero > full$i; i=$((i+1)); done";
    rows.tried("S22", "fill the disk with many files", fill(world, many).await);
    rows.tried("S22", "fill memory through a shared-memory file", shared_memory(world).await);
    rows.tried("S22", "one file larger than allowed", large_file(world).await);
    rows.tried("S11", "copy out a sparse file of a terabyte", sparse(world).await);
}

/// Writes until it is stopped, which has to be long before the host has anything to fear.
async fn fill(world: &World, line: &str) -> Tried {
    if !world.can.disk_limit {
        return Ok((Fate::Skipped, "this provider does not limit disk space".into()));
    }
    let mut spec = world.spec("disk")?;
    spec.limits = Limits { disk_bytes: Some(DISK_BYTES), ..spec.limits };
    let sandbox = world.start_with(spec).await?;
    shell(&sandbox, "little", "head -c 1000000 /dev/zero > little")
        .await
        .context("what is allowed can't be written")?;
    // The control of the suite itself: without a limit this would write 2 GB at most.
    let mut request = ExecRequest::shell("fill", format!("ulimit -f 4000000; {line}"));
    request.time_limit = Duration::from_secs(20);
    let ran = run(&sandbox, request).await?;
    let after = answers(&sandbox, "after").await;
    world.destroy(&sandbox).await?;
    let held = ran.outcome.ended == Ended::DiskFull && after.is_ok();
    Ok((Fate::blocked_if(held), format!("{:?}; afterwards: {}", ran.outcome.ended, told(&after))))
}

async fn shared_memory(world: &World) -> Tried {
    if !world.can.cgroup.limits_memory() {
        return Ok((Fate::Skipped, "no control group here limits memory".into()));
    }
    let mut spec = world.spec("shm")?;
    spec.limits = Limits { memory_bytes: 64 << 20, ..spec.limits };
    let sandbox = world.start_with(spec).await?;
    shell(&sandbox, "little", "head -c 1000000 /dev/zero > /dev/shm/little").await?;
    let ran = run(&sandbox, ExecRequest::shell("much", "head -c 300000000 /dev/zero > /dev/shm/much")).await?;
    // What fills it stays in the box's memory, so the box is of use again only after it was restarted.
    let after = answers(&sandbox, "after").await;
    world.provider.stop(sandbox.id()).await?;
    let mut spec = world.spec("shm")?;
    spec.limits = Limits { memory_bytes: 64 << 20, ..spec.limits };
    let again = world.start_with(spec).await;
    world.provider.destroy(sandbox.id()).await?;
    let held = ran.outcome.ended != (Ended::Exited { code: 0 }) && again.is_ok();
    Ok((Fate::blocked_if(held), format!("{:?}; until it is restarted: {}", ran.outcome.ended, told(&after))))
}

fn told(after: &anyhow::Result<()>) -> String {
    after.as_ref().map_or_else(ToString::to_string, |()| "the box works".to_owned())
}

async fn large_file(world: &World) -> Tried {
    let mut spec = world.spec("large")?;
    spec.limits = Limits { file_bytes: Some(8 << 20), ..spec.limits };
    let sandbox = world.start_with(spec).await?;
    shell(&sandbox, "little", "head -c 1000000 /dev/zero > little").await?;
    let ran = run(&sandbox, ExecRequest::shell("much", "head -c 100000000 /dev/zero > much")).await?;
    let size = sandbox.stat(Path::new("much")).await.map_or(0, |entry| entry.size_bytes);
    let after = answers(&sandbox, "after").await;
    world.destroy(&sandbox).await?;
    let held = size <= 8 << 20 && ran.outcome.ended != (Ended::Exited { code: 0 }) && after.is_ok();
    Ok((Fate::blocked_if(held), format!("{:?} at {size} bytes", ran.outcome.ended)))
}

async fn sparse(world: &World) -> Tried {
    let sandbox = world.start("sparse").await?;
    shell(&sandbox, "make", "truncate -s 1T sparse; echo fine > plain").await?;
    let to = world.folder.join("copied-sparse");
    let control = sandbox.copy_out(Path::new("plain"), &to, 1 << 20).await?;
    std::fs::remove_file(&to)?;
    let copied = sandbox.copy_out(Path::new("sparse"), &to, 1 << 20).await;
    let left = to.exists();
    world.destroy(&sandbox).await?;
    if control != 5 {
        bail!("a plain file could not be copied out");
    }
    Ok((Fate::blocked_if(copied.is_err() && !left), copied.err().map(|error| error.to_string()).unwrap_or_default()))
}

/// The bombed box keeps to its limit, still answers afterwards, and its neighbour answers meanwhile.
async fn bomb(world: &World, word: &str) -> Tried {
    let mut spec = world.spec("bomb")?;
    spec.limits = Limits { pids: BOMB_PIDS, ..spec.limits };
    let bombed = world.start_with(spec).await?;
    let neighbour = world.start("neighbour").await?;
    let mut request = ExecRequest::new("bomb", [ATTACK, word]);
    request.time_limit = Duration::from_secs(3);
    let (ran, beside) = tokio::join!(run(&bombed, request), beside_a_bomb(&neighbour));
    let ran = ran?;
    let after = answers(&bombed, "after").await;
    let gone = soon(|| !runs_on_host(word)).await;
    world.destroy(&bombed).await?;
    world.destroy(&neighbour).await?;
    beside.context("the neighbour did not answer")?;
    let detail = format!(
        "{:?}; afterwards: {}",
        ran.outcome.ended,
        after.as_ref().map_or_else(ToString::to_string, |()| "answers".into())
    );
    let limited = world.can.cgroup != CgroupSupport::None;
    if !limited && after.is_err() {
        return Ok((Fate::Skipped, "no control groups here to count processes".into()));
    }
    Ok((Fate::blocked_if(after.is_ok() && gone), detail))
}

async fn beside_a_bomb(neighbour: &Arc<dyn Sandbox>) -> anyhow::Result<()> {
    for round in 0..5 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        answers(neighbour, &format!("beside{round}")).await?;
    }
    Ok(())
}

async fn memory(world: &World) -> Tried {
    if !world.can.cgroup.limits_memory() {
        return Ok((Fate::Skipped, "no control group here limits memory".into()));
    }
    let mut spec = world.spec("memory")?;
    spec.limits = Limits { memory_bytes: 64 << 20, ..spec.limits };
    let sandbox = world.start_with(spec).await?;
    let control = run(&sandbox, ExecRequest::new("little", [ATTACK, "memory", "16"])).await?;
    let ran = run(&sandbox, ExecRequest::new("much", [ATTACK, "memory", "256"])).await?;
    let after = answers(&sandbox, "after").await;
    world.destroy(&sandbox).await?;
    if control.outcome.ended != (Ended::Exited { code: 0 }) {
        bail!("16 MiB of 64 could not be had: {:?}", control.outcome.ended);
    }
    let ended = ran.outcome.ended;
    Ok((Fate::blocked_if(ended != (Ended::Exited { code: 0 }) && after.is_ok()), format!("{ended:?}")))
}

async fn flood(world: &World) -> Tried {
    let sandbox = world.start("flood").await?;
    let mut request = ExecRequest::new("yes", ["yes"]);
    request.output_cap_bytes = 1 << 20;
    let ran = run(&sandbox, request).await?;
    let after = answers(&sandbox, "after").await;
    world.destroy(&sandbox).await?;
    let held = ran.text.len() <= 1 << 20 && ran.outcome.ended == Ended::OutputCapReached && after.is_ok();
    Ok((Fate::blocked_if(held), format!("{:?} after {} bytes", ran.outcome.ended, ran.text.len())))
}

async fn forever(world: &World) -> Tried {
    let sandbox = world.start("forever").await?;
    let mut request = ExecRequest::shell("loop", "trap '' TERM INT HUP; while :; do :; done");
    request.time_limit = Duration::from_secs(1);
    let ran = run(&sandbox, request).await?;
    let after = answers(&sandbox, "after").await;
    world.destroy(&sandbox).await?;
    Ok((Fate::blocked_if(ran.outcome.ended == Ended::TimedOut && after.is_ok()), format!("{:?}", ran.outcome.ended)))
}

async fn hidden(world: &World) -> Tried {
    let sandbox = world.start("hidden").await?;
    // A length of sleep that no other process has on its command line.
    let seconds = format!("8{}", 1_000_000 + std::process::id());
    run(&sandbox, ExecRequest::new("hide", [ATTACK, "hide", &seconds])).await?;
    if !soon(|| runs_on_host(&seconds)).await {
        world.destroy(&sandbox).await?;
        bail!("the daemon did not start");
    }
    world.destroy(&sandbox).await?;
    Ok((Fate::blocked_if(soon(|| !runs_on_host(&seconds)).await), String::new()))
}

async fn nested(world: &World) -> Tried {
    let sandbox = world.start("nested").await?;
    let ran = run(&sandbox, ExecRequest::new("nest", [ATTACK, "nest", "2000"])).await?;
    if ran.outcome.ended != (Ended::Exited { code: 0 }) {
        bail!("the folders were not made: {:?} {}", ran.outcome.ended, ran.text);
    }
    world.destroy(&sandbox).await?;
    // It is out of sight at once, and removed in the background.
    let data = world.folder.join("data");
    let is_empty = |name: &str| std::fs::read_dir(data.join(name)).is_ok_and(|mut left| left.next().is_none());
    let gone = soon(|| is_empty("run") && is_empty("trash")).await;
    Ok((Fate::blocked_if(gone), String::new()))
}
