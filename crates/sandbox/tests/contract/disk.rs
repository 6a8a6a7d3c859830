//! Disk space: a limit of each box, a floor for all of them, and what takes how much.

use std::collections::HashSet;
use std::time::Duration;

use domain::id::Digest;
use sandbox::local::{LocalProvider, Toolchains};
use sandbox::{Ended, ExecRequest, Limits, Provider, StartSpec};

use crate::world::{config, id, in_world, in_world_with, spec};

const MIB: u64 = 1 << 20;
/// Writes for ever, at a pace that leaves the host time to notice.
const FILL: &str = "i=0; while :; do i=$((i+1)); head -c 1000000 /dev/zero > fill-$i; sleep 0.02; done";

#[test]
fn a_box_that_writes_past_its_disk_limit_has_its_commands_ended_and_can_tidy_up() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
        let limits = Limits { disk_bytes: Some(4 * MIB), ..Limits::default() };
        let sandbox = world.start(StartSpec { limits, ..spec("a", &snapshot) }).await.sandbox;
        assert_eq!(
            world.sh(&sandbox, "head -c 1000000 /dev/zero > small").await.outcome.ended,
            Ended::Exited { code: 0 }
        );
        let ran = world.sh(&sandbox, &format!("sleep 1000 & {FILL}")).await;
        assert_eq!(ran.outcome.ended, Ended::DiskFull);
        assert!(world.provider.usage().await.unwrap().boxes_bytes > 4 * MIB);
        // What does not grow may run for as long as it likes.
        let ran = world.sh(&sandbox, "sleep 1.5; cat hello.txt; rm fill-*; echo tidy").await;
        assert_eq!((&ran.outcome.ended, ran.text().as_str()), (&Ended::Exited { code: 0 }, "hello\ntidy\n"));
        assert!(world.provider.usage().await.unwrap().boxes_bytes < 4 * MIB);
        let ran = world.sh(&sandbox, "head -c 1000000 /dev/zero > again; exit 3").await;
        assert_eq!(ran.outcome.ended, Ended::Exited { code: 3 });
        assert_eq!(world.sh(&sandbox, FILL).await.outcome.ended, Ended::DiskFull, "once more");
    });
}

#[test]
fn a_disk_limit_holds_for_a_box_that_was_found_again() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { disk_bytes: Some(2 * MIB), ..Limits::default() };
        let sandbox = world.start(StartSpec { limits, ..spec("a", &snapshot) }).await.sandbox;
        {
            // Nobody follows it, and its first control plane is about to go.
            let mut ignore = |_| {};
            let exec = sandbox.exec(
                ExecRequest::shell("fill", format!("while ! test -e /tmp/go; do sleep 0.01; done; {FILL}")),
                &mut ignore,
            );
            let _ = tokio::time::timeout(Duration::from_millis(100), exec).await;
        }
        let next = LocalProvider::open(config(&world.data(), Toolchains::default())).unwrap();
        let sandbox = next.attach(&id("a")).await.unwrap().unwrap();
        let mut ignore = |_| {};
        let (followed, written) =
            tokio::join!(sandbox.follow("fill", &mut ignore), sandbox.write("/tmp/go".as_ref(), b"", None));
        written.unwrap();
        assert_eq!(followed.unwrap().ended, Ended::DiskFull);
    });
}

#[test]
fn below_the_floor_of_free_space_commands_that_grow_are_ended_and_others_go_on() {
    in_world_with(
        |config| config.min_free_bytes = u64::MAX,
        async |world| {
            let snapshot = world.snapshot(&[("hello.txt", "hello\n")]).await;
            let one = world.start(spec("one", &snapshot)).await.sandbox;
            let two = world.start(spec("two", &snapshot)).await.sandbox;
            let (one, two) = tokio::join!(world.sh(&one, FILL), world.sh(&two, "sleep 2; cat hello.txt"));
            assert_eq!(one.outcome.ended, Ended::DiskFull);
            assert_eq!((two.outcome.ended, two.out), (Ended::Exited { code: 0 }, b"hello\n".to_vec()));
        },
    );
}

#[test]
fn what_layers_and_boxes_take_is_told() {
    in_world(async |world| {
        let before = world.provider.usage().await.unwrap();
        let large = "x".repeat(3_000_000);
        let snapshot = world.snapshot(&[("large", &large)]).await;
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        world.sh(&sandbox, "head -c 2000000 /dev/zero > one; ln one two; mkdir d; mv one d").await;
        let after = world.provider.usage().await.unwrap();
        let (layers, boxes) = (after.layers_bytes - before.layers_bytes, after.boxes_bytes - before.boxes_bytes);
        assert!((3_000_000..3_200_000).contains(&layers), "{layers}");
        assert!((2_000_000..2_200_000).contains(&boxes), "{boxes}");
        assert!(after.free_bytes > 0);
        assert!(world.provider.probe().await.disk_limit);
    });
}

#[test]
fn within_a_budget_unused_layers_stay_and_those_used_last_stay_longest() {
    in_world(async |world| {
        let text = |name: &str| name.repeat(1_000_000);
        let (a, b, c) = (text("a"), text("b"), text("c"));
        let one = world.snapshot(&[("one", &a)]).await;
        let two = world.snapshot(&[("two", &b)]).await;
        let three = world.snapshot(&[("three", &c)]).await;
        let nothing = HashSet::new();
        let all = world.provider.usage().await.unwrap().layers_bytes;
        assert!(world.provider.prepared(&one.layers[0]).await.unwrap().is_some(), "used after the others");
        for budget in [all, all - 1, all - 1] {
            // The first look only marks; with all of them within the budget nothing goes.
            let removed = world.provider.retain_layers_within(&nothing, budget).await.unwrap();
            let there = |key: &Digest| world.data().join("layers").join(&key.as_str()[..32]).exists();
            let there = [&one, &two, &three].map(|snapshot| there(&snapshot.layers[0]));
            match (budget == all, removed) {
                (true, 0) => assert_eq!(there, [true, true, true]),
                (false, 0 | 1) => assert_eq!(there, [true, false, true]),
                other => panic!("{other:?} {there:?}"),
            }
        }
        assert_eq!(world.provider.retain_layers(&nothing).await.unwrap(), 2);
    });
}
