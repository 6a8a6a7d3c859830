//! Results from sandboxes: what is taken, what is refused, and that a refusal leaves no trace.

mod support;

use std::path::{Path, PathBuf};

use domain::id::CommitSha;
use forge::{Base, ChangeKind, EntryKind, Forge as _, ImportError, ImportLimits, ImportNote, Project, Refusal};
use support::{Rig, rig, sha, task};
use testkit::{Probe, Repo, raw_tree};

/// A forge with an origin, and a checkout in which the test plays a bad agent.
struct Scene {
    rig: Rig,
    repo: Repo,
    project: Project,
    base: Base,
    tree: Repo,
}

async fn scene() -> Scene {
    let rig = rig().await;
    let repo = Repo::with_commit();
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    Scene { rig, repo, project, base, tree }
}

impl Scene {
    async fn import(&self, bundle: &Path) -> Result<forge::Imported, ImportError> {
        self.rig.import(&self.project, &task(1), &self.base.sha, bundle).await
    }

    /// Imports what must be refused, and checks that the hub is byte for byte as it was.
    async fn refusal(&self, bundle: &Path) -> Refusal {
        self.refusal_with(bundle, ImportLimits::default()).await
    }

    async fn refusal_with(&self, bundle: &Path, limits: ImportLimits) -> Refusal {
        let before = self.rig.hub_contents();
        let outcome = self.rig.import_with(&self.project, &task(1), &self.base.sha, (bundle, limits)).await;
        assert_eq!(self.rig.hub_contents(), before);
        let left = std::fs::read_dir(self.rig.scratch.path().join("data/quarantine")).unwrap().count();
        assert_eq!(left, 0, "something stayed in quarantine");
        match outcome.unwrap_err() {
            ImportError::Refused(refusal) => refusal,
            error @ ImportError::Fault(_) => panic!("{error}"),
        }
    }

    fn bundle(&self) -> PathBuf {
        self.rig.bundle(&self.tree, &self.base.sha, "result")
    }

    /// A bundle of a commit that no ordinary git command would make.
    fn raw_bundle(&self, entries: &[(&str, &[u8], &str)]) -> PathBuf {
        let commit = self.tree.raw_commit(self.base.sha.as_str(), &raw_tree(entries));
        self.tree.git(&["update-ref", "refs/heads/work", &commit]);
        self.bundle()
    }
}

