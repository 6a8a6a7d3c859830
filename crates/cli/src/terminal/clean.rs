//! Text from outside, made safe to show: pure.
//!
//! Colour codes are dropped. Every other control character, escape, direction mark, invisible or
//! tag character is shown as a visible sign, so that a reader sees that something is there. Absent:
//! any judgement of what the text says.

use std::fmt::Write as _;

/// Longest escape sequence that is looked at as one; a longer one is shown as text.
const MAX_ESCAPE_CHARS: usize = 64;
/// A run of so many invisible characters is shown as a count.
const SHOWN_INVISIBLE: usize = 3;

/// Cleans text that comes in pieces; an escape sequence may be cut anywhere.
#[derive(Debug, Clone, Default)]
pub struct Cleaner {
    escape: String,
    after_cr: bool,
    previous: Option<char>,
    invisible: Vec<char>,
}

impl Cleaner {
    /// Cleans the next piece.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.one(c, &mut out);
        }
        self.show_invisible(&mut out);
        out
    }

    /// What was held back, when no more comes.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.show_invisible(&mut out);
        self.give_up_escape(&mut out);
        if std::mem::take(&mut self.after_cr) {
            out.push('\n');
        }
        out
    }

    fn one(&mut self, c: char, out: &mut String) {
        if !self.escape.is_empty() {
            return self.in_escape(c, out);
        }
        let after_cr = std::mem::take(&mut self.after_cr);
        if after_cr && c != '\n' {
            out.push('\n');
        }
        if is_invisible(c, self.previous) {
            self.invisible.push(c);
            return;
        }
        self.show_invisible(out);
        self.previous = Some(c);
        match c {
            '\x1b' => self.escape.push(c),
            '\n' => out.push('\n'),
            '\r' => self.after_cr = true,
            '\t' => out.push_str("    "),
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + c as u32).unwrap_or('␀')),
            '\x7f' => out.push('␡'),
            '\u{80}'..='\u{9f}' => show_code(c, out),
            _ => out.push(c),
        }
    }

    /// Colour codes (`ESC [ … m`) vanish; anything else is shown.
    fn in_escape(&mut self, c: char, out: &mut String) {
        self.escape.push(c);
        let parameters = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':'));
        let colour_so_far = match self.escape.strip_prefix("\x1b[") {
            None => false,
            Some(rest) => match rest.strip_suffix('m') {
                Some(inside) if parameters(inside) => {
                    self.escape.clear();
                    return;
                }
                _ => parameters(rest),
            },
        };
        if !colour_so_far || self.escape.len() > MAX_ESCAPE_CHARS {
            self.give_up_escape(out);
        }
    }

    /// Shows an escape sequence that is no colour code, as text.
    fn give_up_escape(&mut self, out: &mut String) {
        let held = std::mem::take(&mut self.escape);
        let mut chars = held.chars();
        if chars.next().is_some() {
            out.push('␛');
            for c in chars {
                self.one(c, out);
            }
        }
    }

    fn show_invisible(&mut self, out: &mut String) {
        let run = std::mem::take(&mut self.invisible);
        if run.len() > SHOWN_INVISIBLE {
            let _ = write!(out, "⟨{} invisible characters⟩", run.len());
        } else {
            run.into_iter().for_each(|c| show_code(c, out));
        }
    }
}

fn show_code(c: char, out: &mut String) {
    let _ = write!(out, "⟨U+{:04X}⟩", c as u32);
}

/// Whether a character shows nothing, or changes how others are shown. Joiners and emoji
/// selectors are left alone where scripts and emoji need them: after a character beyond ASCII.
const fn is_invisible(c: char, previous: Option<char>) -> bool {
    match c {
        '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}' => match previous {
            Some(before) => (before as u32) < 0x600,
            None => true,
        },
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0d}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

/// Text of several lines, cleaned; lone carriage returns become line ends.
#[must_use]
pub fn clean_text(text: &str) -> String {
    let mut cleaner = Cleaner::default();
    let mut out = cleaner.push(text);
    out.push_str(&cleaner.finish());
    out
}

/// Text for a place within a line, cleaned; line ends are shown as signs.
#[must_use]
pub fn clean_line(text: &str) -> String {
    clean_text(text).replace('\n', "⏎")
}

/// Columns that a clean text takes, near enough: wide scripts and emoji take two, marks none.
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match c as u32 {
            0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x610..=0x61a | 0x64b..=0x65f => 0,
            0x200c | 0x200d | 0x20d0..=0x20f0 | 0xfe0e | 0xfe0f | 0xfe20..=0xfe2f => 0,
            0x1100..=0x115e | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
            0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f6ff => 2,
            0x1f900..=0x1f9ff | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, shown: &str) {
        assert_eq!(clean_text(given), shown, "{given:?}");
        assert_eq!(clean_text(shown), shown, "cleaning twice changes nothing");
    }

    #[test]
    fn colours_are_dropped_and_every_other_escape_is_shown() {
        check("\x1b[1;31merror\x1b[0m: x", "error: x");
        check("\x1b[38:2::1:2:3mx\x1b[m", "x");
        check("\x1b[2Jgone", "␛[2Jgone");
        check("\x1b]0;title\x07", "␛]0;title␇");
        check("\x1b]8;;http://evil\x1b\\click", "␛]8;;http://evil␛\\click");
        check("\u{9b}31mred", "⟨U+009B⟩31mred");
        check("end\x1b", "end␛");
        check("\x1b\x1b[31mx", "␛x");
    }

    #[test]
    fn an_escape_that_is_cut_in_the_middle_is_still_one() {
        let mut cleaner = Cleaner::default();
        let shown: String =
            ["a\x1b", "[3", "1", "mb\x1b[", "0mc\r", "\nd"].iter().map(|part| cleaner.push(part)).collect();
        assert_eq!(shown + &cleaner.finish(), "abc\nd");
    }

    #[test]
    fn a_lone_carriage_return_can_not_overwrite_what_stands_there() {
        check("rm -rf /\rls", "rm -rf /\nls");
        check("a\r\nb\r", "a\nb\n");
        check("back\x08\x08", "back␈␈");
    }

    #[test]
    fn hidden_characters_are_seen() {
        check("a\u{202e}b\u{2066}c", "a⟨U+202E⟩b⟨U+2066⟩c");
        check("x\u{200b}y\u{feff}", "x⟨U+200B⟩y⟨U+FEFF⟩");
        let smuggled: String = "ignore".chars().map(|c| char::from_u32(0xe0000 + c as u32).unwrap()).collect();
        check(&format!("hi{smuggled}!"), "hi⟨6 invisible characters⟩!");
        check("\u{200d}a\u{fe0f}", "⟨U+200D⟩a⟨U+FE0F⟩");
    }

    #[test]
    fn emoji_and_other_scripts_stay_as_they_are() {
        for fine in ["✔︎ ok", "👩‍💻 at work", "❤️", "क्‍ष", "naïve — “quoted” 漢字"] {
            check(fine, fine);
        }
    }

    #[test]
    fn a_name_in_a_line_keeps_to_its_line() {
        assert_eq!(clean_line("a\nb\r\nc\td"), "a⏎b⏎c    d");
    }
}
