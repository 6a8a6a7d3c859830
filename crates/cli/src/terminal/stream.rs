//! Text that streams in, cleaned, set in from the left, and broken at spaces. Pure.
//!
//! A word is held back until it is whole, because it may belong to the next line; empty lines until
//! something stands below them, because a text may end with them. Absent: writing.

use super::clean::{Cleaner, width};
use super::{Style, paint};

/// One text that is still coming.
#[derive(Debug)]
pub struct Stream {
    cleaner: Cleaner,
    indent: usize,
    columns: usize,
    column: usize,
    word: String,
    style: Style,
    /// Whether anything was written.
    begun: bool,
    /// Empty lines that are held back.
    blank: usize,
}

impl Stream {
    /// A text that begins on a new line and is never wider than `columns`.
    pub fn new(indent: usize, columns: usize) -> Self {
        Self {
            cleaner: Cleaner::default(),
            indent,
            columns,
            column: 0,
            word: String::new(),
            style: Style::Plain,
            begun: false,
            blank: 0,
        }
    }

    /// What to write for the next piece.
    pub fn push(&mut self, style: Style, text: &str, color: bool) -> String {
        let mut out = String::new();
        if style != self.style {
            self.flush(color, &mut out);
            self.style = style;
        }
        let clean = self.cleaner.push(text);
        self.take(&clean, color, &mut out);
        if self.columns == usize::MAX {
            self.flush(color, &mut out);
        }
        out
    }

    /// What to write when no more comes.
    pub fn end(mut self, color: bool) -> String {
        let mut out = String::new();
        let rest = self.cleaner.finish();
        self.take(&rest, color, &mut out);
        self.flush(color, &mut out);
        if self.column > 0 {
            out.push('\n');
        }
        out
    }

    fn take(&mut self, clean: &str, color: bool, out: &mut String) {
        for c in clean.chars() {
            match c {
                '\n' => {
                    self.flush(color, out);
                    if self.column > 0 {
                        out.push('\n');
                    } else if self.begun {
                        self.blank += 1;
                    }
                    self.column = 0;
                }
                ' ' if self.columns != usize::MAX || self.column == 0 && self.word.is_empty() => {
                    self.flush(color, out);
                    self.set_in(out);
                    if self.column < self.columns {
                        out.push(' ');
                        self.column += 1;
                    }
                }
                _ => self.word.push(c),
            }
        }
    }

    fn flush(&mut self, color: bool, out: &mut String) {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return;
        }
        let wide = width(&word);
        if self.column > self.indent && self.column.saturating_add(wide) > self.columns {
            out.push('\n');
            self.column = 0;
        }
        self.set_in(out);
        paint(self.style, &word, color, out);
        self.column += wide;
    }

    fn set_in(&mut self, out: &mut String) {
        if self.column == 0 {
            out.push_str(&"\n".repeat(std::mem::take(&mut self.blank)));
            out.push_str(&" ".repeat(self.indent));
            self.column = self.indent;
            self.begun = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(columns: usize, parts: &[&str]) -> String {
        let mut stream = Stream::new(2, columns);
        let mut text: String = parts.iter().map(|part| stream.push(Style::Plain, part, false)).collect();
        text.push_str(&stream.end(false));
        text
    }

    #[test]
    fn text_is_broken_at_spaces_wherever_its_pieces_are_cut() {
        let wanted = "  one two\n  three\n\n    four\n";
        let text = "one two three\n\n  four";
        let tidy = |text: String| text.lines().map(|line| line.trim_end().to_owned() + "\n").collect::<String>();
        assert_eq!(tidy(streamed(10, &[text])), wanted);
        let chars: Vec<String> = text.chars().map(String::from).collect();
        assert_eq!(tidy(streamed(10, &chars.iter().map(String::as_str).collect::<Vec<_>>())), wanted);
    }

    #[test]
    fn output_is_not_broken_and_not_held_back() {
        let mut stream = Stream::new(4, usize::MAX);
        assert_eq!(stream.push(Style::Plain, "half a wo", false), "    half a wo");
        assert_eq!(stream.push(Style::Plain, "rd\n", false), "rd\n");
        assert_eq!(stream.end(false), "");
    }

    #[test]
    fn empty_lines_are_shown_only_between_lines() {
        assert_eq!(streamed(40, &["\n"]), "");
        assert_eq!(streamed(40, &["\n\n", "a\n", "\n", "b", "\n\n"]), "  a\n\n  b\n");
    }

    #[test]
    fn an_escape_in_a_stream_is_shown() {
        assert_eq!(streamed(40, &["a\x1b", "[2Jb"]), "  a␛[2Jb\n");
    }
}
