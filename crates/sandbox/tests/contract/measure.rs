//! Figures, printed beside the floor of the same run; nothing is asserted about them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{ExecRequest, Provider};

use crate::world::{id, in_world, run, spec};

fn median(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1000.0;
    (at(50), at(95))
}

#[test]
#[ignore = "a measurement: run it alone, on a quiet machine"]
fn start_exec_and_snapshot_beside_a_bare_spawn() {
    in_world(async |world| {
        let rounds = 100;
        let files: Vec<(String, String)> = (0..200).map(|n| (format!("d{}/f{n}", n % 10), "x\n".repeat(100))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let snapshot = world.snapshot(&files).await;
        let mut spawn = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            let output = Command::new("/bin/echo").arg("x").stdin(Stdio::null()).output().unwrap();
            assert_eq!(output.stdout, b"x\n");
            spawn.push(begun.elapsed());
        }
        let (mut start, mut destroy) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let name = format!("s{round}");
            let begun = Instant::now();
            let sandbox = world.start(spec(&name, &snapshot)).await.sandbox;
            let mut first = None;
            let mut take = |_| first = first.or(Some(begun.elapsed()));
            sandbox.exec(ExecRequest::new("x", ["/bin/echo", "x"]), &mut take).await.unwrap();
            start.push(first.unwrap());
            let begun = Instant::now();
            world.provider.destroy(&id(&name)).await.unwrap();
            destroy.push(begun.elapsed());
        }
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let (mut exec, mut stat) = (Vec::new(), Vec::new());
        for round in 0..rounds * 3 {
            let begun = Instant::now();
            run(&sandbox, ExecRequest::new(format!("e{round}"), ["/bin/echo", "x"])).await.unwrap();
            exec.push(begun.elapsed());
            let begun = Instant::now();
            sandbox.stat("/workspace".as_ref()).await.unwrap();
            stat.push(begun.elapsed());
        }
        let pid = std::fs::read_to_string(world.folder.path().join("data/run/a/pid")).unwrap();
        let pid = pid.split(' ').next().unwrap().to_owned();
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let memory: Vec<&str> =
            rollup.lines().filter(|l| ["Rss:", "Pss:", "Private_Dirty:"].iter().any(|n| l.starts_with(n))).collect();
        let mut shots = Vec::new();
        let mut stack = snapshot.clone();
        for round in 0..20 {
            let sandbox = world.start(spec("a", &stack)).await.sandbox;
            run(
                &sandbox,
                ExecRequest::shell("w", "for i in 1 2 3 4 5 6 7 8 9 10; do head -c 1000 /dev/zero > f$i; done"),
            )
            .await
            .unwrap();
            let begun = Instant::now();
            let key = domain::id::Digest::of(format!("shot {round}").as_bytes());
            stack = world.provider.snapshot(&id("a"), &key).await.unwrap();
            let sandbox = world.start(spec("a", &stack)).await.sandbox;
            run(&sandbox, ExecRequest::new("x", ["/bin/echo", "x"])).await.unwrap();
            shots.push(begun.elapsed());
        }
        for (name, times) in [
            ("bare spawn of echo (floor)", spawn),
            ("start to first output", start),
            ("exec round trip of echo", exec),
            ("file request round trip", stat),
            ("snapshot, restart, answer", shots),
            ("destroy", destroy),
        ] {
            let count = times.len();
            let (p50, p95) = median(times);
            println!("{name}: p50 {p50:.2} ms, p95 {p95:.2} ms, n={count}");
        }
        println!("the hand at rest: {}", memory.join(", "));
    });
}
