//! The walls: network, host, processes, limits, and a program that does its worst.

use std::time::Duration;

use sandbox::{Ended, Limits, Provider, StartSpec};

use crate::world::{OTHERS, in_world, is_root, not_run, spec};

#[test]
fn there_is_no_network_but_loopback() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran =
            world.sh(&sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; cat /proc/net/route | wc -l").await;
        assert_eq!(ran.text(), "lo\n1\n");
        let line = "perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1\") or die; \
            print IO::Socket::INET->new(PeerAddr => \"127.0.0.1\", PeerPort => $l->sockport) ? \"up\\n\" : \"down\\n\"; \
            print IO::Socket::INET->new(PeerAddr => \"1.1.1.1\", PeerPort => 80) ? \"out\\n\" : \"$!\\n\"'";
        let ran = world.sh(&sandbox, line).await;
        assert_eq!(ran.text(), "up\nNetwork is unreachable\n", "{}", ran.err_text());
    });
}

#[test]
fn the_hosts_files_are_absent_but_for_its_programs() {
    in_world(async |world| {
        let canary = world.folder.path().join("canary");
        std::fs::write(&canary, "host").unwrap();
        let sandbox = world.sandbox("a").await;
        let ran = world.sh(&sandbox, "ls -A / /home /root /run /var /etc/ssh /sys 2>/dev/null; ls /usr/bin/env").await;
        let text = ran.text();
        assert!(
            text.contains("/home:\nagent\n") && text.contains("/root:\n\n") && text.contains("/run:\n\n"),
            "{text}"
        );
        assert!(text.contains("/var:\ncache\nlib\ntmp\n") && text.contains("/usr/bin/env\n"), "{text}");
        assert!(!text.contains("/etc/ssh") && !text.contains("/sys:"), "{text}");
        let ran = world
            .sh(&sandbox, &format!("cat {} 2>&1; cat /etc/shadow 2>&1; wc -c < /etc/resolv.conf", canary.display()))
            .await;
        assert!(!ran.text().contains("host\n") && ran.text().ends_with("\n0\n"), "{}", ran.text());
        // Mounts name no folder of the data folder.
        let ran = world.sh(&sandbox, "cat /proc/self/mounts /proc/self/mountinfo").await;
        assert!(!ran.text().contains(world.folder.path().to_str().unwrap()), "{}", ran.text());
        assert_eq!(world.sh(&sandbox, "hostname; id -u; umask").await.text(), "box\n0\n0022\n");
    });
}

#[test]
fn the_box_sees_its_own_processes_only_and_cannot_end_the_hand() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran = world.sh(&sandbox, &format!("{OTHERS}; kill -9 1; kill -TERM 1; echo alive")).await;
        assert_eq!(ran.text(), "0\nalive\n");
        assert_eq!(world.sh(&sandbox, "echo still").await.text(), "still\n");
    });
}

#[test]
fn every_command_has_the_filter_no_new_privileges_and_few_capabilities() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran = world
            .sh(
                &sandbox,
                "grep -E '^(CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status; ls -l /proc/self/fd | wc -l",
            )
            .await;
        let wanted = "CapEff:\t00000000800000fb\nCapBnd:\t00000000800000fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n5\n";
        assert_eq!(ran.text(), wanted);
        // No signal is blocked or ignored, there is no terminal and no group, and the session is its own.
        let line = "grep -E '^(SigBlk|SigIgn):' /proc/self/status; grep Groups /proc/self/status | tr -d ' \t'; \
            read pid name state parent group session terminal rest < /proc/self/stat; echo $terminal; nice";
        let none = "0000000000000000";
        let groups = if is_root() {
            "Groups:\n".to_owned()
        } else {
            world.sh(&sandbox, "grep Groups /proc/self/status | tr -d ' \t'").await.text()
        };
        let wanted = format!("SigBlk:\t{none}\nSigIgn:\t{none}\n{groups}0\n0\n");
        assert_eq!(world.sh(&sandbox, line).await.text(), wanted);
    });
}

#[test]
fn the_hand_tells_the_box_nothing_of_itself_or_of_the_host() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line = "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline; echo; for f in environ maps auxv io stack; do \
            cat /proc/1/$f 2>/dev/null; done; ls -ldn /proc/1/environ | cut -d' ' -f3; find / -xdev -name '*hand*' 2>/dev/null";
        // Its folder in /proc belongs to a user that the box does not have.
        assert_eq!(world.sh(&sandbox, line).await.text(), "hand\nchargehand __box \n65534\n");
    });
}

