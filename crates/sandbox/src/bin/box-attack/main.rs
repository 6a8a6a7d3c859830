//! Does its worst from inside a box, for the tests: each attack prints `name: blocked ERRNO` or
//! `name: OPEN`, with `--json` one line of JSON each. Other words make trouble of another sort
//! (processes, memory, files). Absent: any use outside of tests.
#![expect(unsafe_code, reason = "asks the kernel for what no safe wrapper offers")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test program")]

mod attacks;
mod files;
mod sockets;
mod trouble;

use std::io::Write as _;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = || args[2].parse().unwrap();
    match args.get(1).map(String::as_str) {
        Some("attacks") => {
            let json = args.get(2).is_some_and(|word| word == "--json");
            attacks::all().for_each(|attack| say(&attack, json));
        }
        Some("processes") => trouble::processes(),
        Some("memory") => trouble::memory(number()),
        Some("open-files") => trouble::open_files(),
        Some("large-file") => trouble::large_file(number()),
        Some("bomb") => trouble::bomb(false),
        Some("scatter") => trouble::bomb(true),
        Some("nest") => trouble::nest(number()),
        Some("hide") => trouble::hide(&args[2]),
        _ => std::process::exit(2),
    }
    let _ = std::io::stdout().flush();
}

fn say(attack: &attacks::Attack, json: bool) {
    let attacks::Attack { kind, name, answer } = attack;
    if json {
        let (blocked, how) = (answer.is_err(), answer.err().unwrap_or(0));
        println!("{}", serde_json::json!({ "kind": kind, "attack": name, "blocked": blocked, "errno": how }));
    } else {
        let verdict = answer.map_or_else(|errno| format!("blocked {errno}"), |()| "OPEN".to_owned());
        println!("{kind}: {name}: {verdict}");
    }
}
