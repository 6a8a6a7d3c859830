//! The room in which a bundle is unpacked and looked at before the hub has anything of it.
//!
//! A quarantine is a bare repository of its own that can read the hub's objects. What a bundle may
//! build on is less than what can be read: the base and the task's own earlier results. Objects of
//! other tasks are in the hub too, and naming one must not be a way to get at its content, neither
//! as a part of a tree nor as the base of a delta. Absent: any write to the hub but the last step.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use domain::id::CommitSha;

use crate::builtin::BuiltIn;
use crate::diff;
use crate::error::{Fault, ImportError, Refusal};
use crate::git::GitError;
use crate::hub::{Project, blocking, fetch};
use crate::import::{Import, ImportNote, imports, task_ref};
use crate::merge::merges;
use crate::tree::{EntryKind, RepoPath, number};

/// The head under inspection.
const HEAD: &str = "refs/quarantine/head";
/// Longest path that is taken: the usual limit of Linux.
const MAX_PATH_BYTES: usize = 4096;
/// Most notes that an import gives.
const MAX_NOTES: usize = 50;
/// Most bytes that a listing of objects may have: about six million objects.
const LIST_BYTES: usize = 256 << 20;

pub(crate) struct Quarantine<'a> {
    forge: &'a BuiltIn,
    project: &'a Project,
    import: &'a Import<'a>,
    at: PathBuf,
    /// The history that the bundle may build on.
    ground: Vec<String>,
}

impl<'a> Quarantine<'a> {
    /// A repository that can see the hub's objects, and whose refs are the only history that a
    /// bundle may build on.
    pub async fn make(
        forge: &'a BuiltIn,
        project: &'a Project,
        import: &'a Import<'a>,
        at: PathBuf,
    ) -> Result<Self, Fault> {
        let doing = "preparing the quarantine";
        let (git, hub) = (&forge.git, forge.hub_of(project));
        let format = if import.base.as_str().len() == 64 { "sha256" } else { "sha1" };
        forge.init_bare(&at, format).await?;
        let (room, objects, shallow) = (at.clone(), hub.join("objects"), hub.join("shallow"));
        let borrow = move || {
            let mut line = objects.into_os_string().into_encoded_bytes();
            line.push(b'\n');
            std::fs::create_dir_all(room.join("objects/info"))?;
            std::fs::write(room.join("objects/info/alternates"), line)?;
            if shallow.exists() { std::fs::copy(&shallow, room.join("shallow")).map(|_| ()) } else { Ok(()) }
        };
        blocking(borrow).await.map_err(Fault::io(doing, &at))?;
        let earlier = ["for-each-ref", "--format=%(objectname)", &imports(import.task), &merges(import.task)];
        let earlier = git.hub(&hub).args(earlier).text().await.map_err(Fault::git(doing))?;
        let mut ground = vec![import.base.to_string()];
        ground.extend(earlier.lines().map(str::to_owned));
        let refs: String = ground
            .iter()
            .enumerate()
            .map(|(number, commit)| format!("create refs/ground/{number} {commit}\n"))
            .collect();
        git.hub(&at).args(["update-ref", "--stdin"]).stdin(refs.into_bytes()).ok().await.map_err(Fault::git(doing))?;
        Ok(Self { forge, project, import, at, ground })
    }

    /// Unpacks the one head of the bundle, with all of git's checks.
    pub async fn unpack(&self, bundle: &Path) -> Result<CommitSha, ImportError> {
        let git = &self.forge.git;
        let limits = &self.import.limits;
        let listed = git.hub(&self.at).args(["bundle", "list-heads"]).arg(bundle).max_output(1 << 20);
        let heads = match listed.text().await {
            Ok(text) => text,
            Err(error) => return Err(classify(error)),
        };
        let heads: Vec<(&str, &str)> = heads.lines().filter_map(|line| line.split_once(' ')).collect();
        let branches: Vec<_> = heads.iter().filter(|(_, name)| name.starts_with("refs/heads/")).collect();
        let (sha, name) = match (heads.iter().find(|(_, name)| *name == "HEAD"), branches.as_slice()) {
            (Some(head), _) => *head,
            (None, [head]) => **head,
            _ => return Err(Refusal::NoSingleHead.into()),
        };
        let sha = CommitSha::parse(sha).map_err(|error| Refusal::Invalid { why: error.to_string() })?;
        let call = fetch(git.hub(&self.at)).args(["--end-of-options"]).arg(bundle).arg(format!("+{name}:{HEAD}"));
        call.restrict(limits.memory_bytes, limits.unpacked_bytes).ok().await.map_err(classify)?;
        let head = self.forge.ref_at(&self.at, HEAD).await?.ok_or(Refusal::NotACommit)?;
        let kind = git.hub(&self.at).args(["cat-file", "-t", head.as_str()]).text().await.map_err(classify)?;
        if kind != "commit" || head != sha {
            return Err(Refusal::NotACommit.into());
        }
        Ok(head)
    }

