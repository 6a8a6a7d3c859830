//! Work trees for sandboxes: alone, quick, and with nothing of the host in them.

mod support;

use std::num::NonZeroU32;
use std::path::Path;

use forge::{Checkout, CheckoutError, Depth, Forge as _};
use support::{rig, sha, task};
use testkit::{Repo, git_in};

fn everything_under(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(everything_under(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    found
}

#[tokio::test]
async fn a_checkout_stands_alone_and_knows_no_path_of_the_host() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    assert_eq!(tree.status(), "");
    assert_eq!((tree.head().as_str(), tree.git(&["branch", "--show-current"]).as_str()), (base.sha.as_str(), "work"));
    assert_eq!(tree.git(&["remote"]), "");
    assert_eq!(tree.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/work");
    let secret = [rig.scratch.path().to_str().unwrap().to_owned(), repo.path().to_str().unwrap().to_owned()];
    for (name, content) in everything_under(&tree.path().join(".git")) {
        for path in &secret {
            assert!(!content.windows(path.len()).any(|part| part == path.as_bytes()), "{name} names {path}");
        }
        assert!(!name.contains("/hooks/"), "{name}");
    }
    // It goes on working when the host's side is gone.
    std::fs::remove_dir_all(rig.hub()).unwrap();
    tree.git(&["fsck", "--strict"]);
    tree.file("new", "x").commit("on its own");
}

#[tokio::test]
async fn a_checkout_has_bounded_history_and_nothing_of_other_tasks() {
    let rig = rig().await;
    let repo = Repo::new();
    for number in 0..8 {
        repo.file("count", number.to_string()).commit(&format!("commit {number}"));
    }
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let other = rig.work(&project, &task(1), &base.sha, ("secret", "of another task\n")).await;
    let dest = rig.scratch.path().join("shallow");
    let how = Checkout { branch_name: "chargehand/x".into(), depth: NonZeroU32::new(3) };
    rig.forge.checkout(&project, &base.sha, &dest, &how).await.unwrap();
    let tree = Repo::at(&dest);
    assert_eq!(tree.git(&["rev-list", "--count", "HEAD"]), "3");
    assert_eq!(tree.try_git(&["cat-file", "-e", other.as_str()]), None);
    let dest = rig.scratch.path().join("deep");
    rig.forge.checkout(&project, &base.sha, &dest, &Checkout { depth: None, ..Checkout::default() }).await.unwrap();
    assert_eq!(Repo::at(&dest).git(&["rev-list", "--count", "HEAD"]), "8");
    assert_eq!(Repo::at(&dest).try_git(&["cat-file", "-e", other.as_str()]), None);
}

#[tokio::test]
async fn a_checkout_is_only_made_in_an_empty_folder_of_a_known_commit() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let dest = rig.scratch.path().join("full");
    std::fs::create_dir(&dest).unwrap();
    std::fs::write(dest.join("mine"), "x").unwrap();
    let how = Checkout::default();
    let error = rig.forge.checkout(&project, &base.sha, &dest, &how).await.unwrap_err();
    assert!(matches!(error, CheckoutError::NotEmpty { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(dest.join("mine")).unwrap(), "x");
    let missing = sha(&"2".repeat(40));
    let dest = rig.scratch.path().join("none");
    let error = rig.forge.checkout(&project, &missing, &dest, &how).await.unwrap_err();
    assert!(matches!(error, CheckoutError::Fault(forge::Fault::NoSuchCommit { .. })), "{error}");
    for bad in ["-x", "a b", "a..b", "@{-1}", ""] {
        let how = Checkout { branch_name: bad.into(), ..Checkout::default() };
        let error = rig.forge.checkout(&project, &base.sha, &dest, &how).await.unwrap_err();
        assert!(matches!(error, CheckoutError::BadBranch { .. }), "{bad}: {error}");
    }
}

#[tokio::test]
async fn links_modes_and_line_ends_come_out_as_committed() {
    let rig = rig().await;
    let repo = Repo::new();
    repo.script("run.sh", "#!/bin/sh\n").symlink("abs", "/etc/hostname").symlink("dir/rel", "../run.sh");
    repo.file("crlf.txt", "a\r\n").commit("first");
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    assert_eq!(std::fs::read_link(tree.path().join("abs")).unwrap(), Path::new("/etc/hostname"));
    assert_eq!(std::fs::read_link(tree.path().join("dir/rel")).unwrap(), Path::new("../run.sh"));
    assert_eq!(tree.read("crlf.txt"), "a\r\n");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(tree.path().join("run.sh")).unwrap().permissions().mode() & 0o100, 0o100);
}

/// Copies a folder with its modification times; inodes and change times are new.
fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let dest = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &dest);
        } else {
            std::fs::copy(entry.path(), &dest).unwrap();
            let file = std::fs::File::options().write(true).open(&dest).unwrap();
            file.set_modified(entry.metadata().unwrap().modified().unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn the_index_of_a_checkout_stays_right_under_other_inodes() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.many_files("big", 3_000);
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, Some("big")).await.unwrap();
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    let copy = rig.scratch.path().join("copy");
    copy_tree(tree.path(), &copy);
    // Plumbing that compares by `stat` alone: a line here is a file that `status` would read again.
    assert_eq!(git_in(&copy, &["diff-files", "--name-only"]), "");
    std::fs::write(copy.join("dir0001/file01000.txt"), "another length\n").unwrap();
    assert_eq!(git_in(&copy, &["diff-files", "--name-only"]), "dir0001/file01000.txt");
}

#[tokio::test]
async fn a_repository_of_a_hundred_thousand_files_works() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.many_files("big", 100_000);
    repo.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    let bare = repo.to_bare();
    let clock = std::time::Instant::now();
    let mut figures = Vec::new();
    let mut lap = |what: &str| figures.push(format!("{what} at {} ms", clock.elapsed().as_millis()));
    let project = rig.open(&bare).await;
    lap("opened");
    let base = rig.forge.resolve_base(&project, Some("big")).await.unwrap();
    lap("fetched and looked through");
    assert!(
        base.notes.iter().any(|note| matches!(note, forge::Note::ManyFiles { count: 100_000 })),
        "{:?}",
        base.notes
    );
    assert_eq!(rig.forge.list_files(&project, &base.sha, Depth::Root).await.unwrap().len(), 100);
    lap("root listed");
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    lap("checked out");
    assert_eq!(tree.status(), "");
    lap("first status");
    tree.file("dir0042/file42000.txt", "changed\n").commit("one file");
    let bundle = rig.bundle(&tree, &base.sha, "big");
    lap("changed and bundled");
    let imported = rig.import(&project, &task(1), &base.sha, &bundle).await.unwrap();
    lap("imported");
    let diff = rig.forge.diff(&project, &base.sha, &imported.head, 10_000).await.unwrap();
    lap("compared");
    assert_eq!((imported.changed_paths, diff.files.len()), (1, 1));
    eprintln!("100,000 files: {}", figures.join(", "));
}

#[tokio::test]
async fn two_checkouts_of_one_commit_can_be_made_at_once() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let (one, two) = tokio::join!(rig.checkout(&project, &base.sha, "one"), rig.checkout(&project, &base.sha, "two"));
    assert_eq!(git_in(one.path(), &["rev-parse", "HEAD"]), git_in(two.path(), &["rev-parse", "HEAD"]));
}
