//! Which processes belong to a command.
//!
//! A process belongs to it if it descends from the command's leader, is in its session or process
//! group, carries its mark ([`crate::wire::EXEC_MARK`]) in its first environment, or is an orphan
//! without any mark that started later than the leader (a process that wiped its environment and
//! let itself be adopted). The last rule may also take such a process of another command: whoever
//! hides takes that risk. Absent: cgroups, which a box need not have.

use std::collections::{HashMap, HashSet};
use std::fs;

use crate::wire::EXEC_MARK;

/// One line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    /// Clock ticks after boot.
    started: u64,
    dead: bool,
}

/// What is known of the command.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    /// Its id.
    pub exec_id: &'a str,
    /// The pid of its first process.
    pub leader: i32,
    /// When that process started, in clock ticks after boot.
    pub started: u64,
}

/// When a process started, in clock ticks after boot.
pub fn start_of(pid: i32) -> Option<u64> {
    Some(parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?.started)
}

/// The pids of all living processes of a command.
pub fn members(root: Root<'_>) -> Vec<i32> {
    let table = processes();
    let own = i32::try_from(std::process::id()).unwrap_or(1);
    choose(&table, own, root, mark_of)
}

/// The decision, apart from where its facts come from.
fn choose(table: &[Process], own: i32, root: Root<'_>, mark: impl Fn(i32) -> Option<String>) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(process.pid);
    }
    // A pid that was used again after the leader ended says nothing about its group or session.
    let reused = table.iter().any(|p| p.pid == root.leader && p.started != root.started);
    let mut chosen = HashSet::new();
    let mut open: Vec<i32> = Vec::new();
    for process in table.iter().filter(|p| p.pid != own && p.started >= root.started) {
        let same = !reused && [process.pid, process.group, process.session].contains(&root.leader);
        let orphan = || process.parent == own && process.pid != root.leader;
        let hers = same
            || (orphan()
                && match mark(process.pid) {
                    Some(mark) => mark == root.exec_id,
                    None => !process.dead,
                });
        if hers {
            open.push(process.pid);
        }
    }
    while let Some(pid) = open.pop() {
        if chosen.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    table.iter().filter(|p| !p.dead && chosen.contains(&p.pid)).map(|p| p.pid).collect()
}

/// The whole process table of the box.
fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// Reads one `/proc/PID/stat`; the program's name may hold spaces and brackets.
fn parse(stat: &str) -> Option<Process> {
    let pid = stat.split_once(' ')?.0.parse().ok()?;
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X" | "x");
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, group, session, started, dead })
}

/// The command id that a process was started with.
fn mark_of(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|pair| {
        let value = pair.strip_prefix(EXEC_MARK.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Root<'_> = Root { exec_id: "a", leader: 10, started: 100 };

    fn process(pid: i32, parent: i32, session: i32, started: u64) -> Process {
        Process { pid, parent, group: session, session, started, dead: false }
    }

    fn chosen(table: &[Process], marks: &[(i32, &str)]) -> Vec<i32> {
        choose(table, 1, ROOT, |pid| marks.iter().find(|(p, _)| *p == pid).map(|(_, mark)| (*mark).to_owned()))
    }

    #[test]
    fn descendants_belong_to_the_command_also_in_another_session() {
        let table = [process(10, 1, 10, 100), process(11, 10, 11, 101), process(12, 11, 12, 102)];
        assert_eq!(chosen(&table, &[(10, "a")]), vec![10, 11, 12]);
    }

    #[test]
    fn an_orphan_belongs_by_its_mark_and_another_commands_does_not() {
        let table = [process(10, 1, 10, 100), process(20, 1, 20, 101), process(30, 1, 30, 101)];
        assert_eq!(chosen(&table, &[(10, "a"), (20, "a"), (30, "b")]), vec![10, 20]);
    }

    #[test]
    fn an_orphan_that_wiped_its_mark_belongs_unless_it_is_older_than_the_command() {
        let table = [process(10, 1, 10, 100), process(20, 1, 20, 150), process(5, 1, 5, 50)];
        assert_eq!(chosen(&table, &[(10, "a")]), vec![10, 20]);
    }

    #[test]
    fn a_leaders_pid_that_was_used_again_is_not_the_leader() {
        let table = [process(10, 1, 10, 500)];
        assert_eq!(chosen(&table, &[(10, "b")]), Vec::<i32>::new());
    }

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let read = parse(line).unwrap();
        assert_eq!((read.pid, read.parent, read.session, read.started, read.dead), (7, 1, 7, 4242, false));
    }
}
