//! Builds in real boxes: what they keep, what they remove, how they fail.

use std::path::{Path, PathBuf};

use domain::id::Digest;
use sandbox::environment::build::{BuildFailure, BuildSpec, Built, DEFAULT_OUTPUT_CAP_BYTES, Step, build};
use sandbox::environment::forbidden::Forbidden;
use sandbox::environment::recipe::SetupCommand;
use sandbox::{Ended, Limits, Provider as _, Root, SandboxError, SnapshotRef};

use crate::world::{World, in_world, not_run, spec};

pub fn step(run: &str) -> Step {
    Step { command: SetupCommand::offline(run), door: None }
}

pub fn build_spec(name: &str, below: &SnapshotRef, lines: &[&str]) -> BuildSpec {
    BuildSpec {
        files: Vec::new(),
        key: Digest::of(name.as_bytes()),
        below: below.clone(),
        root: Root::Host,
        steps: lines.iter().map(|line| step(line)).collect(),
        env: Vec::new(),
        binds: Vec::new(),
        limits: Limits { pids: 60, memory_bytes: 256 << 20, ..Limits::default() },
        workdir: "/workspace".into(),
        caches: Vec::new(),
        output_cap_bytes: DEFAULT_OUTPUT_CAP_BYTES,
        forbidden: Vec::new(),
    }
}

async fn built(world: &World, spec: &BuildSpec) -> (Result<Built, BuildFailure>, String) {
    let mut log = Vec::new();
    let mut sink = |bytes: &[u8]| {
        log.extend_from_slice(bytes);
        bytes.to_vec()
    };
    let built = build(&world.provider, spec, &mut sink).await;
    (built, String::from_utf8_lossy(&log).into_owned())
}

async fn nothing_is_left(world: &World, key: &Digest) {
    assert_eq!(world.provider.list().await.unwrap(), [], "a box is left");
    assert_eq!(world.provider.prepared(key).await.unwrap(), None, "a layer is left");
}

/// A layer with a repository of one commit.
async fn checkout(world: &World) -> SnapshotRef {
    let key = Digest::of(b"checkout");
    let staged = world.provider.stage(&key, Path::new("/workspace")).await.unwrap();
    let git = |arguments: &[&str]| {
        let done = std::process::Command::new("git")
            .current_dir(&staged.content)
            .args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q", "-b", "main"]);
    for number in 0..50 {
        std::fs::write(staged.content.join(format!("file-{number}")), format!("{number}\n")).unwrap();
    }
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "x"]);
    world.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap()
}

#[test]
fn setup_runs_in_order_and_every_fork_starts_from_what_it_made() {
    in_world(async |world| {
        let below = checkout(world).await;
        let mut wanted =
            build_spec("a", &below, &["echo one > made; echo hello", "cat made - > twice < made", "touch file-3"]);
        wanted.env = vec![("WORD".into(), "w".into())];
        wanted.steps.push(step("echo $WORD > word"));
        let (done, log) = built(world, &wanted).await;
        let done = done.unwrap();
        assert!(!done.found && done.leftovers.is_empty() && done.notes.is_empty(), "{done:?}");
        assert!(log.starts_with("$ echo one > made; echo hello\nhello\n$ cat made"), "{log}");
        let layers = &done.snapshot.layers;
        assert_eq!((layers.len(), &layers[0], &layers[2]), (3, &below.layers[0], &wanted.key));
        assert!(world.provider.list().await.unwrap().is_empty(), "the box of the build is left");
        for name in ["fork-1", "fork-2"] {
            let fork = world.start(spec(name, &done.snapshot)).await.sandbox;
            // `touch` made the index stale; without a refresh at the end this names file-3.
            let ran = world.sh(&fork, "cat made twice word; git diff-files --name-only").await;
            assert_eq!(ran.text(), "one\none\none\nw\n", "{}", ran.err_text());
        }
        let (again, log) = built(world, &wanted).await;
        assert_eq!((again.unwrap(), log.as_str()), (Built { found: true, setup_ms: 0, ..done }, ""), "it ran again");
    });
}

#[test]
fn the_first_command_that_fails_is_named_with_its_last_words() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let wanted = build_spec("a", &below, &["true", "seq 1 100; echo last >&2; exit 7", "touch /workspace/never"]);
        let (done, log) = built(world, &wanted).await;
        let failure = done.unwrap_err();
        let BuildFailure::Command(failed) = &failure else { panic!("{failure:?}") };
        assert_eq!((failed.number, &failed.ended), (1, &Ended::Exited { code: 7 }));
        assert_eq!(failed.last_lines.len(), 20);
        assert!(failed.last_lines.contains(&"last".to_owned()), "{:?}", failed.last_lines);
        let said = failure.to_string();
        assert!(said.contains("setup command 2") && said.contains("exit code 7"), "{said}");
        assert!(log.contains("\n1\n2\n") && log.contains("chargehand: the command ended with exit code 7"), "{log}");
        nothing_is_left(world, &wanted.key).await;
    });
}

