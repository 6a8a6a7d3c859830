//! From a proved commit to the origin: publishing, merging, landing, and every way it can go wrong.

mod support;

use domain::id::CommitSha;
use forge::{Base, Fault, Forge as _, LandError, Landing, Merge, Preview, Project, PublishError};
use support::{Rig, origin, permit, rig, sha, task};
use testkit::{Probe, Repo, git_in};

/// A bare origin (nobody's work tree in the way) and a change for its `main`.
struct Scene {
    rig: Rig,
    repo: Repo,
    project: Project,
    base: Base,
    head: CommitSha,
}

async fn scene() -> Scene {
    scene_at(Repo::with_commit().to_bare()).await
}

async fn scene_at(repo: Repo) -> Scene {
    let rig = rig().await;
    let project = rig.open(&repo).await;
    let base = rig.forge.resolve_base(&project, Some("main")).await.unwrap();
    let head = rig.work(&project, &task(1), &base.sha, ("new.txt", "new\n")).await;
    Scene { rig, repo, project, base, head }
}

impl Scene {
    fn permit(&self) -> policy::LandPermit {
        permit(&task(1), "main", &self.base.sha, &self.head)
    }

    /// Somebody else pushes to the origin.
    fn someone_pushes(&self, branch: &str, file: &str, content: &str) -> CommitSha {
        let clone = tempfile::tempdir().unwrap();
        let path = self.repo.path().to_str().unwrap();
        git_in(clone.path(), &["clone", "--quiet", "--branch", branch, path, "."]);
        let clone = Repo::at(clone.path());
        let commit = clone.file(file, content).commit("somebody else's");
        clone.git(&["push", "--quiet", "origin", &format!("HEAD:{branch}")]);
        sha(&commit)
    }

    fn main(&self) -> CommitSha {
        sha(&self.repo.head_of("main").unwrap())
    }
}

#[tokio::test]
async fn a_change_lands_as_a_fast_forward_to_exactly_its_commit() {
    let scene = scene().await;
    let landed = scene.rig.land(&scene.project, &scene.permit()).await.unwrap();
    assert_eq!((landed.how, landed.already, &landed.previous), (Landing::FastForward, false, &scene.base.sha));
    assert_eq!((landed.sha, scene.main()), (scene.head.clone(), scene.head.clone()));
    assert_eq!(scene.repo.read_at("main", "new.txt").unwrap(), b"new\n");
}

#[tokio::test]
async fn landing_again_finds_that_it_was_done_also_after_others_pushed() {
    let scene = scene().await;
    scene.rig.land(&scene.project, &scene.permit()).await.unwrap();
    assert!(scene.rig.land(&scene.project, &scene.permit()).await.unwrap().already);
    let later = scene.someone_pushes("main", "later.txt", "x\n");
    let again = scene.rig.land(&scene.project, &scene.permit()).await.unwrap();
    assert_eq!((again.already, again.sha, scene.main()), (true, scene.head.clone(), later));
}

#[tokio::test]
async fn a_landing_that_was_cut_off_after_the_push_is_found_by_the_next_process() {
    let scene = scene().await;
    // The push happened, the answer was never seen: another process starts on the same folder.
    let hub = Repo::at(&scene.rig.hub());
    hub.git(&["push", "--quiet", scene.repo.path().to_str().unwrap(), &format!("{}:refs/heads/main", scene.head)]);
    std::fs::write(scene.rig.hub().join("packed-refs.lock"), "").unwrap();
    std::fs::create_dir_all(scene.rig.scratch.path().join("data/quarantine/left")).unwrap();
    let config = forge::ForgeConfig::new(scene.rig.scratch.path().join("data"));
    let forge = forge::BuiltIn::new(config).await.unwrap();
    let project = forge.open(&origin(scene.repo.path())).await.unwrap();
    assert_eq!(forge.imported(&project, &task(1)).await.unwrap(), Some(scene.head.clone()));
    let landed = forge.land(&project, &scene.permit(), forge::LandOptions::default()).await.unwrap();
    assert!(landed.already);
    assert!(!scene.rig.hub().join("packed-refs.lock").exists());
}

