//! Origins as people have them, good and bad, and what a base is.

mod support;

use std::sync::Arc;

use forge::{BaseError, Depth, EntryKind, Forge as _, Note, OpenError};
use support::{origin, rig, sha};
use testkit::{Probe, Repo, git_in};

#[tokio::test]
async fn a_folder_inside_the_work_tree_means_the_whole_repository() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.file("deep/er/file", "x").commit("second");
    let top = rig.open(&repo).await;
    let inside = rig.forge.open(&origin(&repo.path().join("deep/er"))).await.unwrap();
    let git_dir = rig.forge.open(&origin(&repo.path().join(".git"))).await.unwrap();
    assert_eq!((&top, &top), (&inside, &git_dir));
    assert_eq!(top.origin_text(), repo.path().to_str().unwrap());
}

#[tokio::test]
async fn a_path_a_file_url_and_a_symlink_to_it_are_one_project() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let link = rig.scratch.path().join("link");
    std::os::unix::fs::symlink(repo.path(), &link).unwrap();
    let by_path = rig.open(&repo).await;
    let by_url = forge::Origin::parse(&format!("file://{}", repo.path().display())).unwrap();
    assert_eq!(rig.forge.open(&by_url).await.unwrap(), by_path);
    assert_eq!(rig.forge.open(&origin(&link)).await.unwrap(), by_path);
}

#[tokio::test]
async fn a_linked_work_tree_shares_the_hub_and_has_its_own_current_branch() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let linked = rig.scratch.path().join("linked");
    repo.git(&["worktree", "add", "--quiet", "-b", "side", linked.to_str().unwrap()]);
    let main = rig.open(&repo).await;
    let side = rig.forge.open(&origin(&linked)).await.unwrap();
    assert_eq!(main.key(), side.key());
    assert_eq!(rig.forge.resolve_base(&side, None).await.unwrap().branch, "side");
    assert_eq!(rig.forge.resolve_base(&main, None).await.unwrap().branch, "main");
}

#[tokio::test]
async fn what_is_no_repository_is_told_apart() {
    let rig = rig().await;
    let scratch = rig.scratch.path();
    let gone = rig.forge.open(&origin(&scratch.join("gone"))).await.unwrap_err();
    assert!(matches!(gone, OpenError::NoSuchPath { .. }), "{gone}");
    let plain = scratch.join("plain");
    std::fs::create_dir(&plain).unwrap();
    let plain = rig.forge.open(&origin(&plain)).await.unwrap_err();
    assert!(matches!(plain, OpenError::NotARepository { .. }) && plain.to_string().contains("git init"), "{plain}");
    let repo = Repo::new();
    let empty = rig.forge.open(&origin(repo.path())).await.unwrap_err();
    assert!(matches!(empty, OpenError::NoCommits { .. }), "{empty}");
}

#[tokio::test]
async fn a_bare_repository_is_a_fine_origin() {
    let rig = rig().await;
    let repo = Repo::with_commit().to_bare();
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    assert_eq!((base.branch.as_str(), base.sha.as_str(), base.notes), ("main", repo.head().as_str(), vec![]));
}

#[tokio::test]
async fn a_sha256_repository_works_as_well() {
    let rig = rig().await;
    let dir = rig.scratch.path().join("sha256");
    std::fs::create_dir(&dir).unwrap();
    git_in(&dir, &["init", "--quiet", "--object-format=sha256", "--initial-branch=main"]);
    let repo = Repo::at(&dir);
    repo.file("a", "1\n").commit("first");
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    assert_eq!(base.sha.as_str().len(), 64);
    let head = rig.work(&project, &support::task(1), &base.sha, ("a", "2\n")).await;
    assert_eq!(rig.forge.read_file(&project, &head, "a", 10).await.unwrap().unwrap(), b"2\n");
}

#[tokio::test]
async fn a_missing_branch_names_those_that_could_be_meant() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.branch("develop").branch("release/1.0").git(&["tag", "v1"]);
    let project = rig.open(&repo).await;
    let error = rig.forge.resolve_base(&project, Some("mian")).await.unwrap_err();
    assert!(matches!(&error, BaseError::NoSuchBranch { near, is_other: false, .. } if *near == ["main"]), "{error}");
    let error = rig.forge.resolve_base(&project, Some("v1")).await.unwrap_err();
    assert!(matches!(error, BaseError::NoSuchBranch { is_other: true, .. }), "{error}");
    let error = rig.forge.resolve_base(&project, Some("ma*")).await.unwrap_err();
    assert!(matches!(error, BaseError::NoSuchBranch { .. }), "{error}");
    let error = rig.forge.resolve_base(&project, Some("--upload-pack=x")).await.unwrap_err();
    assert!(matches!(error, BaseError::NoSuchBranch { .. }), "{error}");
    assert_eq!(rig.forge.resolve_base(&project, Some("release/1.0")).await.unwrap().branch, "release/1.0");
}