#[tokio::test]
async fn a_result_is_taken_and_kept_under_the_task() {
    let scene = scene().await;
    scene.tree.file("new.txt", "one\n").commit("first");
    scene.tree.file("new.txt", "two\n").remove("README.md").commit("second");
    let imported = scene.import(&scene.bundle()).await.unwrap();
    assert_eq!((imported.head.as_str(), imported.commits, imported.changed_paths), (scene.tree.head().as_str(), 2, 2));
    assert_eq!(imported.notes, []);
    assert_eq!(scene.rig.forge.imported(&scene.project, &task(1)).await.unwrap(), Some(imported.head.clone()));
    assert_eq!(scene.rig.forge.imported(&scene.project, &task(2)).await.unwrap(), None);
    let content = scene.rig.forge.read_file(&scene.project, &imported.head, "new.txt", 100).await.unwrap();
    assert_eq!(content.unwrap(), b"two\n");
    assert_eq!(scene.repo.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main", "the origin is untouched");
}

#[tokio::test]
async fn taking_the_same_result_again_changes_nothing() {
    let scene = scene().await;
    scene.tree.file("new.txt", "one\n").commit("first");
    let bundle = scene.bundle();
    let first = scene.import(&bundle).await.unwrap();
    let before = scene.rig.hub_contents();
    assert_eq!(scene.import(&bundle).await.unwrap(), first);
    let refs = |contents: Vec<String>| contents.into_iter().filter(|line| line.contains("/refs/")).collect::<Vec<_>>();
    assert_eq!(refs(scene.rig.hub_contents()), refs(before));
}

#[tokio::test]
async fn a_second_round_may_build_on_the_first_and_both_stay_readable() {
    let scene = scene().await;
    scene.tree.file("new.txt", "one\n").commit("first");
    let first = scene.import(&scene.bundle()).await.unwrap().head;
    scene.tree.file("new.txt", "two\n").commit("second");
    let second = scene.rig.bundle(&scene.tree, &first, "round-2");
    let second = scene.import(&second).await.unwrap();
    assert_eq!(second.commits, 2);
    for (commit, text) in [(&first, "one\n"), (&second.head, "two\n")] {
        let content = scene.rig.forge.read_file(&scene.project, commit, "new.txt", 100).await.unwrap();
        assert_eq!(content.unwrap(), text.as_bytes());
    }
    // Another task's history is no ground to build on.
    scene.tree.file("new.txt", "three\n").commit("third");
    let third = scene.rig.bundle(&scene.tree, &second.head, "round-3");
    let error = scene.rig.import(&scene.project, &task(2), &scene.base.sha, &third).await.unwrap_err();
    assert!(matches!(error, ImportError::Refused(Refusal::UnknownHistory)), "{error}");
}

#[tokio::test]
async fn objects_of_another_task_can_not_be_borrowed_by_naming_them() {
    let scene = scene().await;
    // Text that packs badly, so that a small pack can only be a delta.
    let secret: String = (0..4000_u64)
        .map(|number| {
            format!(
                "{:016x}\n",
                number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
            )
        })
        .collect();
    let owner = scene.tree.file("secret.txt", &secret).commit("of task 1");
    scene.import(&scene.bundle()).await.unwrap();
    let blob = scene.tree.git(&["rev-parse", "HEAD:secret.txt"]);
    let task_2 = |bundle: PathBuf| {
        let scene = &scene;
        async move {
            let before = scene.rig.hub_contents();
            let error = scene.rig.import(&scene.project, &task(2), &scene.base.sha, &bundle).await.unwrap_err();
            assert_eq!(scene.rig.hub_contents(), before);
            assert!(matches!(error, ImportError::Refused(Refusal::UnknownHistory)), "{error}");
        }
    };
    // A tree that names the blob, in a bundle that doesn't carry it.
    let thief = scene.rig.checkout(&scene.project, &scene.base.sha, "thief").await;
    let commit = thief.raw_commit(scene.base.sha.as_str(), &raw_tree(&[("100644", b"loot", &blob)]));
    let tree = thief.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
    let pack = |ids: String| thief.git_bytes(&["pack-objects", "--stdout", "--quiet"], Some(ids.as_bytes()));
    let header = format!("# v2 git bundle\n-{}\n{commit} HEAD\n\n", scene.base.sha);
    let dest = scene.rig.scratch.path().join("naming.bundle");
    std::fs::write(&dest, [header.into_bytes(), pack(format!("{commit}\n{tree}\n"))].concat()).unwrap();
    task_2(dest).await;
    // A file that is a delta on the blob: unpacking it would bring the whole content along.
    scene.tree.checkout(scene.base.sha.as_str()).file("secret.txt", format!("{secret}and one more\n"));
    let commit = scene.tree.commit("a delta");
    let id = |what: &str| scene.tree.git(&["rev-parse", what]);
    let ids = format!("-{owner}\n{commit}\n{}\n{} secret.txt\n", id("HEAD^{tree}"), id("HEAD:secret.txt"));
    let thin = scene.tree.git_bytes(&["pack-objects", "--stdout", "--quiet"], Some(ids.as_bytes()));
    assert!(thin.len() < secret.len() / 20, "the pack of {} bytes is no delta", thin.len());
    let header = format!("# v2 git bundle\n-{}\n{commit} HEAD\n\n", scene.base.sha);
    let dest = scene.rig.scratch.path().join("delta.bundle");
    std::fs::write(&dest, [header.into_bytes(), thin].concat()).unwrap();
    task_2(dest).await;
}

#[tokio::test]
async fn old_content_may_come_back() {
    let rig = rig().await;
    let repo = Repo::new();
    repo.file("a.txt", "the old text\n").file("b.txt", "1\n").commit("first");
    repo.file("a.txt", "the new text\n").commit("second");
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, None).await.unwrap();
    let tree = rig.checkout(&project, &base.sha, "tree").await;
    tree.git(&["revert", "--no-edit", "HEAD"]);
    let bundle = rig.bundle(&tree, &base.sha, "revert");
    let imported = rig.import(&project, &task(1), &base.sha, &bundle).await.unwrap();
    let content = rig.forge.read_file(&project, &imported.head, "a.txt", 100).await.unwrap().unwrap();
    assert_eq!(content, b"the old text\n");
}

