//! Origins behind a network, and git commands that do not come back.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use forge::{BuiltIn, Fault, Forge as _, ForgeConfig, LandError, OpenError, Origin};
use support::{permit, rig, task};
use testkit::{Repo, git_in, not_run};

/// A `git daemon` that also takes pushes, gone when dropped.
struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    fn start(base: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // The program itself: `git daemon` would be a parent whose end leaves it running.
        let program = Path::new(&git_in(base, &["--exec-path"])).join("git-daemon");
        let child = Command::new(program)
            .args(["--export-all", "--enable=receive-pack", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", base.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut daemon = Self { child, port };
        loop {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(daemon);
            }
            if daemon.child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_origin_behind_a_url_is_fetched_published_to_and_landed_on() {
    let repo = Repo::with_commit().to_bare();
    let Some(daemon) = Daemon::start(repo.path().parent().unwrap()) else {
        return not_run("an_origin_behind_a_url_is_fetched_published_to_and_landed_on", "git daemon is not installed");
    };
    let rig = rig().await;
    let url = format!("git://127.0.0.1:{}/repo.git", daemon.port);
    let project = rig.forge.open(&Origin::parse(&url).unwrap()).await.unwrap();
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    assert_eq!((base.branch.as_str(), base.sha.as_str()), ("main", repo.head().as_str()));
    let head = rig.work(&project, &task(1), &base.sha, ("new.txt", "new\n")).await;
    let published = rig.forge.publish(&project, &task(1), &head).await.unwrap();
    assert_eq!(repo.head_of(&published.branch).as_deref(), Some(head.as_str()));
    let permit = permit(&task(1), "main", &base.sha, &head);
    rig.land(&project, &permit).await.unwrap();
    assert_eq!(repo.head_of("main").as_deref(), Some(head.as_str()));
    assert!(rig.land(&project, &permit).await.unwrap().already);
    drop(daemon);
    let error = rig.land(&project, &permit).await.unwrap_err();
    assert!(matches!(&error, LandError::Fault(fault) if fault.is_transient()), "{error}");
    // What is in the hub can still be read.
    let again = rig.forge.reopen(&Origin::parse(&url).unwrap()).await.unwrap().unwrap();
    assert!(rig.forge.read_file(&again, &head, "new.txt", 100).await.unwrap().is_some());
}

#[tokio::test]
async fn a_password_in_a_url_is_in_no_error() {
    let rig = rig().await;
    let origin = Origin::parse("http://me:hunter2@127.0.0.1:1/x.git").unwrap();
    let error = rig.forge.open(&origin).await.unwrap_err();
    assert!(matches!(error, OpenError::Fault(Fault::Unreachable { .. })), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

/// A git that knows its version and otherwise hangs, telling its process id.
async fn hanging(scratch: &Path, time_limit: Duration) -> BuiltIn {
    let fake = Repo::at(scratch);
    let pid = scratch.join("pid");
    fake.script(
        "git",
        format!(
            "#!/bin/sh\ncase \"$*\" in *version*) echo git version 2.47.0; exit;; esac\n\
             echo $$ > '{0}.new'; mv '{0}.new' '{0}'\nsleep 1000 & wait\n",
            pid.display()
        ),
    );
    let mut config = ForgeConfig::new(scratch.join("data"));
    config.git = scratch.join("git");
    config.time_limit = time_limit;
    BuiltIn::new(config).await.unwrap()
}

/// Waits until the whole process group of the fake git is gone.
async fn is_gone(scratch: &Path) {
    let pid = std::fs::read_to_string(scratch.join("pid")).unwrap();
    let group = pid.trim();
    let lives = || {
        let stats = std::fs::read_dir("/proc").unwrap().flatten();
        stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[2] == group && fields[0] != "Z"
        })
    };
    while lives() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_git_that_hangs_is_ended_with_all_it_started() {
    let scratch = tempfile::tempdir().unwrap();
    let forge = hanging(scratch.path(), Duration::from_millis(300)).await;
    let repo = Repo::with_commit();
    let error = forge.open(&support::origin(repo.path())).await.unwrap_err();
    assert!(matches!(&error, OpenError::Fault(fault) if fault.is_transient()), "{error}");
    assert!(error.to_string().contains("was ended"), "{error}");
    is_gone(scratch.path()).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_its_git() {
    let scratch = tempfile::tempdir().unwrap();
    let forge = hanging(scratch.path(), Duration::from_secs(600)).await;
    let repo = Repo::with_commit();
    let origin = support::origin(repo.path());
    let started = async {
        while !scratch.path().join("pid").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = forge.open(&origin) => panic!("this git never answers"),
        () = started => {}
    }
    is_gone(scratch.path()).await;
}
