//! Boxes with a root of their own: a tree with one static program, and trees that cannot be used.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use domain::id::Digest;
use sandbox::{Ended, ExecRequest, Provider, Root, SandboxError, SnapshotRef, StartSpec, StartedAs};

use crate::world::{World, base, in_world, not_run, run, spec};

/// A file out of one of Debian's packages, unpacked beside the tests.
fn unpacked(package: &str, file: &str) -> Option<PathBuf> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let places = [Path::new(env!("CARGO_TARGET_TMPDIR")).join(package), base().join(package)];
    if let Some(place) = places.iter().find(|place| place.join(file).is_file()) {
        return Some(place.join(file));
    }
    let folder = tempfile::Builder::new().prefix("package").tempdir_in(base()).ok()?;
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder.path()).stdin(Stdio::null());
        command.env("DEBIAN_FRONTEND", "noninteractive").output().is_ok_and(|output| output.status.success())
    };
    let script = format!("chmod 755 . && dpkg-deb -x {package}_*.deb {package}");
    if !run("apt-get", &["download", package]) || !run("sh", &["-c", &script]) {
        return None;
    }
    let place = places.iter().find(|place| std::fs::rename(folder.path().join(package), place).is_ok())?;
    Some(place.join(file)).filter(|path| path.is_file())
}

/// A busybox without a C library: the system's, or one out of Debian's package.
fn busybox() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let is_static = |path: &PathBuf| {
        let listed = Command::new("/lib64/ld-linux-x86-64.so.2").arg("--verify").arg(path).output();
        path.is_file() && listed.is_ok_and(|output| !output.status.success())
    };
    let known = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = FOUND.get_or_init(|| {
        known.into_iter().find(is_static).or_else(|| unpacked("busybox-static", "bin/busybox").filter(is_static))
    });
    found.clone()
}

/// A snapshot that is a whole root: folders end with `/`, links say where to.
async fn root(world: &World, name: &str, build: impl FnOnce(&Path)) -> SnapshotRef {
    let key = Digest::of(name.as_bytes());
    let staged = world.provider.stage(&key, Path::new("/")).await.unwrap();
    build(&staged.content);
    world.provider.prepare(&key, staged, sandbox::Owners::Root).await.unwrap()
}

