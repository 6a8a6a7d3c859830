//! The launcher and the hand as a program of their own, for this crate's tests and measurements.
//! The product's binary dispatches the same two words. Absent: everything else.

fn main() {
    let mut args = std::env::args_os().skip(1);
    let word = args.next().unwrap_or_default();
    let rest: Vec<std::ffi::OsString> = args.collect();
    let code = match word.to_str() {
        Some(sandbox::local::LAUNCHER_WORD) => sandbox::local::launcher_main(),
        Some(sandbox::local::HAND_WORD) => hand::main(&rest),
        _ => 2,
    };
    std::process::exit(code);
}
