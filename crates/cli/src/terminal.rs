//! The terminal: what may reach it, and how pages are drawn on it.
//!
//! Everything is printed through [`Line`]s, and a line cleans each of its pieces while it is drawn:
//! text of models, tools, files and branches can't move the cursor, change colours, hide itself or
//! write backwards. No renderer has to remember that. Invisible characters are made visible, for
//! they are how instructions are smuggled past a reader. Absent: what is printed; that is `render`.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write};

pub mod clean;
mod stream;

use clean::{clean_line, clean_text, width};
use stream::Stream;

/// Width of a page where nobody says.
const DEFAULT_COLUMNS: usize = 80;
/// Running text is never set wider than this.
const MAX_TEXT_COLUMNS: usize = 100;

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// What the eye should find first.
    Bold,
    /// What it may skip.
    Dim,
    /// Passed, landed.
    Good,
    /// Failed, refused.
    Bad,
    /// Waits, or needs a look.
    Warn,
    /// A name to type, a heading.
    Accent,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Accent => "36",
        }
    }
}

/// One line, piece by piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    pieces: Vec<(Style, String)>,
}

impl Line {
    /// An empty line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The line with one more piece.
    #[must_use]
    pub fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.pieces.push((style, text.into()));
        self
    }
    /// The line with plain text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.with(Style::Plain, text)
    }
    /// The line with bold text.
    #[must_use]
    pub fn bold(self, text: impl Into<String>) -> Self {
        self.with(Style::Bold, text)
    }
    /// The line with dim text.
    #[must_use]
    pub fn dim(self, text: impl Into<String>) -> Self {
        self.with(Style::Dim, text)
    }
    /// The line with text that names what to type.
    #[must_use]
    pub fn accent(self, text: impl Into<String>) -> Self {
        self.with(Style::Accent, text)
    }
    /// The line, padded with spaces to a column.
    #[must_use]
    pub fn until(self, column: usize) -> Self {
        let now = self.columns();
        if now < column { self.text(" ".repeat(column - now)) } else { self }
    }
    /// How wide it is, as drawn.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.pieces.iter().map(|(_, text)| width(&clean_line(text))).sum()
    }

    fn draw(&self, color: bool, out: &mut String) {
        for (style, text) in &self.pieces {
            paint(*style, &clean_line(text), color, out);
        }
    }
}

fn paint(style: Style, clean: &str, color: bool, out: &mut String) {
    if color && style != Style::Plain && !clean.trim().is_empty() {
        let _ = write!(out, "\x1b[{}m{clean}\x1b[0m", style.code());
    } else {
        out.push_str(clean);
    }
}

