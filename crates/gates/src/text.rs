//! Output of programs, made fit to be read by people and models.
//!
//! Gate output comes from code that an agent wrote, so it is data: colours are dropped, invisible
//! characters are made visible, and only the end is kept. Absent: any reading of what it says.

/// Drops terminal colours and cursor moves, keeps of a line that overwrote itself what was left on
/// the screen, and writes every other invisible character as `\u{…}`. Newlines and tabs stay.
pub fn visible(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    let mut line_start = 0;
    while let Some(c) = chars.next() {
        match c {
            '\n' => {
                out.push('\n');
                line_start = out.len();
            }
            '\t' => out.push('\t'),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => out.truncate(line_start),
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // A control sequence ends with its first byte from `@` to `~`.
                for c in chars.by_ref() {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
            c if is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Control characters, and those that change the order or look of text without being seen.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The last whole lines of `text` that fit into `max_chars`; of a last line that alone is too long,
/// its end. Blank lines at both ends are dropped.
pub fn last_lines(text: &str, max_chars: usize) -> String {
    let text = text.trim_end();
    let mut kept: Vec<&str> = Vec::new();
    let mut used = 0;
    for line in text.lines().rev() {
        let chars = line.chars().count() + 1;
        if used + chars > max_chars {
            break;
        }
        used += chars;
        kept.push(line);
    }
    if kept.is_empty() {
        let last = text.lines().next_back().unwrap_or_default();
        let skip = last.chars().count().saturating_sub(max_chars.saturating_sub(1));
        return last.chars().skip(skip).collect();
    }
    kept.reverse();
    kept.join("\n").trim_start_matches('\n').to_owned()
}

/// `text` if it has at most `max_chars`, else its beginning and `…`.
pub fn shortened(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_and_invisible_characters_are_shown() {
        assert_eq!(visible("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(visible("a\u{200b}b\u{202e}c\u{0}"), "a\\u{200b}b\\u{202e}c\\u{0}");
        assert_eq!(visible("tab\there\r\nnext"), "tab\there\nnext");
    }

    #[test]
    fn a_progress_line_keeps_its_last_state() {
        assert_eq!(visible("start\n10%\r50%\r100%\ndone"), "start\n100%\ndone");
    }

    #[test]
    fn an_unfinished_escape_at_the_end_is_harmless() {
        assert_eq!(visible("x\u{1b}["), "x");
        assert_eq!(visible("x\u{1b}"), "x\\u{1b}");
    }

    #[test]
    fn the_last_lines_are_whole_unless_one_alone_is_too_long() {
        assert_eq!(last_lines("one\ntwo\nthree\n\n", 10), "two\nthree");
        assert_eq!(last_lines("abcdefghij", 5), "ghij");
        assert_eq!(last_lines("", 5), "");
    }
}
