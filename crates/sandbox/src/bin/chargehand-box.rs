//! The launcher as a program of its own, for this crate's tests. The product's binary dispatches the
//! same word. Absent: everything else.

fn main() {
    let word = std::env::args_os().nth(1).unwrap_or_default();
    let known = word.to_str() == Some(sandbox::local::LAUNCHER_WORD);
    std::process::exit(if known { sandbox::local::launcher_main() } else { 2 });
}