/// Lines in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a line.
    pub fn push(&mut self, line: Line) {
        self.lines.push(line);
    }
    /// Adds an empty line, unless the page is empty or already ends with one.
    pub fn blank(&mut self) {
        if self.lines.last().is_some_and(|line| !line.pieces.is_empty()) {
            self.lines.push(Line::new());
        }
    }
    /// Adds the lines of another page.
    pub fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
    }
    /// Adds running text, wrapped into `columns` with an indent.
    pub fn prose(&mut self, indent: usize, style: Style, text: &str, columns: usize) {
        let room = columns.min(MAX_TEXT_COLUMNS).saturating_sub(indent).max(20);
        for line in clean_text(text).trim_end().lines() {
            for part in wrap(line, room) {
                self.push(Line::new().text(" ".repeat(indent)).with(style, part));
            }
        }
    }
    /// The page as text.
    #[must_use]
    pub fn draw(&self, color: bool) -> String {
        let mut out = String::new();
        for line in &self.lines {
            line.draw(color, &mut out);
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

/// Breaks a clean line at spaces; a word that is too long is broken where it must be. The
/// indent of the line's first part is kept for the rest.
fn wrap(line: &str, room: usize) -> Vec<String> {
    if width(line) <= room {
        return vec![line.to_owned()];
    }
    let indent: String = line.chars().take_while(|c| *c == ' ').take(room / 2).collect();
    let mut parts = Vec::new();
    let mut part = indent.clone();
    for word in line.trim_start().split(' ') {
        let space = usize::from(part.len() > indent.len());
        if width(&part) + space + width(word) > room && part.len() > indent.len() {
            parts.push(std::mem::replace(&mut part, indent.clone()));
        } else if space == 1 {
            part.push(' ');
        }
        for c in word.chars() {
            if width(&part) >= room {
                parts.push(std::mem::replace(&mut part, indent.clone()));
            }
            part.push(c);
        }
    }
    parts.push(part);
    parts
}

/// Text cut to `columns`, with a mark where something is missing. One line.
#[must_use]
pub fn fit(text: &str, columns: usize) -> String {
    let clean = clean_line(text);
    if width(&clean) <= columns {
        return clean;
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in clean.chars() {
        let wide = width(c.encode_utf8(&mut [0; 4]));
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        cut.push(c);
    }
    let mut cut = cut.trim_end().to_owned();
    cut.push('…');
    cut
}

/// One thing that a conversation shows: whole lines, or text that streams in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A whole line.
    Line(Line),
    /// More of a text that is still coming, set in from the left.
    Stream {
        /// How far.
        indent: usize,
        /// Whether lines are broken at spaces.
        wrap: bool,
        /// How it looks.
        style: Style,
        /// The new part.
        text: String,
    },
    /// What the platform is busy with: shown on a terminal until the next piece, and nowhere else.
    Status(String),
}

/// Where output goes, and how. Broken pipes end the program quietly.
#[derive(Debug)]
pub struct Screen {
    /// Whether colours are used.
    pub color: bool,
    /// Whether a person sits there.
    pub is_tty: bool,
    /// Columns of a page.
    pub columns: usize,
    /// Whether one JSON document is wanted instead of pages.
    pub json: bool,
    stream: Option<Stream>,
    has_status: bool,
}

impl Screen {
    /// The screen that belongs to standard output.
    #[must_use]
    pub fn of_stdout(wishes: crate::settings::OutputWishes, json: bool) -> Self {
        let is_tty = std::io::stdout().is_terminal();
        let of_tty = rustix::termios::tcgetwinsize(rustix::stdio::stdout())
            .ok()
            .map(|size| size.ws_col)
            .filter(|columns| *columns > 0);
        let columns = of_tty.or(wishes.columns).map_or(DEFAULT_COLUMNS, usize::from).clamp(40, 400);
        Self { color: is_tty && !wishes.no_color && !json, is_tty, columns, json, stream: None, has_status: false }
    }

    /// Prints a page.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn page(&mut self, page: &Page) -> std::io::Result<()> {
        self.end_stream()?;
        write_out(page.draw(self.color).as_bytes())
    }

    /// Prints one line.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn line(&mut self, line: Line) -> std::io::Result<()> {
        self.page(&Page { lines: vec![line] })
    }

    /// Prints a document as one line of JSON.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn document(&mut self, value: &impl serde::Serialize) -> std::io::Result<()> {
        let mut bytes = serde_json::to_vec(value)?;
        bytes.push(b'\n');
        write_out(&bytes)
    }

    /// Prints bytes as they are, for output that another program reads; on a terminal they are
    /// cleaned.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.is_tty { write_out(clean_text(&String::from_utf8_lossy(bytes)).as_bytes()) } else { write_out(bytes) }
    }

    /// Prints pieces of a conversation.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn pieces(&mut self, pieces: &[Piece]) -> std::io::Result<()> {
        for piece in pieces {
            match piece {
                Piece::Line(line) => self.line(line.clone())?,
                Piece::Status(text) => self.status(text)?,
                Piece::Stream { indent, wrap, style, text } => {
                    self.wipe_status()?;
                    let columns = if *wrap { self.columns.min(MAX_TEXT_COLUMNS) } else { usize::MAX };
                    let stream = self.stream.get_or_insert_with(|| Stream::new(*indent, columns));
                    write_out(stream.push(*style, text, self.color).as_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// Nothing but the next output follows a status, so it is wiped out by it.
    fn status(&mut self, text: &str) -> std::io::Result<()> {
        if !self.is_tty || self.stream.is_some() {
            return Ok(());
        }
        self.wipe_status()?;
        let mut out = String::new();
        paint(Style::Dim, &fit(text, self.columns.saturating_sub(1)), self.color, &mut out);
        self.has_status = true;
        write_out(out.as_bytes())
    }

    fn wipe_status(&mut self) -> std::io::Result<()> {
        if std::mem::take(&mut self.has_status) { write_out(b"\r\x1b[K") } else { Ok(()) }
    }

    fn end_stream(&mut self) -> std::io::Result<()> {
        self.wipe_status()?;
        match self.stream.take() {
            Some(stream) => write_out(stream.end(self.color).as_bytes()),
            None => Ok(()),
        }
    }
}

fn write_out(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Prints a line about what is going on to standard error, cleaned. Never fails the program.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", clean_text(text).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cleaned_although_its_writer_forgot() {
        let mut page = Page::new();
        page.push(Line::new().text("evil \x1b]0;title\x07 \x1b[2J\nname").dim("\u{202e}txt"));
        let drawn = page.draw(true);
        assert_eq!(drawn.matches('\x1b').count(), 2, "only our own codes: {drawn:?}");
        assert!(!drawn.contains('\u{202e}') && !drawn.contains('\x07'));
        assert_eq!(drawn.lines().count(), 1);
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_keeps_its_indent() {
        assert_eq!(wrap("  one two three four", 10), ["  one two", "  three", "  four"]);
        assert_eq!(wrap("abcdefghijkl", 5), ["abcde", "fghij", "kl"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn a_cut_text_says_so_and_fits() {
        assert_eq!(fit("make the parser accept", 12), "make the pa…");
        assert_eq!(fit("short", 12), "short");
        assert_eq!(width(&fit("漢字漢字漢字", 6)), 5);
    }
}