#[tokio::test]
async fn a_detached_head_asks_for_a_branch_and_names_those_at_that_commit() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.branch("here").commit("second");
    repo.checkout("here").git(&["checkout", "--quiet", "--detach"]);
    let project = rig.open(&repo).await;
    let error = rig.forge.resolve_base(&project, None).await.unwrap_err();
    assert!(matches!(&error, BaseError::DetachedHead { branches, .. } if *branches == ["here"]), "{error}");
    assert!(error.to_string().contains("--base"));
    assert_eq!(rig.forge.resolve_base(&project, Some("here")).await.unwrap().branch, "here");
}

#[tokio::test]
async fn an_unborn_branch_beside_others_asks_for_one_of_them() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.git(&["checkout", "--quiet", "--orphan", "fresh"]);
    let project = rig.open(&repo).await;
    let error = rig.forge.resolve_base(&project, None).await.unwrap_err();
    assert!(matches!(&error, BaseError::UnbornHead { branches, .. } if *branches == ["main"]), "{error}");
}

#[tokio::test]
async fn a_dirty_tree_is_said_and_the_task_starts_from_the_commit() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let head = repo.head();
    repo.file("README.md", "changed\n").file("new.txt", "new\n");
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    assert_eq!(base.sha.as_str(), head);
    assert!(matches!(&base.notes[..], [Note::Uncommitted { paths: 2, .. }]), "{:?}", base.notes);
    assert!(base.notes[0].to_string().contains("starts from the commit"));
    assert_eq!(repo.read("README.md"), "changed\n");
}

#[tokio::test]
async fn submodules_lfs_and_odd_names_are_said() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let commit = repo.head();
    repo.gitlink("vendor/lib", &commit).file("assets/.gitattributes", "*.png filter=lfs diff=lfs merge=lfs -text\n");
    repo.file_named(b"caf\xe9.txt", "latin\n");
    repo.git(&["add", "assets", ".gitmodules"]);
    repo.git_bytes(&["add", "--pathspec-from-file=-", "--pathspec-file-nul"], Some(b"caf\xe9.txt\0"));
    repo.commit_staged("second");
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let said: Vec<String> = base.notes.iter().map(ToString::to_string).collect();
    for sign in ["vendor/lib", "assets/.gitattributes", "caf\\xe9.txt"] {
        assert!(said.iter().any(|note| note.contains(sign)), "{sign} is not in {said:?}");
    }
    let files = rig.forge.list_files(&project, &base.sha, Depth::All).await.unwrap();
    assert!(files.iter().any(|file| file.path.as_bytes() == b"caf\xe9.txt" && file.kind == EntryKind::File));
    // And a checkout has them: the pointer folder empty, the odd name as it is.
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    assert!(std::fs::read_dir(tree.path().join("vendor/lib")).unwrap().next().is_none());
    assert_eq!(tree.status(), "");
}

#[tokio::test]
async fn a_shallow_clone_is_said_and_works() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    repo.commit("second");
    repo.commit("third");
    let shallow = rig.scratch.path().join("shallow");
    let url = format!("file://{}", repo.path().display());
    git_in(rig.scratch.path(), &["clone", "--quiet", "--depth=2", &url, shallow.to_str().unwrap()]);
    let project = rig.forge.open(&origin(&shallow)).await.unwrap();
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    assert_eq!(base.notes, [Note::Shallow]);
    let task = support::task(1);
    let head = rig.work(&project, &task, &base.sha, ("new", "1\n")).await;
    let published = rig.forge.publish(&project, &task, &head).await.unwrap();
    assert_eq!(Repo::at(&shallow).head_of(&published.branch).as_deref(), Some(head.as_str()));
}

#[tokio::test]
async fn files_are_read_within_limits_and_links_are_not_followed() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let head = repo.file("a/b.toml", "x = 1\n").symlink("link", "/etc/passwd").commit("second");
    let (project, head) = (rig.open(&repo).await, sha(&head));
    rig.forge.resolve_base(&project, None).await.unwrap();
    let read = |path: &'static str, max| rig.forge.read_file(&project, &head, path, max);
    assert_eq!(read("a/b.toml", 6).await.unwrap().as_deref(), Some(&b"x = 1\n"[..]));
    assert!(matches!(read("a/b.toml", 5).await.unwrap_err(), forge::ReadError::TooLarge { bytes: 6, .. }));
    for none in ["link", "a", "a/c", "", "../x", "*", ":(glob)*"] {
        assert_eq!(read(none, 100).await.unwrap(), None, "{none}");
    }
    let root = rig.forge.list_files(&project, &head, Depth::Root).await.unwrap();
    let root: Vec<_> = root.iter().map(|entry| (entry.path.to_string(), entry.kind)).collect();
    let expected = [("README.md", EntryKind::File), ("a", EntryKind::Folder), ("link", EntryKind::Symlink)];
    assert_eq!(root, expected.map(|(path, kind)| (path.to_owned(), kind)));
    let missing = sha(&"1".repeat(40));
    let error = rig.forge.list_files(&project, &missing, Depth::All).await.unwrap_err();
    assert!(matches!(error, forge::Fault::NoSuchCommit { .. }), "{error}");
}