#[test]
fn landlock_stands_where_the_kernel_has_it_and_the_provider_says_so() {
    in_world(async |world| {
        let landlock = world.provider.probe().await.landlock;
        if !landlock {
            return not_run("Landlock stands around a box", "this kernel has none");
        }
        let sandbox = world.sandbox("a").await;
        let text = world.sh(&sandbox, "/opt/attack attacks | grep Landlock").await.text();
        assert_eq!(text, "kernel: a wall of Landlock less: blocked -2\n");
        // What a program needs of its files is not in the way: renames between folders, links, terminals.
        let line = "mkdir -p d e && echo x > d/f && mv d/f e/g && ln e/g d/h && truncate -s 0 e/g && \
            perl -e 'open(my $t, \"+<\", \"/dev/ptmx\") or die; ioctl($t, 0x80045430, my $n = pack(\"i\", 0)) or die \"$!\"; print \"pty\\n\"'";
        let ran = world.sh(&sandbox, line).await;
        assert_eq!(ran.text(), "pty\n", "{}", ran.err_text());
    });
}

#[test]
fn a_program_that_does_its_worst_gets_nowhere() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let ran = world.sh(&sandbox, "/opt/attack attacks").await;
        let text = ran.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() >= 230 && ran.outcome.ended == Ended::Exited { code: 0 }, "{text}{}", ran.err_text());
        let open: Vec<&&str> = lines.iter().filter(|line| line.ends_with("OPEN")).collect();
        assert!(open.is_empty(), "{open:#?}");
        for line in &lines {
            // A bad address or number would mean that the call was let in and only then refused.
            assert!(![" 14", " 22", " 9"].iter().any(|errno| line.ends_with(errno)), "{line}");
        }
        // The same for programs.
        let ran = world.sh(&sandbox, "/opt/attack attacks --json").await;
        let rows: Vec<serde_json::Value> = ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), lines.len());
        assert!(rows.iter().all(|row| row["blocked"] == true && row["kind"].is_string() && row["attack"].is_string()));
        assert_eq!(world.sh(&sandbox, "echo still").await.text(), "still\n");
    });
}

#[test]
fn a_hosts_abstract_socket_is_out_of_reach() {
    use std::os::linux::net::SocketAddrExt as _;
    in_world(async |world| {
        let name = format!("chargehand-test-{}-{}", std::process::id(), rustix::process::geteuid().as_raw());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let sandbox = world.sandbox("a").await;
        let line = format!(
            "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) or die; print connect(S, pack_sockaddr_un(\"\\0{name}\")) ? \"open\" : \"$!\"'"
        );
        assert_eq!(world.sh(&sandbox, &line).await.text(), "Connection refused");
    });
}

#[test]
fn a_set_user_id_program_gives_nothing() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let line = "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; stat -c %a /tmp/id; grep -c nosuid /proc/mounts >/dev/null && echo nosuid; \
            perl -e '$> = 1000; $< = 1000; exec \"/tmp/id\", \"-u\"'";
        let text = world.sh(&sandbox, line).await.text();
        if is_root() {
            assert_eq!(text, "4755\nnosuid\n1000\n");
        } else {
            not_run("a set-user-id program run by another user", "a box of an ordinary user has one user");
            assert!(text.starts_with("4755\nnosuid\n"), "{text}");
        }
    });
}

fn limited(snapshot: &sandbox::SnapshotRef, limits: Limits) -> StartSpec {
    StartSpec { limits, ..spec("a", snapshot) }
}

#[test]
fn a_fork_bomb_ends_at_the_limit_and_the_box_is_of_use_afterwards() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { pids: 60, ..Limits::default() };
        let sandbox = world.start(limited(&snapshot, limits)).await.sandbox;
        let ran = world.sh(&sandbox, "/opt/attack processes").await;
        let started: u32 = ran.text().trim().parse().unwrap();
        assert!((20..60).contains(&started), "{started} processes");
        let ran = world.sh_within(&sandbox, "f() { f | f & f; }; f 2>/dev/null", Duration::from_millis(700)).await;
        let ended = &ran.outcome.ended;
        assert!(matches!(ended, Ended::TimedOut | Ended::Exited { .. } | Ended::TooManyProcesses), "{ended:?}");
        // A bomb that ended by itself left its splinters behind.
        if ran.outcome.ended != Ended::TimedOut {
            world.provider.stop(&crate::world::id("a")).await.unwrap();
        }
        let sandbox = world.start(limited(&snapshot, limits)).await.sandbox;
        assert_eq!(world.sh(&sandbox, OTHERS).await.text(), "0\n");
    });
}

