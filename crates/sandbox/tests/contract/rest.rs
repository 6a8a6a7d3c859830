//! Boxes that hold still, and go on.

use std::time::Duration;

use domain::id::Digest;
use sandbox::{Ended, ExecRequest, OutputChunk, Provider, SandboxError, StartedAs};

use crate::world::{World, id, in_world, run, spec};

/// Processor time of all processes of a box together, in clock ticks.
fn used(world: &World, name: &str) -> u64 {
    let of_box = world.processes(name).into_iter();
    let stats = of_box.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    let ticks = stats.map(|stat| {
        let fields: Vec<u64> =
            stat.rsplit_once(')').unwrap().1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        fields[11] + fields[12]
    });
    ticks.sum()
}

/// Starts a command of three processes that never end, and stops following it.
async fn busy(world: &World) -> std::sync::Arc<dyn sandbox::Sandbox> {
    let sandbox = world.sandbox("a").await;
    let (seen, mut up) = tokio::sync::mpsc::unbounded_channel();
    {
        let mut take = |_: OutputChunk| seen.send(()).unwrap_or_default();
        let line = "spin() { while :; do :; done; }; spin & one=$!; spin & two=$!; echo up; \
            while ! test -e /tmp/go; do :; done; kill $one $two; echo went on";
        let exec = sandbox.exec(ExecRequest::shell("busy", line), &mut take);
        tokio::select! { ended = exec => panic!("it ended: {ended:?}"), _ = up.recv() => {} }
    }
    sandbox
}

async fn suspended(world: &World) -> bool {
    world.provider.list().await.unwrap().iter().any(|info| info.alive && info.suspended)
}

#[test]
fn a_suspended_box_uses_no_processor_time_and_goes_on_where_it_was() {
    in_world(async |world| {
        let sandbox = busy(world).await;
        let start = used(world, "a");
        while used(world, "a") < start + 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!suspended(world).await);
        world.provider.suspend(&id("a")).await.unwrap();
        world.provider.suspend(&id("a")).await.unwrap();
        assert!(suspended(world).await);
        let before = used(world, "a");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(used(world, "a"), before, "it used processor time");
        world.provider.resume(&id("a")).await.unwrap();
        world.provider.resume(&id("a")).await.unwrap();
        assert!(!suspended(world).await);
        while used(world, "a") < before + 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sandbox.write("/tmp/go".as_ref(), b"", None).await.unwrap();
        let mut out = Vec::new();
        let outcome = sandbox.follow("busy", &mut |chunk| out.extend(chunk.bytes)).await.unwrap();
        assert_eq!((outcome.ended, out), (Ended::Exited { code: 0 }, b"up\nwent on\n".to_vec()));
    });
}

#[test]
fn whatever_is_asked_of_a_suspended_box_resumes_it_first() {
    in_world(async |world| {
        let sandbox = busy(world).await;
        let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
        world.provider.suspend(&id("a")).await.unwrap();
        assert_eq!(world.sh(&sandbox, "cat hello.txt").await.text(), "hello\n");
        assert!(!suspended(world).await);
        world.provider.suspend(&id("a")).await.unwrap();
        sandbox.stat("hello.txt".as_ref()).await.unwrap();
        world.provider.suspend(&id("a")).await.unwrap();
        assert_eq!(world.start(spec("a", &snapshot)).await.found, StartedAs::Adopted);
        assert!(!suspended(world).await);
        world.provider.suspend(&id("a")).await.unwrap();
        let found = world.provider.attach(&id("a")).await.unwrap().unwrap();
        assert!(suspended(world).await, "finding it is not asking it");
        assert_eq!(run(&found, ExecRequest::shell("again", "echo x")).await.unwrap().text(), "x\n");
    });
}

#[test]
fn a_suspended_box_is_stopped_snapshotted_and_destroyed_like_any_other() {
    in_world(async |world| {
        let missing = world.provider.suspend(&id("a")).await;
        assert!(matches!(missing, Err(SandboxError::Gone { .. })));
        let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
        busy(world).await;
        world.provider.suspend(&id("a")).await.unwrap();
        world.provider.stop(&id("a")).await.unwrap();
        assert!(matches!(world.provider.resume(&id("a")).await, Err(SandboxError::Gone { .. })));
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        world.sh(&sandbox, "echo x > new.txt; sleep 1000 >/dev/null 2>&1 &").await;
        world.provider.suspend(&id("a")).await.unwrap();
        let next = world.provider.snapshot(&id("a"), &Digest::of(b"next")).await.unwrap();
        let sandbox = world.start(spec("a", &next)).await.sandbox;
        assert_eq!(world.sh(&sandbox, "cat new.txt").await.text(), "x\n");
        world.provider.suspend(&id("a")).await.unwrap();
        // Somebody else's kill: what is frozen cannot end, and nothing could join its groups.
        let pid = std::fs::read_to_string(world.folder.path().join("data/run/a/pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.split(' ').next().unwrap().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Adopting it lets it go on, and so it ends.
        let started = match world.provider.start(spec("a", &next)).await {
            Err(SandboxError::Gone { .. }) => world.start(spec("a", &next)).await,
            other => other.unwrap_or_else(|error| panic!("start: {error}")),
        };
        assert_eq!(world.sh(&started.sandbox, "cat new.txt").await.text(), "x\n");
        world.provider.suspend(&id("a")).await.unwrap();
        world.provider.destroy(&id("a")).await.unwrap();
        assert!(world.provider.list().await.unwrap().is_empty());
    });
}
