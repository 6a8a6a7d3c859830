//! A forge on a scratch folder, tasks, permits, and an agent that the test plays.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use domain::contract::Contract;
use domain::event::{EVENT_VERSION, Envelope, Event};
use domain::id::{CommitSha, TaskId};
use domain::principal::Principal;
use domain::task::{AgentSpec, Approval, Change, Judgement, RepoSpec, TaskSpec};
use forge::{
    BuiltIn, Checkout, Forge, ForgeConfig, Import, ImportError, ImportLimits, Imported, LandError, LandOptions, Landed,
    Origin, Project,
};
use policy::{ChangeFacts, LandPermit};
use tempfile::TempDir;
use testkit::Repo;

pub struct Rig {
    pub forge: BuiltIn,
    pub scratch: TempDir,
}

pub async fn rig() -> Rig {
    let scratch = TempDir::with_prefix("forge-").unwrap();
    let forge = BuiltIn::new(ForgeConfig::new(scratch.path().join("data"))).await.unwrap();
    Rig { forge, scratch }
}

pub fn origin(path: &Path) -> Origin {
    Origin::parse(path.to_str().unwrap()).unwrap()
}

pub fn sha(text: &str) -> CommitSha {
    CommitSha::parse(text).unwrap()
}

pub fn task(number: u64) -> TaskId {
    TaskId::from_random(0x0123_4567_89ab_cdef ^ (number << 40))
}

/// A permit as `policy` gives it for a task whose change a person approved.
pub fn permit(task: &TaskId, branch: &str, expected: &CommitSha, commit: &CommitSha) -> LandPermit {
    let person = Principal::person("ada");
    let at = jiff::Timestamp::UNIX_EPOCH;
    let repo = RepoSpec { origin: "/x".into(), base_branch: branch.into(), base: expected.clone() };
    let agent = AgentSpec::Command { argv: vec!["true".into()] };
    let spec = TaskSpec { goal: "a goal".into(), repo, agent, contract: Contract::default(), fork: None };
    let event = Event::TaskSubmitted { spec: Box::new(spec), notes: Vec::new() };
    let first = Envelope { v: EVENT_VERSION, task: task.clone(), seq: 1, at, actor: person.clone(), event };
    let mut folded = domain::fold([&first]).unwrap();
    let judgement = Judgement { commit: commit.clone(), passed: true, failed: Vec::new(), feedback: String::new() };
    folded.gates = Some(Vec::new());
    folded.change = Some(Change { head: commit.clone(), commit: commit.clone(), onto: expected.clone(), branch: None });
    folded.decision = Some(policy::decide(&ChangeFacts { commit, judgement: &judgement, evidence: Vec::new() }));
    folded.approvals = vec![Approval { head: commit.clone(), by: person.clone(), at, comment: String::new() }];
    policy::permit(&folded, &person).unwrap()
}

impl Rig {
    pub async fn open(&self, repo: &Repo) -> Project {
        self.forge.open(&origin(repo.path())).await.unwrap()
    }

    /// The only hub's folder.
    pub fn hub(&self) -> PathBuf {
        let hubs: Vec<_> = std::fs::read_dir(self.scratch.path().join("data/hubs")).unwrap().collect();
        assert_eq!(hubs.len(), 1);
        hubs.into_iter().next().unwrap().unwrap().path()
    }

    /// Everything that the hub holds: refs and object files.
    pub fn hub_contents(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), found);
                } else {
                    let content = std::fs::read(entry.path()).unwrap();
                    found.push(format!("{} {}", entry.path().display(), domain::id::Digest::of(&content)));
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.hub(), &mut found);
        found.sort();
        found
    }

    pub async fn checkout(&self, project: &Project, commit: &CommitSha, name: &str) -> Repo {
        let dest = self.scratch.path().join(name);
        self.forge.checkout(project, commit, &dest, &Checkout::default()).await.unwrap();
        Repo::at(&dest)
    }

    pub async fn import(
        &self,
        project: &Project,
        task: &TaskId,
        base: &CommitSha,
        bundle: &Path,
    ) -> Result<Imported, ImportError> {
        self.import_with(project, task, base, (bundle, ImportLimits::default())).await
    }

    pub async fn import_with(
        &self,
        project: &Project,
        task: &TaskId,
        base: &CommitSha,
        (bundle, limits): (&Path, ImportLimits),
    ) -> Result<Imported, ImportError> {
        self.forge.import(project, &Import { task, base, bundle, limits }).await
    }

    /// An agent's whole work: a checkout, one changed file, a bundle, an import. Gives the head.
    pub async fn work(&self, project: &Project, task: &TaskId, base: &CommitSha, change: (&str, &str)) -> CommitSha {
        let name = format!("work-{task}-{}", change.1.len());
        let tree = self.checkout(project, base, &name).await;
        tree.file(change.0, change.1).commit("the agent's change");
        let bundle = self.bundle(&tree, base, &name);
        self.import(project, task, base, &bundle).await.unwrap().head
    }

    pub fn bundle(&self, tree: &Repo, base: &CommitSha, name: &str) -> PathBuf {
        let dest = self.scratch.path().join(format!("{name}.bundle"));
        tree.bundle(&dest, &[&format!("{base}..HEAD"), "HEAD"])
    }

    pub async fn land(&self, project: &Project, permit: &LandPermit) -> Result<Landed, LandError> {
        self.forge.land(project, permit, LandOptions::default()).await
    }

    pub async fn land_with_tree(&self, project: &Project, permit: &LandPermit) -> Result<Landed, LandError> {
        self.forge.land(project, permit, LandOptions { update_worktree: true }).await
    }
}
