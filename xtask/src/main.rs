//! `cargo xtask …`: the upkeep of this repository. `tidy` holds the walls, `test` runs everything,
//! `bench` measures, `attack` does its worst.
//!
//! Deliberately small in dependencies, because it is built before anything else can be checked.
//! Absent: anything that the product needs to run.

mod attack;
mod bench;
mod proc;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  tidy [--write]                 check the walls: edges, storeys, headers, sizes, lints, format
                                 --write rewrites docs/crate-graph.txt first
  test [filter…]                 tidy, then every test of the workspace
       --no-tidy                 tests only
       --fast <crate…>           the library tests of these crates only (inner loop)
  bench engine [--json]          speed and memory of the engine, beside their floors
       --runs <n>                demo runs that the percentiles are taken over (default 20)
       --profile <dev|release>   what to build (default release)
  bench sandbox [--json]         what a box costs, beside floors and bubblewrap
       --quick                   few rounds, without the 5 GB tree and the 400 boxes
       --folder <folder>         where to work (default: in the target folder; 7 GB free, no overlay)
       --only <part>             start, exec, snapshot, fork, git, size or rest; may be given again
       --profile <dev|release>   what to build (default release)
  attack [--json]                attacks on boxes, the way out, git and secrets; fails if one works
       --only <part>             box, egress, canary or tests; may be given again
       --folder <folder>         where to work (default: in the target folder; no overlay, a short path)
       --profile <dev|release>   what to build (default dev)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> anyhow::Result<ExitCode> {
    match words {
        [] | ["help" | "--help" | "-h", ..] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        ["tidy", rest @ ..] => {
            let write = match rest {
                [] => false,
                ["--write"] => true,
                other => anyhow::bail!("tidy does not take `{}`\n\n{USAGE}", other.join(" ")),
            };
            let workspace = proc::Workspace::find()?;
            Ok(if tidy::run(&workspace, write)? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ["test", rest @ ..] => test::run(&test::Options::parse(rest)?),
        ["bench", "engine", rest @ ..] => {
            bench::engine::run(&bench::engine::Options::parse(rest)?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["attack", rest @ ..] => attack::run(&attack::Options::parse(rest)?),
        ["bench", "sandbox", rest @ ..] => {
            bench::sandbox::run(&bench::sandbox::Options::parse(rest)?)?;
            Ok(ExitCode::SUCCESS)
        }
        other => anyhow::bail!("there is no command `{}`\n\n{USAGE}", other.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_or_option_is_an_error_that_shows_the_usage() {
        for words in [&["tydy"][..], &["tidy", "--wirte"], &["bench", "nothing"]] {
            assert!(dispatch(words).unwrap_err().to_string().contains("usage: cargo xtask"), "{words:?}");
        }
    }
}
