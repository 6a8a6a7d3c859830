//! Commands: output, endings, limits, and that one id runs once.

use std::time::Duration;

use sandbox::{Ended, ExecRequest, SandboxError};

use crate::world::{OTHERS, in_world, run};

#[test]
fn output_comes_as_it_is_written_and_the_exit_code_at_the_end() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        // The command goes on only when the first chunk has been seen: it waits for a file that is
        // written then.
        let line = "echo first; while ! test -e /tmp/go; do sleep 0.01; done; echo second; exit 3";
        let (seen, mut chunks) = tokio::sync::mpsc::unbounded_channel();
        let mut take = |chunk: sandbox::OutputChunk| drop(seen.send(chunk.bytes));
        let exec = sandbox.exec(ExecRequest::shell("x", line), &mut take);
        let helper = async {
            assert_eq!(chunks.recv().await.unwrap(), b"first\n");
            sandbox.write("/tmp/go".as_ref(), b"", None).await.unwrap();
            assert_eq!(chunks.recv().await.unwrap(), b"second\n");
        };
        let (outcome, ()) = tokio::join!(exec, helper);
        assert_eq!(outcome.unwrap().ended, Ended::Exited { code: 3 });
    });
}

#[test]
fn the_two_streams_stay_apart_and_bytes_stay_bytes() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line = r"i=0; while [ $i -lt 256 ]; do printf \\$(printf %03o $i); i=$((i+1)); done; echo oops >&2";
        let ran = world.sh(&sandbox, line).await;
        assert_eq!(ran.out, (0..=255).collect::<Vec<u8>>());
        assert_eq!(ran.err, b"oops\n");
        assert_eq!((ran.outcome.stdout_bytes, ran.outcome.stderr_bytes), (256, 5));
    });
}

#[test]
fn a_megabyte_comes_whole_and_arguments_and_variables_may_be_any_bytes() {
    use std::os::unix::ffi::OsStringExt as _;
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran = world.sh(&sandbox, "head -c 3000000 /dev/zero | tr '\\0' x").await;
        assert_eq!(ran.out.len(), 3_000_000);
        assert!(ran.out.iter().all(|byte| *byte == b'x'));
        let odd = std::ffi::OsString::from_vec(vec![0xff, 0xfe]);
        let mut request = ExecRequest::new(
            "odd",
            ["/bin/sh".into(), "-c".into(), "printf %s \"$1$V\"".into(), "sh".into(), odd.clone()],
        );
        request.env.push(("V".into(), odd));
        assert_eq!(run(&sandbox, request).await.unwrap().out, [0xff, 0xfe, 0xff, 0xfe]);
    });
}

#[test]
fn a_program_that_is_not_there_is_an_outcome_and_so_is_a_missing_folder() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran = run(&sandbox, ExecRequest::new("x", ["no-such-program"])).await.unwrap();
        assert!(matches!(ran.outcome.ended, Ended::NotStarted { message } if message.contains("no-such-program")));
        let request = ExecRequest { cwd: Some("/nowhere".into()), ..ExecRequest::shell("y", "true") };
        let ran = run(&sandbox, request).await.unwrap();
        assert!(matches!(ran.outcome.ended, Ended::NotStarted { message } if message.contains("/nowhere")));
    });
}

#[test]
fn a_signal_is_told_from_an_exit() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        assert_eq!(world.sh(&sandbox, "kill -11 $$").await.outcome.ended, Ended::Signaled { signal: 11 });
    });
}

#[test]
fn the_time_limit_ends_the_whole_tree_also_what_left_its_group_or_hid() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line = "sleep 1000 & (sleep 1000 & sleep 1000) & setsid sleep 1000 & \
            setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & env -i setsid sleep 1000 & \
            /opt/attack hide 1000; sleep 1000";
        let ran = world.sh_within(&sandbox, line, Duration::from_millis(500)).await;
        assert_eq!(ran.outcome.ended, Ended::TimedOut);
        assert_eq!(world.sh(&sandbox, OTHERS).await.text(), "0\n");
    });
}

