//! Attacks that are tests of their rooms, run by name and counted.
//!
//! A name that no longer exists is a failure of the suite, so that a renamed test is not lost.
//! Absent: the tests.

use anyhow::bail;

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
    (
        "S3",
        "two hundred thousand changed inputs to the parsers of the way out",
        "egress",
        "fuzz",
        "nothing_that_must_hold_breaks_under_changed_inputs",
    ),
    (
        "S3",
        "whatever is sent to a door",
        "egress",
        "fuzz",
        "whatever_is_sent_to_a_door_only_listed_names_are_ever_resolved",
    ),
    ("S2", "a push to another branch", "egress", "git", "git_can_push_nothing_else"),
    (
        "S2",
        "a push to a repository that is only to be read",
        "egress",
        "git",
        "without_a_branch_a_repository_is_read_only",
    ),
    (
        "S2",
        "a push forged in the middle of its commands",
        "egress",
        "git",
        "a_forged_push_is_refused_in_the_middle_of_its_commands",
    ),
    (
        "S2",
        "a publication to a registry that is only to be read",
        "egress",
        "programs",
        "curl_passes_by_its_variables_and_a_publish_does_not",
    ),
    (
        "S1",
        "a placeholder where its secret is not bound, by TLS too",
        "egress",
        "secrets",
        "a_placeholder_anywhere_else_is_a_violation",
    ),
    (
        "S1",
        "a secret hidden in an encoding of the answer",
        "egress",
        "secrets",
        "an_answer_that_hides_the_secret_in_an_encoding_does_not_pass",
    ),
    (
        "S1",
        "a secret split over many chunks of the answer",
        "egress",
        "secrets",
        "a_value_split_over_many_chunks_is_taken_out",
    ),
    ("S1", "a secret in a path that is recorded", "egress", "secrets", "a_known_value_in_a_path_is_not_in_the_record"),
    (
        "S5",
        "the server's own addresses behind a listed name",
        "egress",
        "passing",
        "the_servers_own_addresses_are_closed_to_every_entry",
    ),
    (
        "S5",
        "a name that changes its mind",
        "egress",
        "passing",
        "a_name_that_changes_its_mind_is_judged_each_time_and_dialled_as_judged",
    ),
    (
        "S34",
        "all connections of a door, from one box",
        "egress",
        "passing",
        "a_box_that_hogs_its_connections_is_refused_and_only_that_box",
    ),
    (
        "S34",
        "heads without end and silence",
        "egress",
        "passing",
        "heads_without_end_and_silence_do_not_hold_a_connection",
    ),
    ("S34", "more bytes than a box may move", "egress", "passing", "a_box_that_has_used_up_its_bytes_moves_no_more"),
    (
        "S11",
        "an archive that wants out",
        "sandbox",
        "environment",
        "imports::an_archive_that_wants_out_is_refused_by_name_and_nothing_of_it_is_left",
    ),
    (
        "S11",
        "an archive with devices, set-user-id programs and overlay marks",
        "sandbox",
        "environment",
        "imports::what_gives_power_is_left_out_and_counted",
    ),
    ("S11", "archives that are bombs", "sandbox", "environment", "imports::bombs_are_stopped_while_they_grow"),
    (
        "S11",
        "a root folder with devices and pipes",
        "sandbox",
        "environment",
        "imports::a_folder_becomes_a_layer_and_its_devices_pipes_and_rights_do_not",
    ),
    (
        "S11",
        "archives made at random",
        "sandbox",
        "environment",
        "imports::whatever_an_archive_says_nothing_outside_changes_and_no_power_comes_in",
    ),
    (
        "S11",
        "names in the documents of an image",
        "sandbox",
        "environment",
        "images::names_in_documents_lead_nowhere_but_to_blobs",
    ),
    (
        "S11",
        "an image with another content than it says",
        "sandbox",
        "environment",
        "images::a_blob_with_other_content_is_refused_and_so_is_a_layout_that_is_none",
    ),
    (
        "S22",
        "setup that hangs, floods, eats memory or forks without end",
        "sandbox",
        "environment",
        "builds::setup_that_hangs_floods_eats_memory_or_forks_without_end_fails_by_name_and_leaves_nothing",
    ),
    (
        "S22",
        "a daemon that setup leaves for the tasks",
        "sandbox",
        "environment",
        "builds::a_daemon_that_setup_leaves_is_named_and_is_in_no_fork",
    ),
    (
        "S1",
        "a secret of setup in the snapshot",
        "sandbox",
        "environment",
        "builds::a_value_that_came_into_the_box_all_the_same_is_found_in_any_form_and_nothing_is_kept",
    ),
    (
        "S1",
        "a stored secret in any file of the data folder",
        "cli",
        "secrets",
        "after_a_secret_was_set_changed_and_sealed_anew_no_file_holds_its_value",
    ),
    (
        "S1",
        "the database on another machine",
        "cli",
        "secrets",
        "a_database_on_another_machine_says_that_its_key_is_missing",
    ),
    (
        "S12",
        "a gate that the agent's own change loosens",
        "cli",
        "spine",
        "an_agent_that_loosens_the_gate_in_its_own_change_is_still_held_to_the_base_commits_gate",
    ),
];

