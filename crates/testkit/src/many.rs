//! Repositories with very many files, made in seconds by `git fast-import`.
//!
//! Absent: a work tree. The commit exists, the files on disk don't; tests that need them check out.

use std::fmt::Write as _;

use crate::repo::{Repo, must};

impl Repo {
    /// Commits `count` small files `dir0000/file00000.txt` … (1,000 to a folder) to a branch and
    /// gives the commit's id. The work tree and the index stay as they were, so use a repository
    /// whose current branch is another one, or a bare copy.
    pub fn many_files(&self, branch: &str, count: usize) -> String {
        let mut stream = String::with_capacity(count * 90);
        stream.push_str("blob\nmark :1\ndata 12\nsame content");
        stream.push('\n');
        let _ = write!(
            stream,
            "commit refs/heads/{branch}\ncommitter Test Author <author@example.invalid> 1700000000 +0000\ndata 10\nmany files\n"
        );
        for number in 0..count {
            // Every tenth file has its own content; one shared blob would make checkouts unreal.
            if number % 10 == 0 {
                let text = format!("file number {number}\n");
                let _ = write!(
                    stream,
                    "M 100644 inline dir{:04}/file{number:05}.txt\ndata {}\n{text}\n",
                    number / 1000,
                    text.len()
                );
            } else {
                let _ = writeln!(stream, "M 100644 :1 dir{:04}/file{number:05}.txt", number / 1000);
            }
        }
        stream.push_str("done\n");
        let mut command = self.command();
        command.args(["fast-import", "--quiet", "--done", "--force"]);
        must(command, Some(stream.as_bytes()));
        self.head_of(branch).expect("fast-import made the branch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_all_in_the_commit() {
        let repo = Repo::new();
        let commit = repo.many_files("big", 2_500);
        let listed = repo.git(&["ls-tree", "-r", "--name-only", &commit]);
        assert_eq!(listed.lines().count(), 2_500);
        assert_eq!(repo.read_at(&commit, "dir0002/file02490.txt").unwrap(), b"file number 2490\n");
    }
}
