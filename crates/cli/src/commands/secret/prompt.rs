//! Asking for a value at a terminal without showing it.
//!
//! The terminal gives key by key while this asks: a line that it edits itself ends after 4,096 bytes,
//! and an interrupt would end the program before the terminal is as it was. Absent: stars. They tell
//! whoever looks how long the value is.

use std::io::{BufRead, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use store::Secret;
use store::secrets::MAX_SECRET_BYTES;
use zeroize::Zeroizing;

use crate::failure::{Failure, INTERRUPTED};

const INTERRUPT: u8 = 3;
const END_OF_INPUT: u8 = 4;
const KILL_LINE: u8 = 21;
const ESCAPE: u8 = 27;

/// Gives the terminal back as it was.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Asks on standard error and reads a line from the terminal that is standard input.
pub(super) fn ask(question: &str) -> Result<Secret, Failure> {
    let broken = |error: std::io::Error| Failure::new("prompt", "The value can't be asked for", error.to_string());
    let before = tcgetattr(rustix::stdio::stdin()).map_err(|error| broken(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    let line = {
        let _restored = Restored(before);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &silent).map_err(|error| broken(error.into()))?;
        let mut errors = std::io::stderr().lock();
        let _ = errors.write_all(question.as_bytes());
        let _ = errors.flush();
        line(std::io::stdin().lock())
    };
    let _ = writeln!(std::io::stderr());
    match line.map_err(broken)? {
        Some(value) => Ok(value),
        None => Err(Failure { exit: INTERRUPTED, ..Failure::new("interrupted", "Nothing was stored", "") }),
    }
}

/// Keys up to the end of the line; `None` if the user gave up.
fn line(input: impl BufRead) -> std::io::Result<Option<Secret>> {
    // Room from the start: a buffer that grows would leave the value behind.
    let mut typed = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 2));
    for key in input.bytes() {
        match key? {
            b'\r' | b'\n' => break,
            END_OF_INPUT if !typed.is_empty() => break,
            INTERRUPT | END_OF_INPUT => return Ok(None),
            KILL_LINE => typed.clear(),
            // A character of several bytes goes as a whole.
            0x7f | 8 => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Arrow keys and the like would end up in the value unseen.
            ESCAPE => {
                return Err(std::io::Error::other("a key that is no character was pressed; run it again"));
            }
            key if typed.len() <= MAX_SECRET_BYTES => typed.push(key),
            _ => {}
        }
    }
    let text = std::str::from_utf8(&typed).map_err(|_| std::io::Error::other("what was typed is no UTF-8 text"))?;
    Ok(Some(Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> Option<String> {
        line(keys.as_bytes()).unwrap().map(|value| value.expose().to_owned())
    }

    #[test]
    fn keys_become_a_line_with_the_corrections_that_were_made() {
        assert_eq!(typed("hunter2\nrest").unwrap(), "hunter2");
        assert_eq!(typed("hunter2\r").unwrap(), "hunter2");
        assert_eq!(typed("huntey\u{7f}r2\n").unwrap(), "hunter2");
        assert_eq!(typed("hüé\u{7f}\u{7f}unter2\n").unwrap(), "hunter2");
        assert_eq!(typed("wrong\u{15}right\n").unwrap(), "right");
        assert_eq!(typed("\u{7f}\u{7f}a\u{4}").unwrap(), "a");
        assert_eq!(typed("\n").unwrap(), "");
        let long = "x".repeat(70_000);
        assert!(typed(&format!("{long}\n")).unwrap().len() > MAX_SECRET_BYTES, "it is not cut to a length that fits");
    }

    #[test]
    fn whoever_gives_up_stores_nothing() {
        assert_eq!(typed("hunter2\u{3}"), None);
        assert_eq!(typed("\u{4}"), None);
        assert!(line("a\u{1b}[A".as_bytes()).is_err());
    }
}
