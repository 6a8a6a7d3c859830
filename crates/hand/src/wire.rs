//! The messages between brain and hand, as JSON inside [`crate::frame`]s.
//!
//! Names, arguments and paths are bytes on Linux; they travel as a string where they are UTF-8 and
//! as `{"b64": "…"}` where they are not, so nothing is lost. Output and file contents never travel
//! as JSON. Absent: any type that only one side needs.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The protocol's version. The hand answers a hello with its own; the brain decides if it can go on.
pub const PROTOCOL: u32 = 1;

/// The variable by which the hand recognises the processes of one command.
pub const EXEC_MARK: &str = "CHARGEHAND_EXEC";

/// What the brain asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Always first on a connection.
    Hello {
        /// The brain's [`PROTOCOL`].
        protocol: u32,
    },
    /// Run a command, or follow the one that already has this id. Answered by [`Reply::Started`],
    /// output frames, then [`Reply::Ended`].
    Exec(ExecStart),
    /// Follow a command by its id. Answered like `Exec`, or by [`FailureCode::UnknownExec`].
    Attach {
        /// Which command.
        exec_id: String,
    },
    /// The brain has stored the ending: the kept output may go.
    Acknowledge {
        /// Which command.
        exec_id: String,
    },
    /// End a command and all of its processes; answered at once, its followers hear the ending.
    Kill {
        /// Which command.
        exec_id: String,
    },
    /// Send a regular file. Answered by [`Reply::Content`], data frames, then [`Reply::Sent`].
    Read {
        /// Where, absolute or under the working folder.
        #[serde(with = "path_text")]
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// At most so many bytes.
        max_bytes: u64,
        /// Whether the last component may be a symbolic link.
        follow: bool,
    },
    /// Make or replace a regular file, whole or not at all. `size` bytes of data frames follow.
    Write {
        /// Where; missing folders are made.
        #[serde(with = "path_text")]
        path: PathBuf,
        /// Bytes that follow.
        size: u64,
        /// Permission bits; without it an existing file keeps its own and a new one gets 0644.
        mode: Option<u32>,
    },
    /// The entries of a folder, sorted by name.
    List {
        /// Which folder.
        #[serde(with = "path_text")]
        path: PathBuf,
        /// At most so many.
        max_entries: u32,
    },
    /// One entry, a symbolic link not followed.
    Stat {
        /// Which.
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// End every process (TERM, then KILL after the grace), then the box.
    Shutdown {
        /// Milliseconds between TERM and KILL.
        grace_ms: u64,
    },
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStart {
    /// Names this run for ever; the same id never runs twice.
    pub exec_id: String,
    /// Program and arguments. The program is looked up in `PATH`.
    #[serde(with = "os_list")]
    pub argv: Vec<OsString>,
    /// Added to the box's built environment.
    #[serde(with = "os_pairs")]
    pub env: Vec<(OsString, OsString)>,
    /// Working folder; the box's own if absent.
    #[serde(with = "path_option", default)]
    pub cwd: Option<PathBuf>,
    /// Wall time after which the command's processes are ended.
    pub time_limit_ms: u64,
    /// Bytes of stdout and stderr together after which they are ended.
    pub output_cap_bytes: u64,
    /// Milliseconds between TERM and KILL.
    pub grace_ms: u64,
}

/// What the hand answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// To the hello.
    Hello {
        /// The hand's [`PROTOCOL`].
        protocol: u32,
        /// Its release, for people.
        release: String,
    },
    /// The command runs or ran; its output follows from the first byte.
    Started {
        /// True if it was started by an earlier request.
        repeated: bool,
    },
    /// The command is over and so are its processes, unless it left some behind on purpose.
    Ended(ExecOutcome),
    /// File bytes follow.
    Content {
        /// The whole file's size in bytes.
        file_bytes: u64,
        /// Its permission bits.
        mode: u32,
    },
    /// The last data frame was sent; this many bytes in all.
    Sent {
        /// Bytes sent.
        bytes: u64,
    },
    /// The file is in place.
    Written {
        /// Bytes written.
        bytes: u64,
    },
    /// A folder's entries.
    Entries {
        /// Sorted by name.
        entries: Vec<Entry>,
        /// True if there were more than asked for.
        truncated: bool,
    },
    /// One entry.
    Stat {
        /// The entry.
        entry: Entry,
    },
    /// Done.
    Done,
    /// The request failed; the connection may go on.
    Failed(Failure),
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    /// Why.
    pub ended: Ended,
    /// Wall time in milliseconds from start to ending.
    pub duration_ms: u64,
    /// Bytes of stdout that were kept.
    pub stdout_bytes: u64,
    /// Bytes of stderr that were kept.
    pub stderr_bytes: u64,
    /// True if output is no longer held: the run was acknowledged before, or others after it kept
    /// more than a box keeps.
    #[serde(default)]
    pub output_dropped: bool,
}

/// Why a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Ended {
    /// It exited by itself.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// A signal that was not the hand's ended it.
    Signaled {
        /// Signal number.
        signal: i32,
    },
    /// The time limit passed.
    TimedOut,
    /// It wrote more than the cap; what was kept is exactly the cap.
    OutputCapReached,
    /// The brain asked for its end.
    Killed,
    /// The kernel ended one of its processes because the box's memory limit was reached. The hand
    /// cannot see this; whoever holds the box's limits says it.
    OutOfMemory,
    /// It failed, and meanwhile the kernel refused a process because the box's limit was reached. The
    /// hand cannot see this; whoever holds the box's limits says it.
    TooManyProcesses,
    /// It failed, and meanwhile the box's files reached its limit on disk space. The hand cannot see
    /// this; whoever holds the box's limits says it.
    DiskFull,
    /// The kernel ended it because a file grew past the limit for one file.
    FileTooLarge,
    /// The program could not be started at all.
    NotStarted {
        /// For the person who reads it.
        message: String,
    },
}