#[test]
fn setup_that_hangs_floods_eats_memory_or_forks_without_end_fails_by_name_and_leaves_nothing() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let mut cases: Vec<(&str, BuildSpec, fn(&Ended) -> bool)> = Vec::new();
        let mut hang = build_spec("hang", &below, &["sleep 1000 & sleep 1000"]);
        hang.steps[0].command.time_limit_s = 1;
        cases.push(("hang", hang, |ended| *ended == Ended::TimedOut));
        let mut flood = build_spec("flood", &below, &["yes"]);
        flood.output_cap_bytes = 1 << 20;
        cases.push(("flood", flood, |ended| *ended == Ended::OutputCapReached));
        let mut file = build_spec("file", &below, &["head -c 8000000 /dev/zero > big"]);
        file.limits.file_bytes = Some(1 << 20);
        cases.push(("large file", file, |ended| *ended == Ended::FileTooLarge));
        let mut bomb = build_spec("bomb", &below, &["b() { b | b & }; b; sleep 1000"]);
        bomb.steps[0].command.time_limit_s = 2;
        cases.push(("fork bomb", bomb, |ended| matches!(ended, Ended::TooManyProcesses | Ended::TimedOut)));
        if world.provider.probe().await.cgroup.limits_memory() {
            let eat = build_spec("memory", &below, &["x=$(head -c 600000000 /dev/zero | tr '\\0' x); echo ${#x}"]);
            cases.push(("memory", eat, |ended| *ended == Ended::OutOfMemory));
        } else {
            not_run("setup that eats memory", "no control group limits memory here");
        }
        for (name, wanted, right) in cases {
            let failure = built(world, &wanted).await.0.unwrap_err();
            let BuildFailure::Command(failed) = &failure else { panic!("{name}: {failure:?}") };
            assert!(right(&failed.ended), "{name}: {:?}", failed.ended);
            nothing_is_left(world, &wanted.key).await;
        }
    });
}

#[test]
fn a_daemon_that_setup_leaves_is_named_and_is_in_no_fork() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let wanted = build_spec("a", &below, &["setsid sleep 1000 > /dev/null 2>&1 & sleep 0.3; echo started", "true"]);
        let (done, log) = built(world, &wanted).await;
        let done = done.unwrap();
        // Named as it is at the moment of looking, so perhaps still as what starts it.
        assert!(matches!(done.leftovers.as_slice(), [name] if name == "sleep" || name == "setsid"), "{done:?}");
        assert!(log.contains("was left running and is ended"), "{log}");
        let fork = world.start(spec("fork", &done.snapshot)).await.sandbox;
        assert_eq!(world.sh(&fork, crate::world::OTHERS).await.text(), "0\n");
    });
}

#[test]
fn temporary_files_histories_and_caches_go_and_listed_caches_stay() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let fill = "mkdir -p ~/.cache/pip/http ~/.cache/keep/deep/in ~/.cache/keep/side /var/cache/x ~/.npm/_cacache; \
            for f in /tmp/a /tmp/.b '/tmp/c d' /var/tmp/x ~/.bash_history ~/.cache/pip/http/x ~/.cache/keep/deep/in/x \
            ~/.cache/keep/side/x /var/cache/x/x ~/.npm/_cacache/x ~/.profile; do echo x > \"$f\"; done; ln -s /workspace /tmp/link";
        let mut wanted = build_spec("a", &below, &[fill]);
        wanted.caches = vec!["/home/agent/.cache/keep/deep".into()];
        let done = built(world, &wanted).await.0.unwrap();
        let fork = world.start(spec("fork", &done.snapshot)).await.sandbox;
        let look = "find /tmp /var/tmp /var/cache ~ -type f -o -type l | sort; cat /workspace/hello.txt";
        let ran = world.sh(&fork, look).await;
        assert_eq!(ran.text(), "/home/agent/.cache/keep/deep/in/x\n/home/agent/.profile\nx", "{}", ran.err_text());
    });
}

#[test]
fn a_placeholder_is_all_of_a_secret_that_a_snapshot_may_hold() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let value = b"hunter2-hunter2-value".to_vec();
        let mut wanted =
            build_spec("a", &below, &["echo token=$NPM_TOKEN > ~/.npmrc; mkdir -p /opt/x; env > /opt/x/env"]);
        wanted.env = vec![("NPM_TOKEN".into(), "chargehand-secret-NPM_TOKEN".into())];
        wanted.forbidden = vec![Forbidden { name: "NPM_TOKEN".into(), value: value.clone() }];
        let done = built(world, &wanted).await.0.unwrap();
        let layers = world.folder.path().join("data/layers");
        let (mut placeholder, mut files) = (0, 0);
        let layer = |key: &Digest| layers.join(&key.as_str()[..32]).join("root");
        for path in done.snapshot.layers.iter().flat_map(|key| all_files(&layer(key))) {
            let bytes = std::fs::read(&path).unwrap();
            files += 1;
            assert!(!holds(&bytes, &value), "{path:?}");
            placeholder += usize::from(holds(&bytes, b"chargehand-secret-NPM_TOKEN"));
        }
        assert!(files >= 2 && placeholder == 2, "{files} files, {placeholder} with the placeholder");
        let fork = world.start(spec("fork", &done.snapshot)).await.sandbox;
        assert_eq!(world.sh(&fork, "env | grep -c NPM_TOKEN").await.text(), "0\n", "setup's variables stay in setup");
    });
}