fn add(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn own(name: &str, snapshot: &SnapshotRef) -> StartSpec {
    StartSpec { root: Root::Own, binds: Vec::new(), ..spec(name, snapshot) }
}

#[test]
fn a_box_of_one_static_program_runs_commands_holds_files_and_is_snapshot() {
    let Some(busybox) = busybox() else {
        return not_run("a box with a busybox-only root", "no static busybox here, and none can be downloaded");
    };
    in_world(async |world| {
        let snapshot = root(world, "busybox", |root| {
            add(root, "bin/busybox", &std::fs::read(&busybox).unwrap());
            symlink("busybox", root.join("bin/sh")).unwrap();
        })
        .await;
        let sandbox = world.start(own("a", &snapshot)).await.sandbox;
        let ran =
            world.sh(&sandbox, "busybox ls -A /; busybox ls -A /bin /usr 2>&1; pwd; busybox cat /proc/1/comm").await;
        let folders = "bin\ndev\netc\nmnt\nproc\nroot\nrun\ntmp\nvar\nworkspace\n";
        let wanted = format!("{folders}ls: /usr: No such file or directory\n/bin:\nbusybox\nsh\n/workspace\nhand\n");
        assert_eq!(ran.text(), wanted, "{}", ran.err_text());
        let ran = world.sh(&sandbox, "echo $PATH $HOME; busybox id -u; echo > /dev/null && busybox mktemp -d /tmp/XXXXXX >/dev/null && echo made").await;
        assert_eq!(
            ran.text(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root\n0\nmade\n",
            "{}",
            ran.err_text()
        );
        // Nothing in the tree or in the mount table tells of the hand or of where the host keeps it.
        let ran = world.sh(&sandbox, "busybox cat /proc/self/mountinfo").await;
        assert!(!ran.text().contains(world.folder.path().to_str().unwrap()), "{}", ran.text());

        sandbox.write("/srv/new.txt".as_ref(), b"kept", Some(0o600)).await.unwrap();
        assert_eq!(sandbox.read("/srv/new.txt".as_ref(), 0, 100).await.unwrap().bytes, b"kept");
        assert_eq!(sandbox.stat("/bin/sh".as_ref()).await.unwrap().kind, sandbox::EntryKind::Link);
        assert_eq!(world.sh(&sandbox, "busybox rm -r /mnt; busybox sleep 1000 & echo x").await.text(), "x\n");
        let later = world.provider.snapshot(sandbox.id(), &Digest::of(b"later")).await.unwrap();
        let started = world.start(own("b", &later)).await;
        assert_eq!(started.found, StartedAs::Fresh);
        let ran = world.sh(&started.sandbox, "busybox cat /srv/new.txt; busybox ls -d /mnt 2>&1").await;
        assert_eq!(ran.text(), "keptls: /mnt: No such file or directory\n");
    });
}

#[test]
fn a_root_needs_no_shell_and_its_own_path_and_home_can_be_set() {
    let Some(busybox) = busybox() else {
        return not_run("a box without a shell", "no static busybox here, and none can be downloaded");
    };
    in_world(async |world| {
        let snapshot = root(world, "one", |root| add(root, "tools/busybox", &std::fs::read(&busybox).unwrap())).await;
        let env = [("PATH", "/tools"), ("HOME", "/elsewhere")].map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        let spec = StartSpec { env, workdir: "/made/for/it".into(), ..own("a", &snapshot) };
        let sandbox = world.start(spec).await.sandbox;
        let ran = run(&sandbox, ExecRequest::new("x", ["busybox", "env"])).await.unwrap();
        assert!(ran.text().contains("PATH=/tools\n") && ran.text().contains("HOME=/elsewhere\n"), "{}", ran.text());
        let ran = run(&sandbox, ExecRequest::new("y", ["busybox", "pwd"])).await.unwrap();
        assert_eq!(ran.text(), "/made/for/it\n");
        let ran = run(&sandbox, ExecRequest::shell("z", "true")).await.unwrap();
        assert!(matches!(ran.outcome.ended, Ended::NotStarted { message } if message.contains("/bin/sh")));
    });
}

#[test]
fn a_box_with_another_c_library_runs_programs_of_that_library() {
    const LOADER: &str = "lib/ld-musl-x86_64.so.1";
    let Some(library) = unpacked("musl", "lib/x86_64-linux-musl/libc.so") else {
        return not_run("a box with another C library", "the package musl cannot be downloaded");
    };
    in_world(async |world| {
        let (source, program) = (world.folder.path().join("main.c"), world.folder.path().join("main"));
        let text = "int puts(const char *); char *getenv(const char *); _Noreturn void exit(int);\n\
            void _start(void) { puts(getenv(\"HOME\")); exit(7); }\n";
        std::fs::write(&source, text).unwrap();
        let loader = format!("-Wl,--dynamic-linker=/{LOADER}");
        let built = Command::new("cc")
            .args(["-nostdlib", "-nostartfiles", "-fno-stack-protector", "-mincoming-stack-boundary=3", &loader, "-o"])
            .args([&program, &source])
            .arg("-L")
            .arg(library.parent().unwrap())
            .arg("-l:libc.so")
            .output();
        if !built.is_ok_and(|output| output.status.success()) {
            return not_run("a box with another C library", "no C compiler that links with musl");
        }
        let snapshot = root(world, "musl", |root| {
            add(root, LOADER, &std::fs::read(&library).unwrap());
            add(root, "bin/main", &std::fs::read(&program).unwrap());
        })
        .await;
        let sandbox = world.start(own("a", &snapshot)).await.sandbox;
        let ran = run(&sandbox, ExecRequest::new("x", ["main"])).await.unwrap();
        assert_eq!(
            (ran.text().as_str(), &ran.outcome.ended),
            ("/root\n", &Ended::Exited { code: 7 }),
            "{}",
            ran.err_text()
        );
    });
}

#[test]
fn a_root_for_another_machine_is_refused_by_name_and_leaves_nothing_running() {
    in_world(async |world| {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(16, 0);
        header.extend([2, 0, 22, 0]);
        header.resize(200, 0);
        let snapshot = root(world, "other machine", |root| add(root, "bin/sh", &header)).await;
        let Err(error) = world.provider.start(own("a", &snapshot)).await else { panic!("it started") };
        assert!(matches!(&error, SandboxError::BadRoot { what } if what.contains("s390x")), "{error}");
        assert_eq!(error.advice(), sandbox::Advice::ChangeRequest);
        assert_eq!(world.provider.list().await.unwrap(), Vec::new());
    });
}

#[test]
fn roots_that_are_in_the_way_of_a_box_give_errors_and_those_with_links_stay_inside() {
    in_world(async |world| {
        for folder in ["proc", "dev"] {
            let snapshot = root(world, &format!("a file {folder}"), |root| add(root, folder, b"a file")).await;
            let Err(error) = world.provider.start(own("a", &snapshot)).await else { panic!("it started") };
            assert!(matches!(&error, SandboxError::Start { step, .. } if step == folder), "{error}");
        }
        let canary = world.folder.path().join("outside");
        std::fs::create_dir(&canary).unwrap();
        let far = canary.clone();
        let snapshot = root(world, "links", move |root| {
            symlink(&far, root.join("workspace")).unwrap();
            symlink("/../../../../../..", root.join("dev")).unwrap();
        })
        .await;
        // Whether it starts does not matter; that nothing outside is touched does.
        let _ = world.provider.start(own("a", &snapshot)).await;
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    });
}
