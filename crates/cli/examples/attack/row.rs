//! One line for each attack: what was tried, as whom, and what became of it.
//!
//! Absent: counting.

use serde_json::json;

/// What became of an attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It got nowhere.
    Blocked,
    /// It worked.
    Open,
    /// It could not be tried here.
    Skipped,
    /// What must work beside it does not, so nothing is known.
    Broken,
}

impl Fate {
    /// Blocked if it holds.
    pub fn blocked_if(holds: bool) -> Self {
        if holds { Self::Blocked } else { Self::Open }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Open => "open",
            Self::Skipped => "skipped",
            Self::Broken => "broken",
        }
    }
}

/// Prints the rows as they come.
#[derive(Debug, Default)]
pub struct Rows {
    printed: usize,
}

impl Rows {
    /// An attack is over. `class` is its number in the list of attacks (`S1`, `H3`).
    pub fn add(&mut self, class: &str, what: &str, fate: Fate, detail: &str) {
        let user = if rustix::process::geteuid().is_root() { "root" } else { "user" };
        self.printed += 1;
        println!("{}", json!({ "id": class, "what": what, "as": user, "result": fate.word(), "detail": detail }));
    }

    /// An attack whose setting may fail: then the suite is broken, with the reason.
    pub fn tried(&mut self, class: &str, what: &str, tried: anyhow::Result<(Fate, String)>) {
        match tried {
            Ok((fate, detail)) => self.add(class, what, fate, &detail),
            Err(error) => self.add(class, what, Fate::Broken, &format!("{error:#}")),
        }
    }

    /// Attacks that can't run here, by name.
    pub fn skipped(&mut self, attacks: &[(&str, &str)], why: &str) {
        for (class, what) in attacks {
            self.add(class, what, Fate::Skipped, why);
        }
    }
}
