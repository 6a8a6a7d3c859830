//! Hubs: one bare repository of the host per origin, and how an origin is looked at.
//!
//! ```text
//! data/hubs/<key>.git            bare, 0700, never collected
//!   refs/origin/<hash of name>   branches of the origin as last fetched
//!   refs/chargehand/tasks/<id>   newest result of a task
//!   refs/chargehand/imports/<id>/<sha>   every result of a task: evidence may speak of older ones
//!   refs/chargehand/merges/<id>/<sha>    merge commits made for a task
//! data/origins/<hash>.json       origin as written → project
//! data/quarantine/…              bundles that are being looked at
//! data/empty-home                git's HOME
//! ```
//!
//! Absent: garbage collection. Objects stay, because evidence names commits for ever.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::id::{CommitSha, Digest};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::builtin::BuiltIn;
use crate::error::{Fault, OpenError};
use crate::git::{Call, GitError};
use crate::origin::Origin;

/// Findings in old history that do no harm and that large public repositories have. Everything
/// else that git's check finds refuses a fetch.
const FORGIVEN: &[&str] = &[
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "badTagName",
    "fullPathname",
    "gitmodulesParse",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingTaggerEntry",
    "multipleAuthors",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
];

/// A repository that tasks work on: its origin and the hub that stands for it here.
///
/// Plain data: it can be stored, and stays right while the origin stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    key: Digest,
    place: Place,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Place {
    /// `tree` is missing where the repository is bare; `git_dir` is shared by all its work trees.
    Local {
        tree: Option<String>,
        git_dir: String,
    },
    Remote {
        url: String,
    },
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.origin())
    }
}

impl Place {
    fn text(&self) -> &str {
        match self {
            Self::Local { tree: Some(tree), .. } => tree,
            Self::Local { tree: None, git_dir } => git_dir,
            Self::Remote { url } => url,
        }
    }
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::Local { .. } => Origin::Local(PathBuf::from(self.text())),
            Self::Remote { url } => Origin::Remote(url.clone()),
        }
    }
}

impl Project {
    /// Names the hub; the same for every way to write the same origin.
    #[must_use]
    pub const fn key(&self) -> &Digest {
        &self.key
    }
    /// The origin as it is to be stored: the top of the work tree (or the bare repository) as an
    /// absolute path, or the URL. Contains the URL's password, if it has one.
    #[must_use]
    pub fn origin_text(&self) -> &str {
        self.place.text()
    }
    /// The origin; safe to show.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.place.origin()
    }
    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }
}

/// What an origin says about itself.
#[derive(Debug, Default)]
pub(crate) struct Advert {
    /// The branch that HEAD names, if it names one.
    pub head_branch: Option<String>,
    pub head: Option<CommitSha>,
    /// Full ref names and where they are.
    pub refs: Vec<(String, CommitSha)>,
}

impl Advert {
    pub fn branch(&self, name: &str) -> Option<&CommitSha> {
        self.refs.iter().find(|(full, _)| full.strip_prefix("refs/heads/") == Some(name)).map(|(_, at)| at)
    }
    pub fn branches(&self) -> impl Iterator<Item = (&str, &CommitSha)> {
        self.refs.iter().filter_map(|(full, at)| Some((full.strip_prefix("refs/heads/")?, at)))
    }
}

impl BuiltIn {
    pub(crate) fn hub_of(&self, project: &Project) -> PathBuf {
        self.dirs.hubs.join(format!("{}.git", project.key))
    }

    pub(crate) async fn open_origin(&self, origin: &Origin) -> Result<Project, OpenError> {
        let (place, format) = match origin {
            Origin::Local(path) => self.look_at_path(path).await?,
            Origin::Remote(url) => self.look_at_url(url).await?,
        };
        let identity = match &place {
            Place::Local { git_dir, .. } => format!("path\0{git_dir}"),
            Place::Remote { url } => format!("url\0{url}"),
        };
        let project = Project { key: Digest::of(identity.as_bytes()), place };
        let lock = self.lock(&project);
        let _held = lock.lock().await;
        self.ensure_hub(&project, &format).await?;
        for text in [origin_key(origin), origin_key(&project.origin())] {
            self.remember(&text, &project).await?;
        }
        Ok(project)
    }