/// A file, folder, link or other thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Last component of its path.
    #[serde(with = "os_text")]
    pub name: OsString,
    /// What it is.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people.
    pub message: String,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// No such file or folder.
    NotFound,
    /// Not a regular file (a folder, link, device, pipe or socket).
    NotRegular,
    /// Not a folder.
    NotFolder,
    /// Permission denied, or a read-only place.
    Denied,
    /// No space, or too many files.
    NoSpace,
    /// No command has this id.
    UnknownExec,
    /// A command with this id exists, and it is another one.
    ExecConflict,
    /// Not understood.
    BadRequest,
    /// Something else went wrong.
    Io,
}

/// A byte string on the wire.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Coded { b64: String },
}

impl Text {
    fn of(text: &std::ffi::OsStr) -> Self {
        use base64::Engine as _;
        use std::os::unix::ffi::OsStrExt as _;
        match text.to_str() {
            Some(plain) => Self::Plain(plain.to_owned()),
            None => Self::Coded { b64: base64::engine::general_purpose::STANDARD.encode(text.as_bytes()) },
        }
    }

    fn os(self) -> Result<OsString, String> {
        use base64::Engine as _;
        use std::os::unix::ffi::OsStringExt as _;
        match self {
            Self::Plain(plain) => Ok(plain.into()),
            Self::Coded { b64 } => base64::engine::general_purpose::STANDARD
                .decode(b64)
                .map(OsString::from_vec)
                .map_err(|source| format!("not base64: {source}")),
        }
    }
}

/// One byte string as a serde field.
pub mod os_text {
    use super::{OsString, Text};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(text: &OsString, serializer: S) -> Result<S::Ok, S::Error> {
        Text::of(text).serialize(serializer)
    }
    /// Reads it.
    ///
    /// # Errors
    /// The deserializer's, or text that is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OsString, D::Error> {
        Text::deserialize(deserializer)?.os().map_err(serde::de::Error::custom)
    }
}

/// A list of byte strings as a serde field.
pub mod os_list {
    use super::{OsString, Text};
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(list: &[OsString], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|text| Text::of(text)))
    }
    /// Reads it.
    ///
    /// # Errors
    /// The deserializer's, or text that is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OsString>, D::Error> {
        let list = Vec::<Text>::deserialize(deserializer)?;
        list.into_iter().map(|text| text.os().map_err(serde::de::Error::custom)).collect()
    }
}

/// Names and values as a serde field.
pub mod os_pairs {
    use super::{OsString, Text};
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes them.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(pairs: &[(OsString, OsString)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(pairs.iter().map(|(name, value)| (Text::of(name), Text::of(value))))
    }
    /// Reads them.
    ///
    /// # Errors
    /// The deserializer's, or text that is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(OsString, OsString)>, D::Error> {
        let pairs = Vec::<(Text, Text)>::deserialize(deserializer)?;
        pairs
            .into_iter()
            .map(|(name, value)| Ok((name.os()?, value.os()?)))
            .collect::<Result<_, String>>()
            .map_err(serde::de::Error::custom)
    }
}

/// A path as a serde field.
pub mod path_text {
    use super::{OsString, PathBuf, Text};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use std::path::Path;

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Text::of(path.as_os_str()).serialize(serializer)
    }
    /// Reads it.
    ///
    /// # Errors
    /// The deserializer's, or text that is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text: OsString = Text::deserialize(deserializer)?.os().map_err(serde::de::Error::custom)?;
        Ok(PathBuf::from(text))
    }
}

/// A path that may be absent, as a serde field.
pub mod path_option {
    use super::{PathBuf, Text};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| Text::of(path.as_os_str())).serialize(serializer)
    }
    /// Reads it.
    ///
    /// # Errors
    /// The deserializer's, or text that is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Option::<Text>::deserialize(deserializer)?
            .map(|text| text.os().map(PathBuf::from).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn a_request_with_names_that_are_not_text_comes_back_whole() {
        let odd = OsString::from_vec(vec![b'a', 0xff, b'/', 0xfe]);
        let request = Request::Exec(ExecStart {
            exec_id: "e".into(),
            argv: vec!["sh".into(), odd.clone()],
            env: vec![("A".into(), odd.clone())],
            cwd: Some(odd.into()),
            time_limit_ms: 1,
            output_cap_bytes: 2,
            grace_ms: 3,
        });
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    #[test]
    fn the_first_generation_of_the_protocol_reads_as_it_was_written() {
        let exec = r#"{"do":"exec","exec_id":"x1","argv":["true"],"env":[["A","b"]],"cwd":"/workspace","time_limit_ms":1000,"output_cap_bytes":10,"grace_ms":5}"#;
        assert!(matches!(serde_json::from_str(exec).unwrap(), Request::Exec(start) if start.exec_id == "x1"));
        let ended =
            r#"{"is":"ended","ended":{"why":"exited","code":3},"duration_ms":1,"stdout_bytes":2,"stderr_bytes":0}"#;
        assert!(matches!(
            serde_json::from_str(ended).unwrap(),
            Reply::Ended(ExecOutcome { ended: Ended::Exited { code: 3 }, output_dropped: false, .. })
        ));
        let failed = r#"{"is":"failed","code":"not_found","message":"m"}"#;
        assert!(matches!(
            serde_json::from_str(failed).unwrap(),
            Reply::Failed(Failure { code: FailureCode::NotFound, .. })
        ));
    }
}
