//! What a sandbox reached or wanted to reach, and the environment in which it may, for people.
//!
//! What passed is summed up by host, what was refused stands line by line. Absent: rules; the
//! egress proxy has decided.

use std::collections::BTreeMap;

use domain::event::EgressRequest;
use domain::step::{EnvironmentChoice, RecipeSource};

use super::words::{bytes, count};
use crate::terminal::{Line, Style};

/// Refused requests that are shown one by one; the rest is counted.
const SHOWN: usize = 8;

/// The environment, where there is something to say about it.
pub fn chosen(environment: &EnvironmentChoice, say: &mut dyn FnMut(Line)) {
    let source = match environment.source {
        RecipeSource::File => ".chargehand/environment.toml",
        RecipeSource::Devcontainer => "devcontainer.json",
        RecipeSource::Derived if environment.needs_build => "the repository's files",
        RecipeSource::Derived => return,
    };
    say(Line::new().dim(format!("  environment: from {source}")));
    if !environment.network.is_empty() {
        say(Line::new().dim(format!("  network: {}", environment.network.join(", "))));
    }
}

/// What passed and what did not.
pub fn reported(requests: &[EgressRequest], unlisted: u64, say: &mut dyn FnMut(Line)) {
    let mut passed: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut refused = 0;
    for request in requests {
        let Some(why) = &request.denied else {
            let sum = passed.entry(request.host.as_str()).or_default();
            sum.0 += 1;
            sum.1 = sum.1.saturating_add(request.up_bytes).saturating_add(request.down_bytes);
            continue;
        };
        refused += 1;
        if refused <= SHOWN {
            let what = if request.host.is_empty() {
                "a request that can't be read".to_owned()
            } else {
                format!("{} {}:{}{}", request.method, request.host, request.port, request.path)
            };
            say(Line::new().with(Style::Bad, "  ✗ not let out: ").text(what).dim(format!(": {why}")));
        }
    }
    for (host, (requests, moved)) in passed {
        let plural = if requests == 1 { "" } else { "s" };
        say(Line::new().dim(format!("  ⇅ {host}: {} request{plural}, {}", count(requests), bytes(moved))));
    }
    let more = (refused - refused.min(SHOWN)) as u64 + unlisted;
    if more > 0 {
        say(Line::new().dim(format!("  ⇅ {} more requests are not shown", count(more))));
    }
}