    /// The project that an origin was opened as before, without asking the origin.
    pub(crate) async fn recall(&self, origin: &Origin) -> Result<Option<Project>, Fault> {
        let path = self.dirs.origins.join(format!("{}.json", origin_key(origin)));
        let bytes = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::io("reading", &path)(error)),
        };
        // A file that can't be read is as good as none: opening writes it anew.
        Ok(serde_json::from_slice::<Project>(&bytes).ok().filter(|project| self.hub_of(project).is_dir()))
    }

    async fn remember(&self, name: &Digest, project: &Project) -> Result<(), Fault> {
        let path = self.dirs.origins.join(format!("{name}.json"));
        let bytes = serde_json::to_vec(project).unwrap_or_default();
        if tokio::fs::read(&path).await.is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let failed = Fault::io("writing", &path);
        let write = move || {
            let scratch = path.with_extension(format!("{}.new", std::process::id()));
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
            std::io::Write::write_all(&mut file, &bytes)?;
            file.sync_all()?;
            std::fs::rename(&scratch, &path)
        };
        blocking(write).await.map_err(failed)
    }

    async fn look_at_path(&self, path: &Path) -> Result<(Place, String), OpenError> {
        if !tokio::fs::try_exists(path).await.unwrap_or(false) {
            return Err(OpenError::NoSuchPath { path: path.to_owned() });
        }
        if !path.is_dir() {
            return Err(OpenError::NotARepository { path: path.to_owned() });
        }
        let asked =
            ["rev-parse", "--path-format=absolute", "--show-object-format", "--git-common-dir", "--show-toplevel"];
        let answer =
            self.git.read_origin(path).args(asked).run().await.map_err(Fault::git("looking at the repository"))?;
        let text = answer.text();
        let mut lines = text.lines();
        let (Some(format), Some(git_dir)) = (lines.next(), lines.next()) else {
            return Err(not_readable(path, answer.failure()));
        };
        let git_dir = canonical(Path::new(git_dir))?;
        // Inside `.git` itself there is no top level to ask for; the folder around it is meant.
        let tree = match lines.next() {
            Some(tree) => Some(canonical(Path::new(tree))?),
            None => git_dir.strip_suffix("/.git").map(str::to_owned),
        };
        let place = Place::Local { tree, git_dir };
        let dir = place.origin();
        let dir = dir.local_path().unwrap_or(path);
        let any = ["for-each-ref", "--count=1", "--format=%(objectname)", "refs/heads"];
        let branches = self.git.read_origin(dir).args(any).text().await.map_err(Fault::git("listing branches"))?;
        if branches.is_empty() {
            let head = self.git.read_origin(dir).args(["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]);
            if head.run().await.map_err(Fault::git("looking at HEAD"))?.code != 0 {
                return Err(OpenError::NoCommits { origin: place.origin().to_string() });
            }
        }
        Ok((place, format.to_owned()))
    }

    async fn look_at_url(&self, url: &str) -> Result<(Place, String), OpenError> {
        let place = Place::Remote { url: url.to_owned() };
        let advert = self.advert(&place, &["HEAD", "refs/heads/*"]).await?;
        let first = advert.head.as_ref().or_else(|| advert.refs.first().map(|(_, at)| at));
        match first {
            Some(commit) => Ok((place, if commit.as_str().len() == 64 { "sha256" } else { "sha1" }.to_owned())),
            None => Err(OpenError::NoCommits { origin: place.origin().to_string() }),
        }
    }

    async fn ensure_hub(&self, project: &Project, format: &str) -> Result<(), Fault> {
        let hub = self.hub_of(project);
        if hub.is_dir() {
            if self.first_sight(project) {
                remove_stale_locks(hub).await?;
            }
            return Ok(());
        }
        self.first_sight(project);
        // Made beside its place and renamed into it: a hub is whole or absent.
        let scratch = hub.with_extension(format!("{}.new", std::process::id()));
        self.init_bare(&scratch, format).await?;
        let note = format!("{}\n", project.origin());
        tokio::fs::write(scratch.join("description"), note).await.map_err(Fault::io("writing", &scratch))?;
        tokio::fs::rename(&scratch, &hub).await.map_err(Fault::io("making", &hub))
    }

    /// Makes a bare repository of the host, in place of whatever is there.
    pub(crate) async fn init_bare(&self, at: &Path, format: &str) -> Result<(), Fault> {
        let doing = "making a repository";
        remove_dir(at).await?;
        std::fs::DirBuilder::new().mode(0o700).create(at).map_err(Fault::io(doing, at))?;
        let init = ["init", "--quiet", "--bare", "--template=", "--initial-branch=none"];
        let call = self.git.nowhere().args(init).arg(format!("--object-format={format}"));
        call.env("GIT_DIR", at).ok().await.map_err(Fault::git(doing))?;
        let settings = "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[receive]\n\tautogc = false\n\
                        [core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\tlogAllRefUpdates = false\n\
                        [transfer]\n\tfsckObjects = true\n[uploadpack]\n\tallowAnySHA1InWant = true\n\tallowFilter = true\n";
        let path = at.join("config");
        let append = move || {
            let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
            std::io::Write::write_all(&mut file, settings.as_bytes())
        };
        blocking(append).await.map_err(Fault::io("writing", at))
    }

    /// What the origin has now, of the refs that match these patterns.
    pub(crate) async fn advert<S: AsRef<str>>(&self, place: &Place, patterns: &[S]) -> Result<Advert, Fault> {
        let origin = place.origin();
        let call = self.git.nowhere().args(["ls-remote", "--symref", "--end-of-options"]).arg(place.text());
        let call = call.args(patterns.iter().map(AsRef::as_ref)).towards_origin(origin.secret());
        let answer = call.ok().await.map_err(|source| unreachable(place, source))?;
        let mut advert = Advert::default();
        for line in answer.text().lines() {
            match line.split_once('\t') {
                Some((target, "HEAD")) if target.starts_with("ref: ") => {
                    advert.head_branch = target.strip_prefix("ref: refs/heads/").map(str::to_owned);
                }
                Some((sha, "HEAD")) => advert.head = CommitSha::parse(sha).ok(),
                Some((sha, name)) => {
                    if let Ok(sha) = CommitSha::parse(sha) {
                        advert.refs.push((name.to_owned(), sha));
                    }
                }
                None => {}
            }
        }
        Ok(advert)
    }

    /// Where a branch of the origin is now; its commit is then in the hub. The caller holds the
    /// hub's lock.
    pub(crate) async fn fetch_branch(&self, project: &Project, branch: &str) -> Result<Option<CommitSha>, Fault> {
        let full = format!("refs/heads/{branch}");
        let advert = self.advert(&project.place, &[&full]).await?;
        match advert.branch(branch) {
            Some(at) => self.fetch_known(project, branch, at).await.map(Some),
            None => Ok(None),
        }
    }

    /// Fetches a branch that the origin was just seen to have at `at`, unless the hub has it.
    pub(crate) async fn fetch_known(
        &self,
        project: &Project,
        branch: &str,
        at: &CommitSha,
    ) -> Result<CommitSha, Fault> {
        let doing = "fetching from the origin";
        let hub = self.hub_of(project);
        let local = format!("refs/origin/{}", Digest::of(branch.as_bytes()).as_str().get(..40).unwrap_or_default());
        if self.ref_at(&hub, &local).await?.as_ref() == Some(at) {
            return Ok(at.clone());
        }
        let origin = project.origin();
        let mut call = self.git.hub(&hub);
        for finding in FORGIVEN {
            call = call.arg("-c").arg(format!("fetch.fsck.{finding}=ignore"));
        }
        let call = fetch(call).args(["--force", "--end-of-options"]).arg(project.place.text());
        let call = call.arg(format!("+refs/heads/{branch}:{local}")).towards_origin(origin.secret());
        match call.ok().await {
            Ok(_) => {}
            Err(source) if is_connection(&source) => return Err(unreachable(&project.place, source)),
            Err(source) => return Err(Fault::git(doing)(source)),
        }
        let missing = || GitError::Unexpected { command: "git fetch".into(), what: format!("{local} was not made") };
        self.ref_at(&hub, &local).await?.ok_or_else(|| Fault::git(doing)(missing()))
    }

    /// Where a ref of one of our repositories is.
    pub(crate) async fn ref_at(&self, repository: &Path, name: &str) -> Result<Option<CommitSha>, Fault> {
        let call = self.git.hub(repository).args(["rev-parse", "--quiet", "--verify", "--end-of-options", name]);
        let answer = call.run().await.map_err(Fault::git("looking up a ref"))?;
        Ok(if answer.code == 0 { CommitSha::parse(&answer.text()).ok() } else { None })
    }

    /// Whether the hub has this commit.
    pub(crate) async fn has_commit(&self, project: &Project, commit: &CommitSha) -> Result<bool, Fault> {
        let call = self.git.hub(&self.hub_of(project)).args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
        Ok(call.run().await.map_err(Fault::git("looking for a commit"))?.code == 0)
    }

    /// Whether `old` is `new` or one of its ancestors. Both are in the hub.
    pub(crate) async fn is_ancestor(&self, repository: &Path, old: &CommitSha, new: &CommitSha) -> Result<bool, Fault> {
        if old == new {
            return Ok(true);
        }
        let call = self.git.hub(repository).args(["merge-base", "--is-ancestor", old.as_str(), new.as_str()]);
        let answer = call.run().await.map_err(Fault::git("comparing commits"))?;
        answer.yes_or_no().map_err(Fault::about("comparing commits", new))
    }
}

/// A fetch that leaves nothing behind but objects and the refs it was told to write.
pub(crate) fn fetch(call: Call<'_>) -> Call<'_> {
    call.args([
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--update-shallow",
        "--atomic",
    ])
}

fn origin_key(origin: &Origin) -> Digest {
    match origin {
        Origin::Local(path) => Digest::of_parts(&[b"path\0", path.as_os_str().as_encoded_bytes()]),
        Origin::Remote(url) => Digest::of_parts(&[b"url\0", url.as_bytes()]),
    }
}

fn canonical(path: &Path) -> Result<String, OpenError> {
    let whole = path.canonicalize().map_err(Fault::io("looking at", path))?;
    whole.into_os_string().into_string().map_err(|path| OpenError::PathNotUtf8 { path: path.into() })
}

fn not_readable(path: &Path, error: GitError) -> OpenError {
    let path = path.to_owned();
    if error.stderr().contains("dubious ownership") {
        OpenError::ForeignOwner { path }
    } else if error.stderr().contains("not a git repository") {
        OpenError::NotARepository { path }
    } else {
        OpenError::Fault(Fault::git("looking at the repository")(error))
    }
}

fn unreachable(place: &Place, source: GitError) -> Fault {
    match source {
        GitError::Missing { .. } | GitError::Start { .. } => Fault::Git { doing: "asking the origin", source },
        source => Fault::Unreachable { origin: place.origin().to_string(), source },
    }
}

/// Whether a failed fetch or push failed on the way to the origin and not at what it carried.
pub(crate) fn is_connection(error: &GitError) -> bool {
    const SIGNS: [&str; 5] = [
        "Could not read from remote",
        "unable to access",
        "Could not resolve",
        "does not appear to be a git",
        "Connection",
    ];
    SIGNS.iter().any(|sign| error.stderr().contains(sign))
}

pub(crate) async fn remove_dir(path: &Path) -> Result<(), Fault> {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::io("removing", path)(error)),
        _ => Ok(()),
    }
}

/// Runs blocking file work; a panic in it comes back as an error.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Removes lock files that a git of an earlier, killed process left. Only this process writes to
/// the hub, and it hasn't begun.
async fn remove_stale_locks(hub: PathBuf) -> Result<(), Fault> {
    fn sweep(dir: &Path, depth: u32) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && depth > 0 && entry.file_name() != "objects" {
                sweep(&entry.path(), depth - 1)?;
            } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "lock") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
    let failed = Fault::io("clearing old locks in", &hub);
    blocking(move || sweep(&hub, 8)).await.map_err(failed)
}