#[test]
fn ending_one_command_leaves_another_and_its_children_alone() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line =
            "setsid sleep 1000 & p=$!; echo up; while ! test -e /tmp/go; do sleep 0.01; done; kill -0 $p && echo 1";
        let other = run(&sandbox, ExecRequest::shell("other", line));
        let ender = async {
            while world.sh(&sandbox, "pgrep -c sleep || true").await.text().trim() == "0" {}
            let ran = world.sh_within(&sandbox, "setsid sleep 1000 & sleep 1000", Duration::from_millis(300)).await;
            assert_eq!(ran.outcome.ended, Ended::TimedOut);
            sandbox.write("/tmp/go".as_ref(), b"", None).await.unwrap();
        };
        let (other, ()) = tokio::join!(other, ender);
        let other = other.unwrap();
        assert_eq!(other.outcome.ended, Ended::Exited { code: 0 });
        assert_eq!(other.text(), "up\n1\n");
    });
}

#[test]
fn a_background_server_survives_its_command_and_dies_with_a_kill_of_its_id() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran = run(&sandbox, ExecRequest::shell("server", "sleep 1000 & echo started")).await.unwrap();
        assert_eq!((ran.outcome.ended, ran.out), (Ended::Exited { code: 0 }, b"started\n".to_vec()));
        assert_eq!(world.sh(&sandbox, OTHERS).await.text(), "1\n");
        sandbox.kill("server").await.unwrap();
        while world.sh(&sandbox, OTHERS).await.text() != "0\n" {}
    });
}

#[test]
fn output_beyond_the_cap_ends_the_command_and_what_is_kept_is_the_cap() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let request = ExecRequest { output_cap_bytes: 100_000, ..ExecRequest::shell("x", "yes; sleep 1000") };
        let ran = run(&sandbox, request).await.unwrap();
        assert_eq!((ran.outcome.ended, ran.out.len()), (Ended::OutputCapReached, 100_000));
        assert_eq!(world.sh(&sandbox, OTHERS).await.text(), "0\n");
    });
}

#[test]
fn the_same_exec_id_runs_once_and_both_askers_get_all_of_it() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line = "echo one >> /tmp/count; cat /tmp/count; sleep 0.2; echo end";
        let (first, second) =
            tokio::join!(run(&sandbox, ExecRequest::shell("x", line)), run(&sandbox, ExecRequest::shell("x", line)));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.text(), second.text()), ("one\nend\n".into(), "one\nend\n".into()));
        assert_eq!(first.outcome, second.outcome);
        let later = run(&sandbox, ExecRequest::shell("x", line)).await.unwrap();
        assert_eq!((later.text(), &later.outcome), ("one\nend\n".into(), &first.outcome));
        let other = run(&sandbox, ExecRequest::shell("x", "something else")).await;
        assert!(matches!(other, Err(SandboxError::Refused(f)) if f.code == hand::wire::FailureCode::ExecConflict));
    });
}

#[test]
fn a_command_goes_on_when_its_asker_is_lost_and_its_result_waits() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line = "echo begun; while ! test -e /tmp/go; do sleep 0.01; done; echo done";
        let (seen, mut chunks) = tokio::sync::mpsc::unbounded_channel();
        {
            let mut take = |chunk: sandbox::OutputChunk| drop(seen.send(chunk.bytes));
            let exec = sandbox.exec(ExecRequest::shell("x", line), &mut take);
            tokio::select! {
                _ = exec => panic!("it cannot have ended"),
                first = chunks.recv() => assert_eq!(first.unwrap(), b"begun\n"),
            }
        }
        sandbox.write("/tmp/go".as_ref(), b"", None).await.unwrap();
        let mut out = Vec::new();
        let outcome = sandbox.follow("x", &mut |chunk| out.extend(chunk.bytes)).await.unwrap();
        assert_eq!((outcome.ended, out), (Ended::Exited { code: 0 }, b"begun\ndone\n".to_vec()));
        sandbox.acknowledge("x").await.unwrap();
        let again = run(&sandbox, ExecRequest::shell("x", line)).await.unwrap();
        assert!(again.outcome.output_dropped && again.out.is_empty());
        assert_eq!(again.outcome.ended, Ended::Exited { code: 0 });
        let unknown = sandbox.follow("never", &mut |_| {}).await;
        assert!(matches!(unknown, Err(SandboxError::Refused(_))));
    });
}

