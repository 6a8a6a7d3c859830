//! What must be proved, and what recorded evidence amounts to.
//!
//! ```text
//! base commit's .chargehand/config.toml ─parse→ RepoConfig ─┐
//! base commit's root folder ────────────detect→ gates ──────┼─choose→ gates of the task
//! contract ─────────────────────────────────────────────────┘            │
//! recorded evidence, the proposed commit ───────────────────────judge────┴→ Judgement
//! ```
//!
//! Pure: no I/O, no clock. Whoever calls hands in the bytes of files *at the base commit*, so that
//! an agent cannot loosen the gates that its own work has to pass. Absent on purpose: running a
//! gate (the orchestrator does, in a clean sandbox), what may land (`policy`), and any way for an
//! agent's word to become evidence.

pub mod config;
pub mod detect;
pub mod judge;
mod text;

use std::collections::BTreeMap;

use domain::evidence::GateSpec;

pub use config::{CONFIG_PATH, ConfigError, GateChoice, RepoConfig, parse};
pub use detect::detect;
pub use judge::judge;

/// Two gates with one name: their evidence could not be told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "two gates are called `{name}`: one comes from {first}, the other from {second}; give the one in the contract another name, or leave it out"
)]
pub struct DuplicateGate {
    /// The name.
    pub name: String,
    /// Where the first comes from.
    pub first: String,
    /// Where the second comes from.
    pub second: String,
}

/// The gates of a task: the repository's own, then those of the contract.
///
/// `config` is the parsed configuration file of the base commit, if it has one; what it says about
/// gates wins over `detected`, also when it says that there are none. `contract`'s gates are always
/// added. Gives an empty list only if nothing was found or the file says `gates = "none"`, and the
/// contract has none either.
///
/// # Errors
/// [`DuplicateGate`] if two gates share a name.
pub fn choose(
    config: Option<&RepoConfig>,
    detected: Vec<GateSpec>,
    contract: &[GateSpec],
) -> Result<Vec<GateSpec>, DuplicateGate> {
    let mut gates = match config.map(|config| &config.gates) {
        None | Some(GateChoice::Detect) => detected,
        Some(GateChoice::NoGates) => Vec::new(),
        Some(GateChoice::Listed(listed)) => listed.clone(),
    };
    gates.extend(contract.iter().cloned().map(|mut gate| {
        if gate.source.is_empty() {
            gate.source = "contract".to_owned();
        }
        gate
    }));
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for gate in &gates {
        if let Some(first) = seen.insert(&gate.name, &gate.source) {
            return Err(DuplicateGate {
                name: gate.name.clone(),
                first: first.to_owned(),
                second: gate.source.clone(),
            });
        }
    }
    Ok(gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(name: &str, source: &str) -> GateSpec {
        GateSpec {
            name: name.to_owned(),
            command: vec!["true".to_owned()],
            required: true,
            time_limit_ms: 1000,
            source: source.to_owned(),
        }
    }

    fn names(gates: &[GateSpec]) -> Vec<&str> {
        gates.iter().map(|gate| gate.name.as_str()).collect()
    }

    #[test]
    fn without_a_file_the_detected_gates_count_and_the_contracts_are_added() {
        let gates = choose(None, vec![gate("cargo-test", "Cargo.toml")], &[gate("audit", "")]).unwrap();
        assert_eq!(names(&gates), ["cargo-test", "audit"]);
        assert_eq!(gates[1].source, "contract");
    }

    #[test]
    fn what_the_file_lists_wins_over_what_is_detected() {
        let config = parse(b"[[gate]]\nname = \"unit\"\ncommand = \"./check\"\n").unwrap();
        let gates = choose(Some(&config), vec![gate("cargo-test", "Cargo.toml")], &[]).unwrap();
        assert_eq!(names(&gates), ["unit"]);
    }

    #[test]
    fn a_file_that_says_none_switches_detection_off_but_not_the_contract() {
        let config = parse(b"gates = \"none\"\n").unwrap();
        let detected = vec![gate("cargo-test", "Cargo.toml")];
        assert_eq!(choose(Some(&config), detected.clone(), &[]).unwrap(), []);
        assert_eq!(names(&choose(Some(&config), detected, &[gate("audit", "")]).unwrap()), ["audit"]);
    }

    #[test]
    fn a_file_without_a_word_on_gates_leaves_detection_on() {
        let config = parse(b"version = 1\n").unwrap();
        assert_eq!(names(&choose(Some(&config), vec![gate("go-test", "go.mod")], &[]).unwrap()), ["go-test"]);
    }

    #[test]
    fn two_gates_of_one_name_are_an_error_that_names_both_sources() {
        let error = choose(None, vec![gate("test", "justfile")], &[gate("test", "")]).unwrap_err().to_string();
        assert!(error.contains("justfile") && error.contains("contract"), "{error}");
    }
}
