//! Attacks that are tests of their rooms, run by name and counted.
//!
//! A name that no longer exists is a failure of the suite, so that a renamed test is not lost.
//! Absent: the tests.

use super::report::{Fate, Report, Row};
use crate::proc;

/// Number, what is tried, package, target, and the test's name.
type Named = (&'static str, &'static str, &'static str, &'static str, &'static str);

const NAMED: &[Named] = &[
    (
        "S6",
        "hooks, filters and monitors in an agent's bundle",
        "forge",
        "importing",
        "nothing_that_an_agent_plants_runs_in_the_hub_or_in_a_later_checkout",
    ),
    (
        "S6",
        "programs planted in the origin's settings",
        "forge",
        "opening",
        "looking_at_an_origin_runs_nothing_that_is_planted_there",
    ),
    (
        "S6",
        "hooks that arrive with a change",
        "forge",
        "landing",
        "hooks_that_arrive_with_a_change_do_not_run_on_the_host",
    ),
    (
        "S7",
        "submodules and links out of the repository",
        "forge",
        "importing",
        "links_out_of_the_repository_and_submodules_are_told",
    ),
    (
        "S7",
        "tree entries that are git's own files",
        "forge",
        "importing",
        "forbidden_tree_entries_are_refused_in_any_commit",
    ),
    (
        "S9",
        "a bundle that names the hub's own references",
        "forge",
        "importing",
        "a_bundle_cannot_name_refs_of_the_hub",
    ),
    ("S9", "bytes that are no bundle", "forge", "importing", "what_is_no_bundle_is_refused"),
    ("S9", "a damaged bundle", "forge", "importing", "a_damaged_bundle_is_refused"),
    ("S9", "a tag for a commit", "forge", "importing", "a_tag_for_a_head_is_refused"),
    ("S11", "a bundle too large or with too many files", "forge", "importing", "limits_on_size_and_number_are_kept"),
    ("S11", "a bundle that unpacks to more than memory", "forge", "importing", "unpacking_stops_at_the_memory_limit"),
    (
        "S23",
        "objects of another task by their names",
        "forge",
        "importing",
        "objects_of_another_task_can_not_be_borrowed_by_naming_them",
    ),
    (
        "S2",
        "a result that does not come after its base",
        "forge",
        "importing",
        "a_result_that_does_not_come_after_the_base_is_refused",
    ),
];

pub fn attack(report: &mut Report) -> anyhow::Result<()> {
    let mut targets: Vec<(&str, &str)> = NAMED.iter().map(|(_, _, package, target, _)| (*package, *target)).collect();
    targets.dedup();
    for (package, target) in targets {
        eprintln!("attack: tests of {package}, {target}");
        let mut command = proc::cargo();
        command.args(["test", "--quiet", "--package", package, "--test", target, "--", "--format", "pretty"]);
        let of_target = NAMED.iter().filter(|named| (named.2, named.3) == (package, target));
        command.arg("--exact").args(of_target.clone().map(|named| named.4));
        // A failed test is an open attack; the command's own failure says nothing more.
        let printed = proc::output_of(&mut command)?;
        for (id, what, _, _, test) in of_target {
            let (result, detail) = judged(&printed, test);
            let detail = format!("{package}: {test}{detail}");
            let user = if rustix::process::geteuid().is_root() { "root" } else { "user" };
            report.add(Row { id: (*id).into(), what: (*what).into(), user: user.into(), result, detail });
        }
    }
    Ok(())
}

/// What the harness says of a test.
fn judged(printed: &str, test: &str) -> (Fate, &'static str) {
    let begin = format!("test {test} ... ");
    let Some(at) = printed.find(&begin) else { return (Fate::Broken, ": there is no such test, or it was not built") };
    let rest = printed.get(at + begin.len()..).unwrap_or_default();
    // A test that can't run here gives notice and passes. In two halves, as this file says it not itself.
    let notice = ["NOT ", "RUN: "].concat();
    let word = rest.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match word {
        "ok" => (Fate::Blocked, ""),
        "ignored" => (Fate::Skipped, ": ignored"),
        said if said.contains(&notice) => (Fate::Skipped, ": it can't run here"),
        _ => (Fate::Open, ": failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_failed_is_an_open_attack_and_a_missing_one_breaks_the_suite() {
        let notice = ["NOT ", "RUN: "].concat();
        let printed = format!(
            "running 4 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ignored\ntest d ... {notice}no git here\nok\n"
        );
        assert_eq!(judged(&printed, "a").0, Fate::Blocked);
        assert_eq!(judged(&printed, "b").0, Fate::Open);
        assert_eq!(judged(&printed, "c").0, Fate::Skipped);
        assert_eq!(judged(&printed, "d").0, Fate::Skipped);
        assert_eq!(judged(&printed, "e").0, Fate::Broken);
    }
}