pub fn attack(report: &mut Report) -> anyhow::Result<()> {
    let mut built = None;
    let mut named: Vec<&Named> = NAMED.iter().collect();
    named.sort_by_key(|(_, _, package, target, _)| (*package, *target));
    for (id, what, package, target, test) in named {
        let mut command = proc::cargo();
        command.args(["test", "--quiet", "--package", package, "--test", target]);
        if built != Some((package, target)) {
            eprintln!("attack: tests of {package}, {target}");
            let mut build = proc::cargo();
            build.args(["test", "--quiet", "--no-run", "--package", package, "--test", target]);
            if !proc::passed_through(&mut build)? {
                bail!("`{}` failed", proc::shown(&build));
            }
            built = Some((package, target));
        }
        // One at a time: a notice that a test can't run here does not say whose it is.
        command.args(["--", "--format", "pretty", "--exact", test]);
        let (result, why) = judged(&proc::all_that_it_says(&mut command)?, test);
        let user = if rustix::process::geteuid().is_root() { "root" } else { "user" };
        let detail = format!("{package}: {test}{why}");
        report.add(Row { id: (*id).into(), what: (*what).into(), user: user.into(), result, detail });
    }
    Ok(())
}

/// What a run of one test says of it.
fn judged(printed: &str, test: &str) -> (Fate, &'static str) {
    // A test that can't run here gives notice and passes. In two halves, so that this file does not say it.
    let notice = ["NOT ", "RUN: "].concat();
    let counted = |what: &str| printed.lines().any(|line| line.starts_with("test result:") && line.contains(what));
    if !printed.contains(&format!("test {test} ")) {
        (Fate::Broken, ": there is no such test")
    } else if counted(" 1 ignored") {
        (Fate::Skipped, ": ignored")
    } else if !counted(" 1 passed; 0 failed") {
        (Fate::Open, ": failed")
    } else if printed.contains(&notice) {
        (Fate::Skipped, ": it, or a part of it, can't run here")
    } else {
        (Fate::Blocked, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_failed_is_an_open_attack_and_a_missing_one_breaks_the_suite() {
        let result = |counts: &str| format!("\ntest result: ok. {counts}; 0 measured; 7 filtered out\n");
        let passed = result("1 passed; 0 failed; 0 ignored");
        let notice = ["NOT ", "RUN: "].concat();
        for (printed, fate) in [
            (format!("test a ... ok{passed}"), Fate::Blocked),
            (format!("test a ... FAILED{}", result("0 passed; 1 failed; 0 ignored")), Fate::Open),
            (format!("test a ... ignored{}", result("0 passed; 0 failed; 1 ignored")), Fate::Skipped),
            (format!("test a ... {notice}no git here\nok{passed}"), Fate::Skipped),
            (result("0 passed; 0 failed; 0 ignored"), Fate::Broken),
            (format!("test ab ... ok{passed}"), Fate::Broken),
            (String::new(), Fate::Broken),
        ] {
            assert_eq!(judged(&printed, "a").0, fate, "{printed}");
        }
    }
}