#[test]
fn a_value_that_came_into_the_box_all_the_same_is_found_in_any_form_and_nothing_is_kept() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let lines = [
            ("plain", "head -c 3000000 /dev/zero > ~/x; printf 'a hunter2-hunter2-value' >> ~/x", "/home/agent/x"),
            ("base64", "printf 'xx:hunter2-hunter2-value' | base64 -w0 > ~/auth", "/home/agent/auth"),
            ("a name", "mkdir -p ~/a/hunter2-hunter2-value", "/home/agent/a"),
            ("a link", "ln -s hunter2-hunter2-value ~/link", "/home/agent/link"),
            ("an unreadable file", "printf hunter2-hunter2-value > ~/x; chmod 0 ~/x", "/home/agent/x"),
        ];
        for (name, line, place) in lines {
            let mut wanted = build_spec(name, &below, &[line]);
            wanted.forbidden = vec![Forbidden { name: "TOKEN".into(), value: b"hunter2-hunter2-value".to_vec() }];
            let failure = built(world, &wanted).await.0.unwrap_err();
            let BuildFailure::SecretInSnapshot { name: secret, path } = &failure else { panic!("{name}: {failure:?}") };
            assert_eq!((secret.as_str(), path.as_path()), ("TOKEN", Path::new(place)), "{name}");
            assert!(!failure.to_string().contains("hunter2-hunter2-value"), "{failure}");
            nothing_is_left(world, &wanted.key).await;
        }
    });
}

#[test]
fn a_snapshot_whose_base_layer_is_missing_fails_by_its_name() {
    in_world(async |world| {
        let below = SnapshotRef { layers: vec![Digest::of(b"nowhere")] };
        let wanted = build_spec("a", &below, &["true"]);
        let failure = built(world, &wanted).await.0.unwrap_err();
        let BuildFailure::Sandbox { source: SandboxError::LayerMissing { layer }, .. } = &failure else {
            panic!("{failure:?}")
        };
        assert_eq!(*layer, below.layers[0]);
        nothing_is_left(world, &wanted.key).await;
    });
}

#[test]
fn what_an_interrupted_build_left_does_not_show_in_the_next_one() {
    in_world(async |world| {
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let id = sandbox::environment::build::build_box(&Digest::of(b"a")).unwrap();
        let earlier = world.start(sandbox::StartSpec { id, ..spec("x", &below) }).await.sandbox;
        world.sh(&earlier, "echo half > half; sleep 1000 &").await;
        let done = built(world, &build_spec("a", &below, &["ls"])).await;
        assert_eq!(done.1, "$ ls\nhello.txt\n");
        assert!(!done.0.unwrap().found);
    });
}

#[test]
fn a_step_has_the_way_out_that_is_its_own_and_the_next_one_has_none() {
    use std::io::{Read as _, Write as _};
    const ASK: &str = "python3 -c \"import socket; s = socket.create_connection(('127.0.0.1', 3128), 5); \
        s.sendall(b'ask'); print(s.recv(100).decode())\" > answer 2>/dev/null || echo none > answer; cat answer";
    if !std::process::Command::new("/usr/bin/python3").arg("-V").output().is_ok_and(|done| done.status.success()) {
        return not_run("a step's way out", "/usr/bin/python3 is not there");
    }
    in_world(async |world| {
        let door = world.folder.path().join("door");
        std::fs::create_dir(&door).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(door.join("door.sock")).unwrap();
        for path in [door.clone(), door.join("door.sock")] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let answers = std::thread::spawn(move || {
            let (mut asked, _) = listener.accept().unwrap();
            let mut question = [0; 3];
            asked.read_exact(&mut question).unwrap();
            asked.write_all(b"answer from outside").unwrap();
            question
        });
        let below = world.snapshot(&[("hello.txt", "x")]).await;
        let mut wanted = build_spec("a", &below, &[ASK, ASK]);
        wanted.steps[0].door = Some(door);
        wanted.steps[0].command.run = format!("cat /run/door/ca.pem; {ASK}");
        wanted.files = vec![("/run/door/ca.pem".into(), b"certificate\n".to_vec())];
        let (done, log) = built(world, &wanted).await;
        let fork = world.start(spec("fork", &done.unwrap().snapshot)).await.sandbox;
        assert_eq!(world.sh(&fork, "ls -A /run").await.text(), "", "what setup needed stayed");
        assert_eq!(&answers.join().unwrap(), b"ask");
        let said: Vec<&str> =
            log.lines().filter(|line| !line.contains("socket") && !line.contains("sendall")).collect();
        assert_eq!(said, ["certificate", "answer from outside", "none"]);
    });
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn all_files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found
}