#[tokio::test]
async fn a_dropped_landing_can_be_repeated() {
    let scene = scene().await;
    let gate = scene.rig.scratch.path().join("gate");
    let reached = scene.rig.scratch.path().join("reached");
    let hook =
        format!("#!/bin/sh\ntouch '{}'\nwhile ! [ -e '{}' ]; do sleep 0.01; done\n", reached.display(), gate.display());
    scene.repo.script("hooks/post-receive", hook);
    let permit = scene.permit();
    let landing = scene.rig.land(&scene.project, &permit);
    let until_pushed = async {
        while !reached.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = landing => panic!("the hook holds the push back"),
        () = until_pushed => {}
    }
    std::fs::write(gate, "").unwrap();
    let again = scene.rig.land(&scene.project, &permit).await.unwrap();
    assert!(again.already);
    assert_eq!(scene.main(), scene.head);
}

#[tokio::test]
async fn a_moved_branch_is_left_alone_and_the_merge_can_be_previewed_and_landed() {
    let scene = scene().await;
    let moved = scene.someone_pushes("main", "other.txt", "other\n");
    let error = scene.rig.land(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::BaseMoved { now, merges_cleanly: true, .. } if *now == moved), "{error}");
    assert_eq!(scene.main(), moved);
    let message = "Merge the change";
    let merge = Merge { task: &task(1), head: &scene.head, onto: &moved, message };
    let Preview::Merged(commit) = scene.rig.forge.merge_preview(&scene.project, &merge).await.unwrap() else {
        panic!("it merges cleanly")
    };
    let again = scene.rig.forge.merge_preview(&scene.project, &merge).await.unwrap();
    assert_eq!(again, Preview::Merged(commit.clone()), "the same merge is the same commit");
    assert_eq!(scene.main(), moved, "a preview lands nothing");
    let landed = scene.rig.land(&scene.project, &permit(&task(1), "main", &moved, &commit)).await.unwrap();
    assert_eq!((landed.how, scene.main()), (Landing::Merge, commit.clone()));
    assert_eq!(scene.repo.git(&["rev-parse", &format!("{commit}^1")]), moved.as_str());
    for (file, content) in [("new.txt", "new\n"), ("other.txt", "other\n")] {
        assert_eq!(scene.repo.read_at("main", file).unwrap(), content.as_bytes());
    }
}