    /// Counts the commits after the base.
    pub async fn check_history(&self, head: &CommitSha) -> Result<u64, ImportError> {
        let base = self.import.base;
        if !self.forge.is_ancestor(&self.at, base, head).await? {
            return Err(Refusal::NotDescended { base: base.clone() }.into());
        }
        let count = ["rev-list", "--count", "--end-of-options", &format!("{base}..{head}")];
        let count = self.forge.git.hub(&self.at).args(count).text().await.map_err(classify)?;
        let found = number(count.as_bytes()).unwrap_or(u64::MAX);
        within("commits", found, self.import.limits.commits)?;
        Ok(found)
    }

    /// Looks at every object that comes after the base, in any of the commits: how large it is,
    /// and whether the bundle brought it or had a right to leave it out.
    pub async fn check_objects(&self, head: &CommitSha, bundle: &Path) -> Result<(), ImportError> {
        let git = &self.forge.git;
        let range = format!("{}..{head}", self.import.base);
        let new = ["rev-list", "--objects", "--no-object-names", "--end-of-options", &range];
        let new = git.hub(&self.at).args(new).max_output(LIST_BYTES).ok().await.map_err(classify)?.stdout;
        self.check_origin_of(&new, bundle).await?;
        let sizes = git.hub(&self.at).args(["cat-file", "--buffer", "--batch-check=%(objecttype) %(objectsize)"]);
        let sizes = sizes.stdin(new).max_output(LIST_BYTES).ok().await.map_err(classify)?;
        let mut total: u64 = 0;
        for line in lines(&sizes.stdout) {
            let bytes = line.rsplit(|byte| *byte == b' ').next().and_then(number).unwrap_or(u64::MAX);
            if line.starts_with(b"blob") {
                within("bytes in one file", bytes, self.import.limits.file_bytes)?;
            }
            total = total.saturating_add(bytes);
        }
        within("bytes of new content", total, self.import.limits.unpacked_bytes)?;
        Ok(())
    }

    /// Refuses objects that the bundle only names, or builds a delta on, and that are not part of
    /// the history it may build on.
    async fn check_origin_of(&self, new: &[u8], bundle: &Path) -> Result<(), ImportError> {
        let doing = "looking at the bundle";
        let from = bundle.to_owned();
        let sent = blocking(move || objects_in_bundle(&from)).await.map_err(Fault::io(doing, bundle))?;
        let (sent, completed) = self.unpacked(sent).await?;
        let mut borrowed: HashSet<&[u8]> = lines(new).filter(|id| !sent.contains(*id)).collect();
        borrowed.extend(completed.iter().map(Vec::as_slice));
        // Mostly it is the trees of those very commits; all of their history only if need be.
        for extent in [&["--no-walk"][..], &[]] {
            if borrowed.is_empty() {
                return Ok(());
            }
            let list = self.forge.git.hub(&self.at).args(["rev-list", "--objects", "--no-object-names"]).args(extent);
            let list = list.arg("--end-of-options").args(&self.ground).max_output(4 * LIST_BYTES);
            let known = list.ok().await.map_err(classify)?;
            for id in lines(&known.stdout) {
                borrowed.remove(id);
            }
        }
        if borrowed.is_empty() { Ok(()) } else { Err(Refusal::UnknownHistory.into()) }
    }

