//! What git's smart HTTP protocol may do to one repository: read it, and with a named branch update
//! that branch and nothing else.
//!
//! A push says which refs it updates in pkt-lines before the pack. They are read here as the far
//! side reads them; whatever else a push can say (options, certificates, deletions) is refused.
//! Absent: the pack itself, which passes unread, and the dumb protocol.

use hyper::Method;

use crate::denial::Denial;
use crate::list::EntryProblem;
use crate::path::CleanPath;

/// Most bytes of a push before its pack.
pub const MAX_COMMANDS_BYTES: usize = 64 * 1024;

/// One repository, and the branch that may be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitRule {
    /// `/owner/repo`, without `.git`.
    path: String,
    /// `refs/heads/…`.
    pub push: Option<String>,
}

/// What a request to a repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GitRequest {
    /// Listing of refs, or a fetch.
    Read,
    /// Listing of refs for a push.
    Announce,
    /// The push.
    Push,
}

impl GitRule {
    pub(crate) fn new(path: &str, push: Option<&str>) -> Result<Self, EntryProblem> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = path.strip_suffix(".git").unwrap_or(path);
        let clean = CleanPath::parse(path, None)
            .map_err(|error| EntryProblem::Path { path: path.chars().take(200).collect(), error })?;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
        if clean.path() != path || path.len() < 2 || !path.bytes().all(is_plain) {
            return Err(EntryProblem::Group(format!("git:…{path}")));
        }
        let push = match push {
            Some(branch) if is_branch(branch) => Some(format!("refs/heads/{branch}")),
            Some(_) => return Err(EntryProblem::Push),
            None => None,
        };
        Ok(Self { path: path.to_owned(), push })
    }

    /// What a request to this repository is; `None` if it is not this repository, or nothing that
    /// is allowed there.
    pub(crate) fn classify(&self, method: &Method, path: &CleanPath) -> Option<GitRequest> {
        if path.readings().len() != 1 {
            return None;
        }
        let rest = path.path().strip_prefix(self.path.as_str())?;
        let rest = rest.strip_prefix(".git").unwrap_or(rest);
        match (method.as_str(), rest, path.query()) {
            ("GET", "/info/refs", Some("service=git-upload-pack")) | ("POST", "/git-upload-pack", None) => {
                Some(GitRequest::Read)
            }
            ("GET", "/info/refs", Some("service=git-receive-pack")) => self.push.as_ref().map(|_| GitRequest::Announce),
            ("POST", "/git-receive-pack", None) => self.push.as_ref().map(|_| GitRequest::Push),
            _ => None,
        }
    }
}

/// Whether a text is the name of one branch, as git sees it.
fn is_branch(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'+' | b'#');
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && name.len() <= 200
        && name.bytes().all(is_plain)
        && name.split('/').all(is_part)
}

/// How far the reading of a push has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commands {
    /// More bytes are needed.
    NeedMore,
    /// The commands are complete and allowed; they take this many bytes.
    Allowed {
        /// Bytes up to the end of the commands.
        length: usize,
    },
}

/// Reads the beginning of a push and checks each ref that it updates; `body` is all that has come so
/// far, from its first byte. `allowed` is the whole name of the one ref that may be updated.
///
/// # Errors
/// [`Denial::PushRef`] for another ref, [`Denial::PushUnreadable`] for anything that is not a plain
/// update, or longer than [`MAX_COMMANDS_BYTES`].
pub fn read_commands(body: &[u8], allowed: &str) -> Result<Commands, Denial> {
    let refuse = |detail: &str| Denial::PushUnreadable { detail: detail.to_owned() };
    let mut rest = body;
    let mut is_first = true;
    loop {
        let read = body.len() - rest.len();
        if read > MAX_COMMANDS_BYTES {
            return Err(refuse("it updates too many refs at once"));
        }
        let Some((head, after)) = rest.split_first_chunk::<4>() else { return Ok(Commands::NeedMore) };
        match pkt_length(head).ok_or_else(|| refuse("its beginning is not in git's line format"))? {
            0 => return Ok(Commands::Allowed { length: read + 4 }),
            1..=4 => return Err(refuse("a line in it has an impossible length")),
            length => {
                let Some((line, after)) = after.split_at_checked(length - 4) else { return Ok(Commands::NeedMore) };
                check_line(line, is_first, allowed)?;
                is_first = false;
                rest = after;
            }
        }
    }
}

