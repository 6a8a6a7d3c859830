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

#[test]
#[ignore = "a measurement: run it alone, on a quiet machine"]
fn five_thousand_files_from_staging_to_the_first_git_status_and_a_hundred_forks() {
    in_world(async |world| {
        let key = domain::id::Digest::of(b"five thousand");
        let staged = world.provider.stage(&key, "/workspace".as_ref()).await.unwrap();
        for n in 0..5000 {
            let folder = staged.content.join(format!("d{}", n / 50));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("f{n}.txt")), format!("{n}\n").repeat(200)).unwrap();
        }
        for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "first"]] {
            crate::work::git(&staged.content, arguments);
        }
        let begun = Instant::now();
        let status = Command::new("git").args(["status", "--porcelain"]).current_dir(&staged.content).output().unwrap();
        assert!(status.status.success());
        println!("git status on the host, raw folder: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
        let begun = Instant::now();
        let snapshot = world.provider.prepare(&key, staged).await.unwrap();
        println!("prepare 5,000 files: {:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
        for name in ["one", "two", "three"] {
            let sandbox = world.start(spec(name, &snapshot)).await.sandbox;
            let mut times = Vec::new();
            for round in ["first", "second"] {
                let begun = Instant::now();
                let ran = run(&sandbox, ExecRequest::new(round, ["git", "status", "--porcelain"])).await.unwrap();
                assert!(ran.out.is_empty());
                times.push(format!("{:.1}", begun.elapsed().as_secs_f64() * 1000.0));
            }
            println!("git status in box {name}, first and second: {} ms", times.join(", "));
        }
        let available = || -> u64 {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap();
            let line = text.lines().find(|line| line.starts_with("MemAvailable")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let before = available();
        let begun = Instant::now();
        let names: Vec<String> = (0..100).map(|n| format!("fork{n}")).collect();
        let all = names.iter().map(|name| async {
            let sandbox = world.start(spec(name, &snapshot)).await.sandbox;
            run(&sandbox, ExecRequest::new("x", ["/bin/echo", "x"])).await.unwrap();
        });
        let mut all: Vec<_> = all.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            use std::future::Future as _;
            all.retain_mut(|one| one.as_mut().poll(context).is_pending());
            if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        println!("100 forks, all answered: {:.0} ms", begun.elapsed().as_secs_f64() * 1000.0);
        println!("memory per box at rest: {:.2} MB", before.saturating_sub(available()) as f64 / 100.0 / 1024.0);
    });
}
