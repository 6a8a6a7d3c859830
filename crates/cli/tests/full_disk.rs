//! A disk that fills up under a task: what is ordinary is refused, and the task can still be called off.
//!
//! The test program starts itself again under `unshare` on a small disk of its own, which takes the
//! right to mount; elsewhere it says so and checks nothing. Absent: what the store does of it; see
//! there.

mod product;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use product::{Product, project, question, repo_arg};

const DISK: &str = "CHARGEHAND_TEST_SMALL_DISK";

#[test]
fn a_task_can_be_called_off_on_a_full_disk() {
    let dir = tempfile::Builder::new().prefix("ch-").tempdir().unwrap();
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        command.env(DISK, dir.path()).env("TMPDIR", dir.path()).output()
    };
    let mount = format!("mount -t tmpfs -o size=96m tmpfs \"${DISK}\"");
    if !unshare(&mount).is_ok_and(|output| output.status.success()) {
        testkit::not_run("a_task_can_be_called_off_on_a_full_disk", "nobody but root may mount here");
        return;
    }
    let run = unshare(&format!("{mount} && exec \"$1\" --exact on_the_small_disk --ignored --nocapture")).unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    print!("{out}");
    assert!(run.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Takes every byte that is left, as a program in a box would.
fn fill_up(disk: &Path) {
    let mut hog = std::fs::OpenOptions::new().append(true).create(true).open(disk.join("hog")).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while hog.write_all(&vec![7; size]).is_ok() {}
    }
}

/// One ordinary write; gives what a refusal says.
fn write(product: &Product, n: usize) -> Option<String> {
    let mut command = product.command(&["secret", "set", &format!("T{n}"), "--server", "--host=h"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&vec![b'x'; 60_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
#[ignore = "runs on the small disk that the other test makes"]
fn on_the_small_disk() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
    let product = Product::new();
    assert!(product.home.path().starts_with(&disk));
    let repo = project(&question());
    let submitted = product.json(&["run", "x", &repo_arg(&repo), "--", "sh", "-c", "echo begun; sleep 1000"]);
    if submitted["error"]["type"].as_str().is_some_and(|kind| kind.ends_with("no-sandbox")) {
        testkit::not_run("a_task_can_be_called_off_on_a_full_disk", "this machine can't run boxes");
        return;
    }
    let id = submitted["task"]["id"].as_str().unwrap().to_owned();
    product.until(&id, "is at work", |task| task["state"] == "working" && task["attempts"] != 0);

    assert_eq!(write(&product, 9_999), None);
    let kept_back = || std::fs::metadata(product.data().join("reserve")).unwrap().len();
    let before = kept_back();

    fill_up(&disk);
    let refusal = (0..2_000).find_map(|n| {
        let refusal = write(&product, n);
        fill_up(&disk);
        refusal
    });
    let refusal = refusal.expect("the disk never filled up");
    assert!(refusal.contains("is full") && refusal.contains("free some space"), "{refusal}");
    assert_eq!(product.show(&id)["state"], "working", "reading goes on");
    assert_eq!(kept_back(), before, "ordinary work does not touch what is kept back");

    let called_off = product.ok(&["cancel", &id, "-m", "it eats the disk"]);
    assert_eq!(called_off["state"], "canceled");
    assert_eq!(product.ok(&["list", "--all"])["tasks"][0]["state"], "canceled");
    println!("{before} bytes were kept back, {} are left", kept_back());
    product.kill_server();
    fill_up(&disk);
    assert_eq!(product.show(&id)["state"], "canceled", "it is stored, and a server comes up on the full disk");
}
