//! Everything that reads bytes from a box: targets, paths, pushes, TLS hellos, streams with secrets.
#![no_main]

use std::sync::LazyLock;

use checks::Checks;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/egress/tests/support/checks.rs"]
mod checks;

static CHECKS: LazyLock<Checks> = LazyLock::new(Checks::new);

fuzz_target!(|data: &[u8]| CHECKS.check(data));