#[tokio::test]
async fn a_conflict_names_its_files() {
    let scene = scene().await;
    let moved = scene.someone_pushes("main", "new.txt", "something else\n");
    let error = scene.rig.land(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(error, LandError::BaseMoved { merges_cleanly: false, .. }), "{error}");
    let merge = Merge { task: &task(1), head: &scene.head, onto: &moved, message: "m" };
    match scene.rig.forge.merge_preview(&scene.project, &merge).await.unwrap() {
        Preview::Conflict { files } => {
            assert_eq!(files.iter().map(ToString::to_string).collect::<Vec<_>>(), ["new.txt"])
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn merges_that_are_none_say_so() {
    let scene = scene().await;
    let preview = |head, onto| {
        let rig = &scene.rig;
        let project = &scene.project;
        async move { rig.forge.merge_preview(project, &Merge { task: &task(1), head, onto, message: "m" }).await.unwrap() }
    };
    assert_eq!(preview(&scene.head, &scene.base.sha).await, Preview::UpToDate(scene.head.clone()));
    assert_eq!(preview(&scene.base.sha, &scene.head).await, Preview::Contained);
}

#[tokio::test]
async fn a_deleted_branch_is_not_made_again_in_silence() {
    let scene = scene().await;
    scene.repo.branch("other").git(&["symbolic-ref", "HEAD", "refs/heads/other"]);
    scene.repo.git(&["branch", "-D", "main"]);
    let error = scene.rig.land(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::BranchGone { branch, .. } if branch == "main"), "{error}");
    assert_eq!(scene.repo.head_of("main"), None);
    assert_eq!(scene.rig.forge.branch_head(&scene.project, "main").await.unwrap(), None);
}

#[tokio::test]
async fn a_commit_beside_the_base_does_not_land() {
    let scene = scene().await;
    let moved = scene.someone_pushes("main", "other.txt", "other\n");
    let error = scene.rig.land(&scene.project, &permit(&task(1), "main", &moved, &scene.head)).await.unwrap_err();
    assert!(matches!(error, LandError::NotDescended { .. }), "{error}");
    let unknown = sha(&"4".repeat(40));
    let error = scene.rig.land(&scene.project, &permit(&task(1), "main", &moved, &unknown)).await.unwrap_err();
    assert!(matches!(error, LandError::Fault(Fault::NoSuchCommit { .. })), "{error}");
    assert_eq!(scene.main(), moved);
}

#[tokio::test]
async fn a_branch_checked_out_by_a_person_is_not_moved_under_their_feet() {
    let scene = scene_at(Repo::with_commit()).await;
    let error = scene.rig.land(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::CheckedOut { path: Some(path), .. } if path == scene.repo.path()), "{error}");
    assert!(error.to_string().contains("--update-worktree"));
    assert_eq!((scene.main(), scene.repo.status().as_str()), (scene.base.sha.clone(), ""));
    // The first way out.
    scene.repo.git(&["checkout", "--quiet", "-b", "elsewhere"]);
    scene.rig.land(&scene.project, &scene.permit()).await.unwrap();
    assert_eq!((scene.main(), scene.repo.head()), (scene.head.clone(), scene.base.sha.as_str().to_owned()));
}

#[tokio::test]
async fn a_clean_work_tree_moves_along_when_that_was_asked_for() {
    let scene = scene_at(Repo::with_commit()).await;
    scene.repo.file("untracked.txt", "mine\n");
    let landed = scene.rig.land_with_tree(&scene.project, &scene.permit()).await.unwrap();
    assert_eq!(landed.worktree.as_deref(), Some(scene.repo.path()));
    assert_eq!((scene.main(), scene.repo.read("new.txt").as_str()), (scene.head.clone(), "new\n"));
    assert_eq!(scene.repo.status(), "?? untracked.txt");
    let refs = scene.repo.git(&["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main", "no ref of ours stays");
    let again = scene.rig.land_with_tree(&scene.project, &scene.permit()).await.unwrap();
    assert!(again.already);
}

#[tokio::test]
async fn a_dirty_work_tree_stays_as_it_is() {
    let scene = scene_at(Repo::with_commit()).await;
    scene.repo.file("README.md", "half done\n");
    let error = scene.rig.land_with_tree(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::DirtyWorktree { files, .. } if files.len() == 1), "{error}");
    assert_eq!((scene.main(), scene.repo.read("README.md").as_str()), (scene.base.sha.clone(), "half done\n"));
}

#[tokio::test]
async fn an_untracked_file_in_the_way_is_not_overwritten() {
    let scene = scene_at(Repo::with_commit()).await;
    scene.repo.file("new.txt", "mine\n");
    let error = scene.rig.land_with_tree(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::WorktreeRefused { reason, .. } if reason.contains("new.txt")), "{error}");
    assert_eq!((scene.main(), scene.repo.read("new.txt").as_str()), (scene.base.sha.clone(), "mine\n"));
    assert_eq!(scene.repo.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[tokio::test]
async fn a_linked_work_tree_counts_like_the_main_one() {
    let scene = scene().await;
    let linked = scene.rig.scratch.path().join("linked");
    scene.repo.git(&["worktree", "add", "--quiet", linked.to_str().unwrap(), "main"]);
    let error = scene.rig.land(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::CheckedOut { path: Some(path), .. } if path.ends_with("linked")), "{error}");
    scene.rig.land_with_tree(&scene.project, &scene.permit()).await.unwrap();
    let linked = Repo::at(&linked);
    assert_eq!(
        (scene.main(), linked.read("new.txt").as_str(), linked.status().as_str()),
        (scene.head.clone(), "new\n", "")
    );
}

#[tokio::test]
async fn hooks_that_arrive_with_a_change_do_not_run_on_the_host() {
    let repo = Repo::with_commit();
    let probe = Probe::new();
    let script = format!("#!/bin/sh\nexec {}\n", probe.program("in-tree-hook").display());
    let folder = repo.path().join(".husky");
    repo.git(&["config", "core.hooksPath", folder.to_str().unwrap()]);
    let scene = {
        let rig = rig().await;
        let project = rig.open(&repo).await;
        let base = rig.forge.resolve_base(&project, None).await.unwrap();
        let tree = rig.checkout(&project, &base.sha, "tree").await;
        for hook in ["post-merge", "post-checkout", "post-index-change", "reference-transaction", "post-receive"] {
            tree.script(format!(".husky/{hook}"), &script);
        }
        tree.file("new.txt", "new\n").commit("with hooks");
        let head = rig.import(&project, &task(1), &base.sha, &rig.bundle(&tree, &base.sha, "x")).await.unwrap().head;
        Scene { rig, repo, project, base, head }
    };
    scene.rig.land_with_tree(&scene.project, &scene.permit()).await.unwrap();
    assert_eq!(scene.repo.read("new.txt"), "new\n");
    // Nor when the next change is shown, with those hooks now in the tree.
    let next = scene.rig.work(&scene.project, &task(2), &scene.head, ("next.txt", "next\n")).await;
    scene.rig.forge.publish(&scene.project, &task(2), &next).await.unwrap();
    assert_eq!(probe.ran(), Vec::<String>::new());
    assert!(std::fs::exists(folder.join("post-receive")).unwrap(), "the hooks are there to be run");
}

#[tokio::test]
async fn the_origins_own_rules_for_pushes_hold_for_us() {
    let scene = scene().await;
    scene.repo.script("hooks/update", "#!/bin/sh\necho main is frozen >&2\nexit 1\n");
    let error = scene.rig.land(&scene.project, &scene.permit()).await.unwrap_err();
    assert!(matches!(&error, LandError::Refused { reason, .. } if reason.contains("main is frozen")), "{error}");
    assert_eq!(scene.main(), scene.base.sha);
    let error = scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_change_appears_as_a_branch_and_follows_later_rounds() {
    let scene = scene_at(Repo::with_commit()).await;
    let first = scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap();
    assert_eq!(first.branch, format!("chargehand/{}", task(1).short()));
    assert_eq!(scene.repo.head_of(&first.branch).unwrap(), scene.head.as_str());
    assert!(scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap().already);
    // The next round need not build on the first.
    let second = scene.rig.work(&scene.project, &task(1), &scene.base.sha, ("new.txt", "second round\n")).await;
    let published = scene.rig.forge.publish(&scene.project, &task(1), &second).await.unwrap();
    assert_eq!((published.branch.clone(), published.already), (first.branch, false));
    assert_eq!(scene.repo.head_of(&published.branch).unwrap(), second.as_str());
    assert_eq!((scene.repo.status().as_str(), scene.main()), ("", scene.base.sha.clone()));
    assert_eq!(scene.rig.forge.unpublish(&scene.project, &task(1)).await.unwrap(), [published.branch.clone()]);
    assert_eq!(scene.repo.head_of(&published.branch), None);
    assert!(scene.rig.forge.unpublish(&scene.project, &task(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_published_branch_that_somebody_built_on_is_left_to_them() {
    let scene = scene().await;
    let published = scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap();
    let theirs = scene.someone_pushes(&published.branch, "review.txt", "a fix\n");
    let second = scene.rig.work(&scene.project, &task(1), &scene.base.sha, ("new.txt", "second round\n")).await;
    let error = scene.rig.forge.publish(&scene.project, &task(1), &second).await.unwrap_err();
    assert!(matches!(&error, PublishError::BranchMoved { now, .. } if *now == theirs), "{error}");
    assert_eq!(scene.repo.head_of(&published.branch).unwrap(), theirs.as_str());
    assert!(scene.rig.forge.unpublish(&scene.project, &task(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_is_taken_gives_way_to_another() {
    let scene = scene().await;
    scene.repo.branch(&format!("chargehand/{}", task(1).short()));
    let published = scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap();
    assert!(published.branch.contains(task(1).as_str()), "{}", published.branch);
    assert_eq!(scene.repo.head_of(&published.branch).unwrap(), scene.head.as_str());
}

#[tokio::test]
async fn a_branch_called_chargehand_is_no_obstacle() {
    let scene = scene().await;
    scene.repo.branch("chargehand");
    let published = scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap();
    assert_eq!(published.branch, format!("chargehand-{}", task(1).short()));
}

#[tokio::test]
async fn a_published_branch_that_a_person_looks_at_is_not_moved_under_their_feet() {
    let scene = scene_at(Repo::with_commit()).await;
    let published = scene.rig.forge.publish(&scene.project, &task(1), &scene.head).await.unwrap();
    scene.repo.checkout(&published.branch);
    let second = scene.rig.work(&scene.project, &task(1), &scene.base.sha, ("new.txt", "second round\n")).await;
    let error = scene.rig.forge.publish(&scene.project, &task(1), &second).await.unwrap_err();
    assert!(matches!(&error, PublishError::CheckedOut { path: Some(_), .. }), "{error}");
    assert_eq!(scene.repo.status(), "");
}

#[tokio::test]
async fn pruning_forgets_a_task_and_no_other() {
    let scene = scene().await;
    let other = scene.rig.work(&scene.project, &task(2), &scene.base.sha, ("b", "2\n")).await;
    scene.rig.forge.prune(&scene.project, &task(1)).await.unwrap();
    scene.rig.forge.prune(&scene.project, &task(1)).await.unwrap();
    assert_eq!(scene.rig.forge.imported(&scene.project, &task(1)).await.unwrap(), None);
    assert_eq!(scene.rig.forge.imported(&scene.project, &task(2)).await.unwrap(), Some(other));
    let diff = scene.rig.forge.diff(&scene.project, &scene.base.sha, &scene.head, 1000).await.unwrap();
    assert_eq!(diff.files.len(), 1, "evidence may still speak of its commits");
}

#[tokio::test]
async fn many_tasks_of_one_project_do_not_disturb_each_other() {
    let scene = scene().await;
    let work = (10..16_u64).map(|number| {
        let scene = &scene;
        async move {
            let file = format!("file-{number}");
            let head = scene.rig.work(&scene.project, &task(number), &scene.base.sha, (&file, "x\n")).await;
            let branch = scene.rig.forge.publish(&scene.project, &task(number), &head).await.unwrap().branch;
            assert_eq!(scene.repo.head_of(&branch).unwrap(), head.as_str());
            let permit = permit(&task(number), "main", &scene.base.sha, &head);
            scene.rig.land(&scene.project, &permit).await.is_ok()
        }
    });
    let mut landed = 0;
    let mut running: Vec<_> = work.map(Box::pin).collect();
    let mut results = Vec::new();
    std::future::poll_fn(|context| {
        running.retain_mut(|one| match std::future::Future::poll(one.as_mut(), context) {
            std::task::Poll::Ready(done) => {
                results.push(done);
                false
            }
            std::task::Poll::Pending => true,
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    landed += results.iter().filter(|done| **done).count();
    assert_eq!((results.len(), landed), (6, 1), "one fast-forward fits, the others see a moved base");
}