#[tokio::test]
async fn what_is_no_bundle_is_refused() {
    let scene = scene().await;
    let path = scene.rig.scratch.path().join("junk");
    std::fs::write(&path, "not a bundle").unwrap();
    assert!(matches!(scene.refusal(&path).await, Refusal::Invalid { .. }));
    std::fs::write(&path, b"# v2 git bundle\n\nPACK\0\0\0\x02\xff\xff\xff\xff").unwrap();
    assert!(matches!(scene.refusal(&path).await, Refusal::Invalid { .. } | Refusal::NoSingleHead));
    assert_eq!(scene.refusal(scene.rig.scratch.path()).await, Refusal::NotAFile);
    let link = scene.rig.scratch.path().join("link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    assert_eq!(scene.refusal(&link).await, Refusal::NotAFile);
    assert_eq!(scene.refusal(Path::new("/dev/zero")).await, Refusal::NotAFile);
}

#[tokio::test]
async fn a_damaged_bundle_is_refused() {
    let scene = scene().await;
    scene.tree.file("new.txt", "one\n".repeat(1000)).commit("first");
    let bundle = scene.bundle();
    let whole = std::fs::read(&bundle).unwrap();
    for cut in [whole.len() / 2, whole.len() - 1] {
        std::fs::write(&bundle, &whole[..cut]).unwrap();
        assert!(matches!(scene.refusal(&bundle).await, Refusal::Invalid { .. }), "cut at {cut}");
    }
    let mut flipped = whole.clone();
    let place = whole.len() - 40;
    flipped[place] ^= 0x40;
    std::fs::write(&bundle, &flipped).unwrap();
    assert!(matches!(scene.refusal(&bundle).await, Refusal::Invalid { .. }));
    std::fs::write(&bundle, &whole).unwrap();
    scene.import(&bundle).await.unwrap();
}

#[tokio::test]
async fn a_result_that_does_not_come_after_the_base_is_refused() {
    let scene = scene().await;
    scene.tree.git(&["checkout", "--quiet", "--orphan", "elsewhere"]);
    scene.tree.file("new.txt", "one\n").commit("unrelated");
    let dest = scene.rig.scratch.path().join("unrelated.bundle");
    scene.tree.bundle(&dest, &["HEAD"]);
    assert_eq!(scene.refusal(&dest).await, Refusal::NotDescended { base: scene.base.sha.clone() });
}

#[tokio::test]
async fn a_bundle_on_unknown_commits_is_refused() {
    let scene = scene().await;
    let hidden = sha(&scene.tree.file("a", "1\n").commit("kept back"));
    scene.tree.file("a", "2\n").commit("sent");
    let bundle = scene.rig.bundle(&scene.tree, &hidden, "partial");
    assert_eq!(scene.refusal(&bundle).await, Refusal::UnknownHistory);
}

#[tokio::test]
async fn forbidden_tree_entries_are_refused_in_any_commit() {
    let scene = scene().await;
    let blob = scene.tree.blob(b"[core]\n\tfsmonitor = true\n");
    let inner = scene.tree.git_bytes(
        &["hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        Some(&raw_tree(&[("100644", b"config", &blob)])),
    );
    let inner = String::from_utf8(inner).unwrap().trim().to_owned();
    let cases: [(&str, &[u8], &str); 7] = [
        ("40000", b".git", &inner),
        ("100644", b".GIT", &blob),
        ("40000", b"git~1", &inner),
        ("100644", b"..", &blob),
        ("100644", b".", &blob),
        ("100644", b"a/b", &blob),
        ("120000", b".gitmodules", &blob),
    ];
    for case in cases {
        let refusal = scene.refusal(&scene.raw_bundle(&[case])).await;
        assert!(matches!(refusal, Refusal::Invalid { .. } | Refusal::ForbiddenPath { .. }), "{case:?}: {refusal}");
    }
    // Also when a later commit takes it away again.
    let bad = scene.tree.raw_commit(scene.base.sha.as_str(), &raw_tree(&[("40000", b".git", &inner)]));
    let good = scene.tree.raw_commit(&bad, &raw_tree(&[("100644", b"fine", &blob)]));
    scene.tree.git(&["update-ref", "refs/heads/work", &good]);
    assert!(matches!(scene.refusal(&scene.bundle()).await, Refusal::Invalid { .. }));
}

#[tokio::test]
async fn limits_on_size_and_number_are_kept() {
    let scene = scene().await;
    scene.tree.file("big", vec![0_u8; 3 << 20]).commit("large but packs small");
    scene.tree.file("b", "1").file("c", "2").commit("more");
    let bundle = scene.bundle();
    let limits = ImportLimits::default();
    let refusal = scene.refusal_with(&bundle, ImportLimits { bundle_bytes: 100, ..limits }).await;
    assert!(matches!(refusal, Refusal::BundleTooLarge { max_bytes: 100, .. }), "{refusal}");
    let cases = [
        (ImportLimits { file_bytes: 1 << 20, ..limits }, "bytes in one file"),
        (ImportLimits { unpacked_bytes: 1 << 20, ..limits }, "bytes of new content"),
        (ImportLimits { commits: 1, ..limits }, "commits"),
        (ImportLimits { changed_paths: 2, ..limits }, "changed paths"),
    ];
    for (limits, expected) in cases {
        match scene.refusal_with(&bundle, limits).await {
            Refusal::TooMuch { what, .. } => assert_eq!(what, expected),
            other => panic!("{expected}: {other}"),
        }
    }
    assert!(scene.import(&bundle).await.is_ok());
}

#[tokio::test]
async fn unpacking_stops_at_the_memory_limit() {
    let scene = scene().await;
    // Just under the size at which git streams instead of holding a file in memory.
    for number in 0..4_u8 {
        scene.tree.file(format!("big{number}"), vec![number; 15 << 20]);
    }
    scene.tree.commit("zeros");
    let limits = ImportLimits { memory_bytes: 8 << 20, ..ImportLimits::default() };
    let refusal = scene.refusal_with(&scene.bundle(), limits).await;
    assert!(matches!(refusal, Refusal::TooCostly { .. } | Refusal::Invalid { .. }), "{refusal}");
}

#[tokio::test]
async fn links_out_of_the_repository_and_submodules_are_told() {
    let scene = scene().await;
    let base = scene.base.sha.as_str().to_owned();
    scene.tree.symlink("abs", "/etc/passwd").symlink("dir/up", "../../x").symlink("dir/fine", "../README.md");
    scene.tree.file_named(b"caf\xe9", "x").gitlink("sub", &base);
    scene.tree.git(&["add", "--all", ":!sub"]);
    scene.tree.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{base},sub")]);
    scene.tree.commit_staged("oddities");
    let imported = scene.import(&scene.bundle()).await.unwrap();
    let said: Vec<String> = imported.notes.iter().map(ToString::to_string).collect();
    for sign in ["abs is a symbolic link", "dir/up is a symbolic link", "caf\\xe9", "submodule sub", ".gitmodules"] {
        assert!(said.iter().any(|note| note.contains(sign)), "{sign} is not in {said:?}");
    }
    assert!(!said.iter().any(|note| note.contains("dir/fine")), "{said:?}");
    assert!(matches!(imported.notes[0], ImportNote::GitSettingsChanged { .. }));
}

#[tokio::test]
async fn a_bundle_cannot_name_refs_of_the_hub() {
    let scene = scene().await;
    let hub = scene.rig.hub();
    scene.tree.file("a", "1\n").commit("work");
    let head = scene.tree.head();
    for name in ["refs/heads/main", "refs/chargehand/tasks/other", "refs/origin/evil", "refs/tags/v1"] {
        scene.tree.git(&["update-ref", name, &head]);
    }
    let dest = scene.rig.scratch.path().join("many.bundle");
    scene.tree.bundle(&dest, &[&format!("^{}", scene.base.sha), "--all", "HEAD"]);
    scene.import(&dest).await.unwrap();
    let refs = Repo::at(&hub).git(&["for-each-ref", "--format=%(refname)"]);
    let ours = refs.lines().filter(|name| name.contains(task(1).as_str())).count();
    assert_eq!((refs.lines().count(), ours), (3, 2), "{refs}");
    // Several branches and no HEAD leave it open which is meant.
    scene.tree.git(&["branch", "second"]);
    let dest = scene.rig.scratch.path().join("open.bundle");
    scene.tree.bundle(&dest, &[&format!("^{}", scene.base.sha), "--branches"]);
    assert_eq!(scene.refusal(&dest).await, Refusal::NoSingleHead);
}

#[tokio::test]
async fn a_bundle_that_leaves_files_out_is_refused() {
    let scene = scene().await;
    scene.tree.file("a", "1\n").commit("work");
    let dest = scene.rig.scratch.path().join("filtered.bundle");
    scene.tree.bundle(&dest, &["--filter=blob:none", &format!("{}..HEAD", scene.base.sha), "HEAD"]);
    let refusal = scene.refusal(&dest).await;
    assert!(matches!(refusal, Refusal::Invalid { .. }), "{refusal}");
}

#[tokio::test]
async fn a_tag_for_a_head_is_refused() {
    let scene = scene().await;
    scene.tree.file("a", "1\n").commit("work");
    scene.tree.git(&["tag", "-a", "-m", "x", "v1"]);
    let tag = scene.tree.git(&["rev-parse", "v1"]);
    std::fs::write(scene.tree.path().join(".git/refs/heads/work"), format!("{tag}\n")).unwrap();
    let dest = scene.rig.scratch.path().join("tag.bundle");
    scene.tree.bundle(&dest, &[&format!("^{}", scene.base.sha), "refs/heads/work"]);
    let refusal = scene.refusal(&dest).await;
    assert!(matches!(refusal, Refusal::NotACommit | Refusal::Invalid { .. }), "{refusal}");
}

#[tokio::test]
async fn nothing_that_an_agent_plants_runs_in_the_hub_or_in_a_later_checkout() {
    let scene = scene().await;
    let probe = Probe::new();
    probe.plant_hooks(&scene.tree);
    let attributes = probe.plant_config(&scene.tree);
    probe.plant_embedded_bare(&scene.tree, "embedded.git");
    scene.tree.file(".gitattributes", attributes).file("README.md", "another\n").commit("hostile");
    let bundle = scene.bundle();
    probe.forget();
    let head = scene.import(&bundle).await.unwrap().head;
    scene.rig.forge.diff(&scene.project, &scene.base.sha, &head, 1 << 20).await.unwrap();
    scene.repo.file("README.md", "moved on\n").commit("the base moves");
    let onto = scene.rig.forge.branch_head(&scene.project, "main").await.unwrap().unwrap();
    let merge = forge::Merge { task: &task(1), head: &head, onto: &onto, message: "merge" };
    scene.rig.forge.merge_preview(&scene.project, &merge).await.unwrap();
    scene.rig.checkout(&scene.project, &head, "gate").await;
    scene.rig.forge.publish(&scene.project, &task(1), &head).await.unwrap();
    assert_eq!(probe.ran(), Vec::<String>::new());
}

#[tokio::test]
async fn a_diff_names_every_path_and_bounds_the_patch() {
    let scene = scene().await;
    scene.tree.file("kept.txt", "1\n2\n3\n4\n5\n6\n7\n8\n9\n").file("gone", "nothing like the others\n");
    let first = sha(&scene.tree.commit("first"));
    scene.rig.bundle(&scene.tree, &scene.base.sha, "one");
    scene.tree.git(&["mv", "kept.txt", "moved name.txt"]);
    scene.tree.remove("gone").file("bin", b"\0\x01\x02").file_named(b"\xff", "x\n").script("run", "#!/bin/sh\n");
    let second = sha(&scene.tree.commit("second"));
    scene.import(&scene.bundle()).await.unwrap();
    let diff = scene.rig.forge.diff(&scene.project, &first, &second, 1 << 20).await.unwrap();
    let seen: Vec<_> = diff.files.iter().map(|file| (file.path.to_string(), file.kind)).collect();
    let expected = [
        ("bin", ChangeKind::Added),
        ("gone", ChangeKind::Deleted),
        ("moved name.txt", ChangeKind::Renamed),
        ("run", ChangeKind::Added),
        ("\\xff", ChangeKind::Added),
    ];
    assert_eq!(seen, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert!(diff.files[0].binary && !diff.files[1].binary);
    assert_eq!((diff.files[1].removed_lines, diff.files[3].entry), (1, Some(EntryKind::Executable)));
    assert!(!diff.truncated && String::from_utf8_lossy(&diff.patch).contains("rename from kept.txt"));
    let cut = scene.rig.forge.diff(&scene.project, &first, &second, 200).await.unwrap();
    assert!(cut.truncated && cut.patch.len() <= 200 && cut.patch.ends_with(b"\n"));
    assert_eq!(cut.files, diff.files);
    let missing: CommitSha = sha(&"3".repeat(40));
    assert!(scene.rig.forge.diff(&scene.project, &first, &missing, 10).await.is_err());
}
