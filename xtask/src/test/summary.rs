//! What a run of tests amounts to, read from its output.

use std::collections::BTreeMap;

/// How a test says that it could not run here. In two halves, so that this file does not say it.
const NOTICE: (&str, &str) = ("NOT ", "RUN: ");

/// Counts over all `test result:` lines, and what was not run.
#[derive(Debug, Default)]
pub struct Summary {
    passed: u32,
    failed: u32,
    ignored: u32,
    /// Each notice, and how often it was given.
    not_run: BTreeMap<String, u32>,
}

impl Summary {
    /// Reads one line of output.
    pub fn read_line(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(counts) = line.strip_prefix("test result:") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
            self.ignored += count(counts, "ignored");
            return;
        }
        let notice = format!("{}{}", NOTICE.0, NOTICE.1);
        // With one thread the harness has already written `test name ... ` on the line.
        let after =
            line.strip_prefix(&notice).or_else(|| line.split_once(&format!(" ... {notice}")).map(|(_, text)| text));
        if let Some(text) = after {
            *self.not_run.entry(text.trim().to_owned()).or_default() += 1;
        }
    }

    /// Both together.
    pub fn plus(mut self, other: Self) -> Self {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        for (text, times) in other.not_run {
            *self.not_run.entry(text).or_default() += times;
        }
        self
    }

    /// The run failed as a whole, so something in it did.
    pub fn at_least_one_failed(&mut self) {
        self.failed = self.failed.max(1);
    }

    fn not_run_count(&self) -> u32 {
        self.not_run.values().sum()
    }

    /// Tests that ran and passed. One that gave notice returned early, so the harness took it for a pass.
    pub fn passed(&self) -> u32 {
        self.passed.saturating_sub(self.not_run_count())
    }

    /// Tests that failed.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// The list of what was not run, then the one plain line. Tidy counts as one more failure if it has findings.
    pub fn render(&self, untidy: usize) -> String {
        let mut text = String::new();
        if !self.not_run.is_empty() {
            text.push_str("not run on this machine:\n");
            for (notice, times) in &self.not_run {
                let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
                text.push_str(&format!("  {notice}{often}\n"));
            }
        }
        let failed = self.failed + u32::from(untidy > 0);
        text + &format!("{} passed, {failed} failed, {} skipped", self.passed(), self.ignored + self.not_run_count())
    }
}

/// The number before a word, as in `2 passed;`.
fn count(counts: &str, word: &str) -> u32 {
    let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
    words
        .windows(2)
        .find_map(|pair| match pair {
            [number, name] if *name == word => number.parse().ok(),
            _ => None,
        })
        .unwrap_or(0)
}

fn without_colours(line: &str) -> String {
    let mut pieces = line.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |mut text, piece| {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).map_or(piece.len(), |at| at + 1);
        text.push_str(piece.get(end..).unwrap_or_default());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &str) -> String {
        format!("{}{}{text}", NOTICE.0, NOTICE.1)
    }

    fn rendered(lines: &[String], untidy: usize) -> String {
        let mut summary = Summary::default();
        lines.iter().for_each(|line| summary.read_line(line));
        summary.render(untidy)
    }

    #[test]
    fn all_result_lines_are_added_up_also_coloured_ones() {
        let lines = [
            "running 3 tests".to_owned(),
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s".to_owned(),
            "test result: \u{1b}[31mFAILED\u{1b}[m. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out"
                .to_owned(),
        ];
        assert_eq!(rendered(&lines, 0), "43 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn what_was_not_run_is_listed_and_counts_as_skipped_not_as_passed() {
        let lines = [
            notice("no user namespaces here"),
            format!("test a::b ... {}", notice("no docker")),
            notice("no user namespaces here\n"),
            "test result: ok. 5 passed; 0 failed; 1 ignored;".to_owned(),
        ];
        assert_eq!(
            rendered(&lines, 0),
            "not run on this machine:\n  no docker\n  no user namespaces here (2 times)\n2 passed, 0 failed, 4 skipped"
        );
    }

    #[test]
    fn a_line_that_only_speaks_of_it_is_no_notice() {
        assert_eq!(rendered(&[format!("see {}", notice("x"))], 0), "0 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn findings_of_tidy_are_one_failure_in_the_last_line() {
        assert!(
            rendered(&["test result: ok. 5 passed; 0 failed; 0 ignored;".to_owned()], 3)
                .ends_with("5 passed, 1 failed, 0 skipped")
        );
    }
}