    /// The ids of the objects that a bundle with `sent` objects brought, and of those that git took
    /// from elsewhere to complete its deltas: it appends them to the pack.
    async fn unpacked(&self, sent: usize) -> Result<(HashSet<Vec<u8>>, Vec<Vec<u8>>), ImportError> {
        let doing = "looking at the unpacked result";
        let dir = self.at.join("objects/pack");
        let find = move || {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&dir)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "idx") {
                    found.push(std::fs::read(path)?);
                }
            }
            Ok(found)
        };
        let indexes = blocking(find).await.map_err(Fault::io(doing, &self.at))?;
        let mut placed: Vec<(u64, Vec<u8>)> = Vec::new();
        for index in indexes {
            let format = if self.import.base.as_str().len() == 64 { "sha256" } else { "sha1" };
            let show = self.forge.git.hub(&self.at).args(["show-index", &format!("--object-format={format}")]);
            let text = show.stdin(index).max_output(LIST_BYTES).ok().await.map_err(Fault::git(doing))?.stdout;
            for line in lines(&text) {
                let mut words = line.split(|byte| *byte == b' ');
                if let (Some(offset), Some(id)) = (words.next().and_then(number), words.next()) {
                    placed.push((offset, id.to_owned()));
                }
            }
        }
        placed.sort_unstable();
        let completed = placed.split_off(sent.min(placed.len()));
        Ok((placed.into_iter().map(|(_, id)| id).collect(), completed.into_iter().map(|(_, id)| id).collect()))
    }

    /// Looks at the paths that differ from the base; gives their number and what to tell.
    pub async fn check_paths(&self, head: &CommitSha) -> Result<(u64, Vec<ImportNote>), ImportError> {
        let changed = [
            "diff-tree",
            "-r",
            "-z",
            "--raw",
            "--no-renames",
            "--end-of-options",
            self.import.base.as_str(),
            head.as_str(),
        ];
        let changed = self.forge.git.hub(&self.at).args(changed).max_output(512 << 20).ok().await.map_err(classify)?;
        let files = diff::parse(&changed.stdout);
        let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
        within("changed paths", count, self.import.limits.changed_paths)?;
        let mut notes = Vec::new();
        let mut links = Vec::new();
        for file in files {
            if file.entry.is_some() && is_forbidden(file.path.as_bytes()) {
                return Err(Refusal::ForbiddenPath { path: file.path }.into());
            }
            if matches!(file.path.file_name(), b".gitmodules" | b".gitattributes") {
                notes.push(ImportNote::GitSettingsChanged { path: file.path.clone() });
            }
            if file.entry.is_some() && file.path.as_str().is_none() {
                notes.push(ImportNote::NonUtf8Name { path: file.path.clone() });
            }
            match (file.old_entry, file.entry) {
                (_, Some(EntryKind::Gitlink)) => notes.push(ImportNote::SubmoduleChanged { path: file.path }),
                (Some(EntryKind::Gitlink), _) => notes.push(ImportNote::SubmoduleRemoved { path: file.path }),
                (_, Some(EntryKind::Symlink)) => links.push(file.path),
                _ => {}
            }
        }
        notes.extend(self.outside_links(head, links).await?);
        if notes.len() > MAX_NOTES {
            let count = notes.len() - MAX_NOTES;
            notes.truncate(MAX_NOTES);
            notes.push(ImportNote::More { count });
        }
        Ok((count, notes))
    }

    async fn outside_links(&self, head: &CommitSha, links: Vec<RepoPath>) -> Result<Vec<ImportNote>, ImportError> {
        if links.is_empty() {
            return Ok(Vec::new());
        }
        // `-z` input would need a newer git; a link with a line end in its name is told unread.
        let (plain, odd): (Vec<_>, Vec<_>) = links.into_iter().partition(|path| !path.as_bytes().contains(&b'\n'));
        let mut names = Vec::with_capacity(plain.len());
        let mut stdin = Vec::new();
        for path in plain {
            stdin.extend_from_slice(format!("{head}:").as_bytes());
            stdin.extend_from_slice(path.as_bytes());
            stdin.push(b'\n');
            names.push(path);
        }
        let check = self.forge.git.hub(&self.at).args(["cat-file", "--buffer", "--batch-check=%(objectname)"]);
        let objects = check.stdin(stdin).text().await.map_err(classify)?;
        let objects: Vec<String> = objects.lines().map(str::to_owned).collect();
        let targets = self.forge.blobs(&self.at, &objects, MAX_PATH_BYTES).await?;
        let leading_out = names.into_iter().zip(targets).filter(|(path, target)| leads_out(path.as_bytes(), target));
        let mut notes: Vec<ImportNote> = leading_out
            .map(|(path, target)| ImportNote::OutsideLink { path, target: RepoPath::from_bytes(&target) })
            .collect();
        notes.extend(odd.into_iter().map(|path| ImportNote::OutsideLink { path, target: RepoPath::from_bytes(b"?") }));
        Ok(notes)
    }

    /// Moves what passed into the hub.
    pub async fn release(&self, head: &CommitSha) -> Result<(), Fault> {
        let hub = self.forge.hub_of(self.project);
        let task = self.import.task;
        let call = fetch(self.forge.git.hub(&hub)).args(["--end-of-options"]).arg(&self.at);
        let call = call.args([format!("+{HEAD}:{}{head}", imports(task)), format!("+{HEAD}:{}", task_ref(task))]);
        call.ok().await.map_err(Fault::git("taking the result into the hub"))?;
        Ok(())
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// How many objects a bundle says to have: a text header, an empty line, `PACK`, version, count.
fn objects_in_bundle(path: &Path) -> std::io::Result<usize> {
    use std::io::{BufRead as _, Read as _};
    let mut file = std::io::BufReader::new(std::fs::File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 && line != b"\n" {
        line.clear();
    }
    let mut header = [0_u8; 12];
    file.read_exact(&mut header)?;
    let [.., a, b, c, d] = header;
    Ok(usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX))
}

fn within(what: &'static str, found: u64, allowed: u64) -> Result<(), Refusal> {
    if found > allowed { Err(Refusal::TooMuch { what, found, allowed }) } else { Ok(()) }
}

/// A git failure over a bundle is the bundle's fault, unless it is plainly the machine's.
fn classify(error: GitError) -> ImportError {
    let doing = "unpacking the result";
    let stderr = error.stderr();
    let has = |sign: &str| stderr.contains(sign);
    match &error {
        GitError::TimedOut { limit_s, .. } => Refusal::TooCostly { why: format!("more than {limit_s} s") }.into(),
        GitError::TooMuchOutput { .. } => {
            Refusal::TooCostly { why: "more objects than can be listed".to_owned() }.into()
        }
        GitError::Failed { .. } if has("No space left") => Fault::DiskFull { doing }.into(),
        GitError::Failed { .. } if has("prerequisite commit") => Refusal::UnknownHistory.into(),
        GitError::Failed { end, .. }
            if has("ut of memory") || has("mmap failed") || has("File too large") || end == "signal 25" =>
        {
            Refusal::TooCostly { why: last_line(stderr) }.into()
        }
        GitError::Failed { .. } => Refusal::Invalid { why: last_lines(stderr) }.into(),
        _ => Fault::git(doing)(error).into(),
    }
}

fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or_default().chars().take(200).collect()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    tail.chars().filter(|character| !character.is_control()).take(400).collect()
}