#[tokio::test]
async fn one_origin_opened_many_times_at_once_has_one_hub() {
    let rig = Arc::new(rig().await);
    let repo = Arc::new(Repo::with_commit());
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (rig, path) = (Arc::clone(&rig), repo.path().to_owned());
        running.spawn(async move {
            let project = rig.forge.open(&origin(&path)).await.unwrap();
            rig.forge.resolve_base(&project, None).await.unwrap().sha
        });
    }
    let found = running.join_all().await;
    assert!(found.iter().all(|sha| sha.as_str() == repo.head()));
    rig.hub();
}

#[tokio::test]
async fn a_project_is_found_again_without_its_origin() {
    let rig = rig().await;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("repo");
    git_in(scratch.path(), &["clone", "--quiet", Repo::with_commit().path().to_str().unwrap(), "repo"]);
    let project = rig.forge.open(&origin(&path)).await.unwrap();
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let again = rig.forge.reopen(&origin(&path)).await.unwrap().unwrap();
    assert_eq!(again, project);
    assert!(rig.forge.read_file(&again, &base.sha, "README.md", 100).await.unwrap().is_some());
    assert!(matches!(rig.forge.branch_head(&again, "main").await.unwrap_err(), forge::Fault::Unreachable { .. }));
    assert_eq!(rig.forge.reopen(&origin(&scratch.path().join("other"))).await.unwrap(), None);
}

#[tokio::test]
async fn looking_at_an_origin_runs_nothing_that_is_planted_there() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let probe = Probe::new();
    let attributes = probe.plant_config(&repo);
    repo.git(&["config", "core.fsmonitor", "false"]);
    repo.file(".gitattributes", attributes).file("a.txt", "1\n").commit("second");
    probe.plant_config(&repo);
    probe.plant_hooks(&repo);
    probe.plant_embedded_bare(&repo, "embedded.git");
    // A change of the same size makes git compare contents, which is when filters run.
    repo.file("a.txt", "2\n");
    probe.forget();
    let project = rig.open(&repo).await;
    let inside = rig.forge.open(&origin(&repo.path().join("embedded.git"))).await;
    assert!(inside.is_err() || inside.unwrap().key() != project.key());
    let base = rig.forge.resolve_base(&project, Some("main")).await.unwrap();
    assert!(base.notes.iter().any(|note| matches!(note, Note::Uncommitted { .. })), "{:?}", base.notes);
    rig.forge.branch_head(&project, "main").await.unwrap();
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    rig.forge.diff(&project, &base.sha, &base.sha, 1000).await.unwrap();
    assert_eq!(probe.ran(), Vec::<String>::new());
    assert_eq!(tree.read("a.txt"), "1\n");
}

#[tokio::test]
async fn a_missing_or_old_git_says_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let mut config = forge::ForgeConfig::new(scratch.path().join("data"));
    config.git = "/nonexistent/git".into();
    let error = forge::BuiltIn::new(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("install git 2.39 or newer"), "{error}");
    let old = testkit::Repo::at(scratch.path());
    old.script("git", "#!/bin/sh\necho git version 2.30.2\n");
    config.git = scratch.path().join("git");
    let error = forge::BuiltIn::new(config).await.unwrap_err();
    assert!(error.to_string().contains("git version 2.30.2"), "{error}");
}

#[tokio::test]
async fn a_repository_of_another_user_is_refused_with_the_ways_out() {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let chowned = [repo.path().to_owned(), repo.path().join(".git")]
        .iter()
        .all(|path| std::os::unix::fs::chown(path, Some(12_345), None).is_ok());
    if !chowned {
        let name = "a_repository_of_another_user_is_refused_with_the_ways_out";
        return testkit::not_run(name, "only root can give a folder to another user");
    }
    let error = rig.forge.open(&origin(repo.path())).await.unwrap_err();
    assert!(matches!(error, OpenError::ForeignOwner { .. }) && error.to_string().contains("chown"), "{error}");
}