#[test]
fn an_acknowledged_command_keeps_its_outcome_and_says_that_its_output_is_gone() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        for (line, had_output) in [("echo x; exit 3", true), ("exit 3", false)] {
            let request = || ExecRequest::shell(line, line);
            let first = run(&sandbox, request()).await.unwrap().outcome;
            sandbox.acknowledge(line).await.unwrap();
            sandbox.acknowledge(line).await.unwrap();
            let again = run(&sandbox, request()).await.unwrap();
            assert!(again.out.is_empty());
            assert_eq!(again.outcome, sandbox::ExecOutcome { output_dropped: had_output, ..first });
        }
    });
}

#[test]
fn output_that_nobody_acknowledges_is_kept_up_to_a_bound_from_the_latest_command_back() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let request = |n: u32| ExecRequest::shell(format!("big-{n}"), "head -c 8000000 /dev/zero");
        for n in 0..5 {
            assert_eq!(run(&sandbox, request(n)).await.unwrap().out.len(), 8_000_000);
        }
        let mut kept = Vec::new();
        for n in 0..5 {
            let again = run(&sandbox, request(n)).await.unwrap();
            assert_eq!((&again.outcome.ended, again.outcome.stdout_bytes), (&Ended::Exited { code: 0 }, 8_000_000));
            assert_eq!(again.outcome.output_dropped, again.out.is_empty());
            kept.push(again.out.len() / 1_000_000);
        }
        assert_eq!(kept, [0, 8, 8, 8, 8], "32 MiB are kept");
    });
}

#[test]
fn a_hundred_commands_at_once_each_get_their_own_output() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let mut all = tokio::task::JoinSet::new();
        for n in 0..100 {
            let sandbox = std::sync::Arc::clone(&sandbox);
            all.spawn(async move {
                let line = format!("i=0; while [ $i -lt 500 ]; do echo {n} {n} {n}; i=$((i+1)); done; exit {n}");
                (n, run(&sandbox, ExecRequest::shell(format!("many-{n}"), line)).await.unwrap())
            });
        }
        while let Some(done) = all.join_next().await {
            let (n, ran) = done.unwrap();
            assert_eq!(ran.outcome.ended, Ended::Exited { code: n });
            assert_eq!(ran.text(), format!("{n} {n} {n}\n").repeat(500));
        }
    });
}

#[test]
fn a_killed_command_says_so_to_whoever_follows_it() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let (seen, mut chunks) = tokio::sync::mpsc::unbounded_channel();
        let mut take = |chunk: sandbox::OutputChunk| drop(seen.send(chunk.bytes));
        let exec = sandbox.exec(ExecRequest::shell("x", "echo up; sleep 1000"), &mut take);
        let killer = async {
            chunks.recv().await.unwrap();
            sandbox.kill("x").await.unwrap();
        };
        let (outcome, ()) = tokio::join!(exec, killer);
        assert_eq!(outcome.unwrap().ended, Ended::Killed);
    });
}

#[test]
fn the_environment_is_what_was_built_and_nothing_else() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let mut spec = crate::world::spec("a", &snapshot);
        spec.env.push(("FROM_SPEC".into(), "1".into()));
        let sandbox = world.start(spec).await.sandbox;
        let mut request = ExecRequest::new("x", ["env", "-0"]);
        request.env.push(("FROM_REQUEST".into(), "2".into()));
        let ran = run(&sandbox, request).await.unwrap();
        let text = ran.text();
        let mut names: Vec<&str> =
            text.split('\0').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap().0).collect();
        names.sort_unstable();
        let wanted = [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CHARGEHAND_EXEC",
            "FROM_REQUEST",
            "FROM_SPEC",
            "GIT_CONFIG_SYSTEM",
            "GIT_TERMINAL_PROMPT",
            "HOME",
            "LANG",
            "LOGNAME",
            "PATH",
            "SHELL",
            "TERM",
            "USER",
        ];
        assert_eq!(names, wanted);
        assert!(text.contains("HOME=/home/agent\0") && text.contains("LANG=C.UTF-8\0"));
    });
}