fn pkt_length(head: &[u8; 4]) -> Option<usize> {
    let digits = head.iter().all(u8::is_ascii_hexdigit).then_some(head)?;
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn check_line(line: &[u8], is_first: bool, allowed: &str) -> Result<(), Denial> {
    let refuse = |detail: &str| Denial::PushUnreadable { detail: detail.to_owned() };
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (command, capabilities) = match line.iter().position(|b| *b == 0).and_then(|at| line.split_at_checked(at)) {
        Some((command, capabilities)) => (command, Some(capabilities)),
        None => (line, None),
    };
    match capabilities {
        Some(_) if !is_first => return Err(refuse("a line after the first has capabilities")),
        Some(capabilities) => check_capabilities(capabilities)?,
        None => {}
    }
    let command = std::str::from_utf8(command).map_err(|_| refuse("a ref's name is not UTF-8"))?;
    let mut words = command.splitn(3, ' ');
    let (old, new, name) = (words.next().unwrap_or_default(), words.next(), words.next());
    let (Some(new), Some(name)) = (new, name) else {
        return Err(refuse("a line in it is not an update of a ref (shallow and signed pushes are refused)"));
    };
    if !is_object_id(old) || !is_object_id(new) || old.len() != new.len() {
        return Err(refuse("a line in it is not an update of a ref (shallow and signed pushes are refused)"));
    }
    if name != allowed {
        let refname = name.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(Denial::PushRef { refname, allowed: allowed.to_owned() });
    }
    if new.bytes().all(|b| b == b'0') {
        return Err(refuse("it deletes the branch"));
    }
    Ok(())
}

/// Push options make things happen on the far side (a merge, a skipped check).
fn check_capabilities(capabilities: &[u8]) -> Result<(), Denial> {
    let refuse = |detail: &str| Err(Denial::PushUnreadable { detail: detail.to_owned() });
    let Some(text) = capabilities.strip_prefix(&[0]) else { return Ok(()) };
    if text.contains(&0) {
        return refuse("its capabilities have a NUL");
    }
    for word in text.split(|b| b.is_ascii_whitespace()) {
        if word.starts_with(b"push-options") {
            return refuse("it has push options");
        }
        if word.starts_with(b"push-cert") {
            return refuse("it is signed");
        }
    }
    Ok(())
}

fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: &str = "refs/heads/chargehand/1";
    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn pkt(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }

    fn update(name: &str) -> String {
        pkt(&format!("{OLD} {NEW} {name}\0 report-status side-band-64k agent=git/2"))
    }

    #[test]
    fn only_the_one_branch_is_updated() {
        let push = format!("{}0000PACK…", update(OURS));
        let length = push.find("PACK").unwrap();
        assert_eq!(read_commands(push.as_bytes(), OURS), Ok(Commands::Allowed { length }));
        let other = format!("{}0000", update("refs/heads/main"));
        assert!(matches!(read_commands(other.as_bytes(), OURS), Err(Denial::PushRef { .. })));
        let both = format!("{}{}0000", update(OURS), pkt(&format!("{OLD} {NEW} refs/tags/v1")));
        assert!(matches!(read_commands(both.as_bytes(), OURS), Err(Denial::PushRef { .. })));
        let longer = format!("{}0000", update(&format!("{OURS}/x")));
        assert!(matches!(read_commands(longer.as_bytes(), OURS), Err(Denial::PushRef { .. })));
        assert_eq!(read_commands(b"0000", OURS), Ok(Commands::Allowed { length: 4 }), "git's probe has no commands");
    }

    #[test]
    fn whatever_else_a_push_can_say_is_refused() {
        let refused = [
            pkt(&format!("{OLD} {ZERO} {OURS}")),
            pkt(&format!("{OLD} {NEW} {OURS}\0 push-options")),
            pkt(&format!("{OLD} {NEW} {OURS}\0 push-cert=x")),
            pkt(&format!("shallow {OLD}")),
            pkt("push-cert\0 report-status"),
            pkt(&format!("{OLD} {NEW}")),
            pkt(&format!("{OLD}  {OURS}")),
            format!("{}{}", update(OURS), update(OURS)),
            "0004".into(),
            "0001".into(),
            "00-5x".into(),
            "+005x".into(),
            "PACK".into(),
        ];
        for push in refused {
            let found = read_commands(format!("{push}0000").as_bytes(), OURS);
            assert!(matches!(found, Err(Denial::PushUnreadable { .. })), "{push}: {found:?}");
        }
    }

    #[test]
    fn requests_to_a_repository_are_the_five_of_the_smart_protocol() {
        let rule = GitRule::new("/me/repo.git", Some("chargehand/1")).unwrap();
        let reads = GitRule::new("/me/repo", None).unwrap();
        let classify = |rule: &GitRule, method: Method, path: &str, query: Option<&str>| {
            rule.classify(&method, &CleanPath::parse(path, query).unwrap())
        };
        let upload = Some("service=git-upload-pack");
        let receive = Some("service=git-receive-pack");
        assert_eq!(classify(&rule, Method::GET, "/me/repo/info/refs", upload), Some(GitRequest::Read));
        assert_eq!(classify(&rule, Method::GET, "/me/repo.git/info/refs", receive), Some(GitRequest::Announce));
        assert_eq!(classify(&rule, Method::POST, "/me/repo.git/git-receive-pack", None), Some(GitRequest::Push));
        assert_eq!(classify(&reads, Method::POST, "/me/repo/git-upload-pack", None), Some(GitRequest::Read));
        assert_eq!(classify(&reads, Method::GET, "/me/repo/info/refs", receive), None);
        assert_eq!(classify(&reads, Method::POST, "/me/repo/git-receive-pack", None), None);
        assert_eq!(classify(&rule, Method::GET, "/me/repo2/info/refs", upload), None);
        assert_eq!(classify(&rule, Method::GET, "/me/repo/info/refs", Some("service=git-upload-pack&x=1")), None);
        assert_eq!(classify(&rule, Method::GET, "/me/repo/settings", None), None);
        assert_eq!(classify(&rule, Method::GET, "/me/repo%2finfo/refs", upload), None);
    }

    proptest! {
        #[test]
        fn a_push_in_pieces_is_read_as_one(cut in 0usize..200) {
            let push = format!("{}0000PACK", update(OURS));
            let cut = cut.min(push.len());
            let part = read_commands(&push.as_bytes()[..cut], OURS).unwrap();
            let whole = push.len() - 4;
            let expect = if cut >= whole { Commands::Allowed { length: whole } } else { Commands::NeedMore };
            prop_assert_eq!(part, expect);
        }

        #[test]
        fn no_bytes_break_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_commands(&body, OURS);
        }
    }
}