#[test]
fn too_much_memory_is_an_ending_of_its_own() {
    in_world(async |world| {
        let cgroup = world.provider.probe().await.cgroup;
        if cgroup != sandbox::CgroupSupport::V2 {
            not_run("limits by control groups version 2", "this machine offers this user no version 2 controllers");
        }
        if !cgroup.limits_memory() {
            return not_run("a memory limit ends a command as out of memory", "no control group for memory");
        }
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
        let sandbox = world.start(limited(&snapshot, limits)).await.sandbox;
        let ran = world.sh(&sandbox, "/opt/attack memory 16").await;
        assert_eq!((ran.outcome.ended, ran.out), (Ended::Exited { code: 0 }, b"held 16\n".to_vec()));
        assert_eq!(world.sh(&sandbox, "/opt/attack memory 400").await.outcome.ended, Ended::OutOfMemory);
        assert_eq!(world.sh(&sandbox, "/opt/attack memory 400; exit 5").await.outcome.ended, Ended::OutOfMemory);
        assert_eq!(world.sh(&sandbox, "exit 137").await.outcome.ended, Ended::Exited { code: 137 });
    });
}

#[test]
fn too_many_processes_are_an_ending_of_their_own_where_they_are_counted() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { pids: 40, ..Limits::default() };
        let sandbox = world.start(limited(&snapshot, limits)).await.sandbox;
        let counted = match world.provider.probe().await.cgroup {
            sandbox::CgroupSupport::V2 | sandbox::CgroupSupport::V1 { pids: true, .. } => true,
            sandbox::CgroupSupport::V1 { .. } | sandbox::CgroupSupport::None => false,
        };
        let ended = world.sh(&sandbox, "setsid /opt/attack processes; exit 3").await.outcome.ended;
        if counted {
            assert_eq!(ended, Ended::TooManyProcesses);
        } else {
            not_run("too many processes are an ending of their own", "no control group for processes");
            assert_eq!(ended, Ended::Exited { code: 3 });
        }
        while world.sh(&sandbox, OTHERS).await.text() != "0\n" {}
        // What succeeds in spite of a refusal has succeeded, and without one nothing is blamed.
        let ran = world.sh(&sandbox, "setsid /opt/attack processes > /dev/null; exit 0").await;
        assert_eq!(ran.outcome.ended, Ended::Exited { code: 0 });
        while world.sh(&sandbox, OTHERS).await.text() != "0\n" {}
        assert_eq!(world.sh(&sandbox, "exit 3").await.outcome.ended, Ended::Exited { code: 3 });
    });
}

#[test]
fn a_file_past_its_limit_ends_its_writer_and_open_files_and_crashes_have_limits_too() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { file_bytes: Some(8 << 20), open_files: 100, ..Limits::default() };
        let sandbox = world.start(limited(&snapshot, limits)).await.sandbox;
        assert_eq!(world.sh(&sandbox, "/opt/attack large-file 7").await.text(), "written\n");
        for line in ["exec /opt/attack large-file 9", "/opt/attack large-file 9; exit $?"] {
            let ran = world.sh(&sandbox, line).await;
            assert_eq!((&ran.outcome.ended, ran.out.len()), (&Ended::FileTooLarge, 0));
        }
        // What the platform itself puts into the box and keeps of a command is not limited by it.
        sandbox.write("big".as_ref(), &vec![0; 9 << 20], None).await.unwrap();
        let mut request = sandbox::ExecRequest::shell("much", "head -c 12000000 /dev/zero");
        request.output_cap_bytes = 20 << 20;
        assert_eq!(crate::world::run(&sandbox, request).await.unwrap().out.len(), 12_000_000);

        let text = world.sh(&sandbox, "/opt/attack open-files").await.text();
        let (opened, errno) = text.trim().split_once(' ').unwrap();
        assert!(opened.parse::<u32>().unwrap() < 100 && errno == "24", "{text}");
        let ran = world.sh(&sandbox, "cd /tmp; kill -SEGV $$").await;
        assert_eq!(ran.outcome.ended, Ended::Signaled { signal: 11 });
        // The host's handler of crashes stays out of it: one byte of core is what it does not take.
        assert_eq!(
            world.sh(&sandbox, "grep core /proc/self/limits | tr -s ' '; ls /tmp").await.text(),
            "Max core file size 1 1 bytes \nlarge\n"
        );
    });
}

#[test]
fn processor_time_is_shared_out_where_control_groups_are() {
    in_world(async |world| {
        let snapshot = world.snapshot(&[]).await;
        let limits = Limits { cpu_millis: Some(500), ..Limits::default() };
        let _sandbox = world.start(limited(&snapshot, limits)).await.sandbox;
        let record = std::fs::read(world.folder.path().join("data/run/a/box.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let folders = record["cgroups"].as_array().unwrap().iter().map(|g| g.as_str().unwrap().to_owned());
        let quotas: Vec<String> = folders
            .flat_map(|g| [format!("{g}/cpu.cfs_quota_us"), format!("{g}/cpu.max")])
            .filter_map(|file| std::fs::read_to_string(file).ok())
            .collect();
        if quotas.is_empty() {
            return not_run("a processor limit is set", "no control group for cpu");
        }
        assert!(quotas[0].starts_with("50000"), "{quotas:?}");
    });
}
