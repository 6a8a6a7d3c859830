//! The first `git status` in a fresh fork, which is what an agent's first step waits for.
//!
//! An index holds inode numbers and times of the files as they were where it was written. So the
//! layer is measured twice: as the host's git left it, and after git refreshed its index in a box
//! and the box became the layer that forks start from, as an environment is built.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sandbox::{ExecRequest, SnapshotRef};

use crate::Rounds;
use crate::report::{Figures, Outcome};
use crate::world::{Tree, World, run};

const TREE: Tree = Tree { files: 5_000, bytes: 2_000 };

fn git(folder: &Path, arguments: &[&str]) -> Outcome<Vec<u8>> {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "safe.directory=*"];
    let output = Command::new("git").args(identity).args(arguments).current_dir(folder).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn repository(at: &Path) -> Outcome {
    TREE.write(at)?;
    for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "first"]] {
        git(at, arguments)?;
    }
    Ok(())
}

async fn in_box(world: &World, snapshot: &SnapshotRef) -> Outcome<[Duration; 2]> {
    let sandbox = world.start("git", snapshot).await?;
    let mut times = [Duration::ZERO; 2];
    for (name, time) in ["first", "second"].into_iter().zip(&mut times) {
        let begun = Instant::now();
        let found = run(&sandbox, ExecRequest::new(name, ["git", "status", "--porcelain"])).await?;
        *time = begun.elapsed();
        if !found.is_empty() {
            return Err(format!("git finds changes where there are none: {}", String::from_utf8_lossy(&found)).into());
        }
    }
    world.destroy("git").await?;
    Ok(times)
}

async fn refreshed(world: &World, snapshot: &SnapshotRef) -> Outcome<SnapshotRef> {
    let sandbox = world.start("refresh", snapshot).await?;
    run(&sandbox, ExecRequest::new("refresh", ["git", "update-index", "-q", "--refresh"])).await?;
    let stack = world.snapshot("refresh", "refreshed index").await?;
    world.destroy("refresh").await?;
    Ok(stack)
}

pub async fn first_and_second(world: &World, rounds: Rounds, figures: &mut Figures) -> Outcome {
    let raw = world.folder.join("raw");
    std::fs::create_dir(&raw)?;
    repository(&raw)?;
    git(&raw, &["status", "--porcelain"])?;
    let as_staged = world.layer_of("repository", repository).await?;
    let refreshed = refreshed(world, &as_staged).await?;
    let (mut floor, mut stale, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds.dear {
        let begun = Instant::now();
        git(&raw, &["status", "--porcelain"])?;
        floor.push(begun.elapsed());
        let [unrefreshed, _] = in_box(world, &as_staged).await?;
        stale.push(unrefreshed);
        let [one, two] = in_box(world, &refreshed).await?;
        first.push(one);
        second.push(two);
    }
    figures.middle("git_status_floor_p50_ms", &floor);
    figures.middle("git_status_first_p50_ms", &first);
    figures.middle("git_status_second_p50_ms", &second);
    figures.middle("git_status_unrefreshed_p50_ms", &stale);
    Ok(())
}