/// Paths that no commit may bring, whatever git's own check thinks of them.
fn is_forbidden(path: &[u8]) -> bool {
    path.is_empty()
        || path.len() > MAX_PATH_BYTES
        || path.split(|byte| *byte == b'/').any(|part| {
            matches!(part, b"" | b"." | b"..")
                || part.eq_ignore_ascii_case(b".git")
                || part.eq_ignore_ascii_case(b"git~1")
        })
}

/// Whether a link at `path` with this target points outside the repository.
fn leads_out(path: &[u8], target: &[u8]) -> bool {
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut depth = path.iter().filter(|byte| **byte == b'/').count();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_folders_and_dots_are_forbidden_at_any_depth() {
        for bad in ["", ".git", "a/.GIT/config", "a/../b", "a//b", "x/.", "git~1/x"] {
            assert!(is_forbidden(bad.as_bytes()), "{bad:?} was taken");
        }
        for good in [".gitignore", "a/.github/x", "git", "..a"] {
            assert!(!is_forbidden(good.as_bytes()), "{good:?} was refused");
        }
    }

    #[test]
    fn a_link_leads_out_when_it_climbs_above_the_top() {
        assert!(leads_out(b"a/b", b"/etc/passwd"));
        assert!(leads_out(b"a/b", b"../../x"));
        assert!(leads_out(b"b", b"c/../../x"));
        assert!(!leads_out(b"a/b", b"../x"));
        assert!(!leads_out(b"a/b/c", b"./../../x/../y"));
    }
}
