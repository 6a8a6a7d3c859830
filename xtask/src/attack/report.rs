//! What the attacks came to: a row each, and the counts.
//!
//! Absent: running them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its number in the published list (`S1`, `H3`).
    pub id: String,
    /// What was tried.
    pub what: String,
    /// As whom: `root`, `user`.
    #[serde(rename = "as")]
    pub user: String,
    /// What became of it.
    pub result: Fate,
    /// The answer that it got, or why it was skipped.
    pub detail: String,
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It worked.
    Open,
    /// What must work beside it does not: a failure of the suite.
    Broken,
    /// It could not be tried here.
    Skipped,
    /// It got nowhere.
    Blocked,
}

/// All attacks of one run.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// For machines.
#[derive(Debug, Serialize)]
pub struct Document<'r> {
    attacks: usize,
    blocked: usize,
    skipped: usize,
    open: usize,
    broken: usize,
    rows: &'r [Row],
}

impl Report {
    /// One more attack.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// All so far.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn count(&self, fate: Fate) -> usize {
        self.rows.iter().filter(|row| row.result == fate).count()
    }

    /// Whether nothing was open and no control failed, and anything was tried at all.
    pub fn holds(&self) -> bool {
        self.count(Fate::Open) == 0 && self.count(Fate::Broken) == 0 && self.count(Fate::Blocked) > 0
    }

    /// For machines.
    pub fn document(&self) -> Document<'_> {
        Document {
            attacks: self.rows.len(),
            blocked: self.count(Fate::Blocked),
            skipped: self.count(Fate::Skipped),
            open: self.count(Fate::Open),
            broken: self.count(Fate::Broken),
            rows: &self.rows,
        }
    }

    /// For people: every attack that was not blocked, counts by number, and the sum.
    pub fn page(&self) -> String {
        let mut by_id: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for row in &self.rows {
            let (all, blocked) = by_id.entry(&row.id).or_default();
            *all += 1;
            *blocked += usize::from(row.result == Fate::Blocked);
        }
        let mut text = String::from("attacks by number: blocked of all\n");
        for (id, (all, blocked)) in by_id {
            text.push_str(&format!("  {id:<5}{blocked:>4} of {all}\n"));
        }
        let mut rest: Vec<&Row> = self.rows.iter().filter(|row| row.result != Fate::Blocked).collect();
        rest.sort_by_key(|row| row.result);
        for row in rest {
            let fate = match row.result {
                Fate::Open => "OPEN",
                Fate::Broken => "BROKEN",
                _ => "skipped",
            };
            text.push_str(&format!("  {fate:<8}{:<5}{} (as {}): {}\n", row.id, row.what, row.user, row.detail));
        }
        let sum = self.document();
        text + &format!(
            "{} attacks: {} blocked, {} skipped, {} open, {} broken\n",
            sum.attacks, sum.blocked, sum.skipped, sum.open, sum.broken
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, result: Fate) -> Row {
        Row { id: id.into(), what: "try".into(), user: "root".into(), result, detail: "why".into() }
    }

    fn report(rows: &[Row]) -> Report {
        Report { rows: rows.to_vec() }
    }

    #[test]
    fn what_could_not_be_tried_is_named_and_never_counts_as_blocked() {
        let report = report(&[row("S1", Fate::Blocked), row("S1", Fate::Skipped)]);
        let json = serde_json::to_value(report.document()).unwrap();
        assert_eq!((&json["attacks"], &json["blocked"], &json["skipped"]), (&2.into(), &1.into(), &1.into()));
        assert!(report.holds());
        let page = report.page();
        assert!(page.contains("S1      1 of 2") && page.contains("skipped S1   try (as root): why"), "{page}");
    }

    #[test]
    fn an_open_attack_or_a_failed_control_or_no_attack_at_all_is_a_failure() {
        for bad in [Fate::Open, Fate::Broken] {
            assert!(!report(&[row("S1", Fate::Blocked), row("S2", bad)]).holds());
        }
        assert!(!report(&[]).holds() && !report(&[row("S1", Fate::Skipped)]).holds());
    }

    #[test]
    fn a_line_of_the_driver_is_a_row() {
        let line = r#"{"id":"H1","what":"clone3","as":"user","result":"blocked","detail":"38"}"#;
        let row: Row = serde_json::from_str(line).unwrap();
        assert_eq!((row.result, row.user.as_str()), (Fate::Blocked, "user"));
    }
}
