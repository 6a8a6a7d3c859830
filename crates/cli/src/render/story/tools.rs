//! Tool calls as a person reads them: the subject of the call, and output folded to what matters.
//!
//! Input of a call is what a model wrote: any JSON, or none. Nothing here trusts its shape.

use serde_json::Value;

use super::Wishes;
use crate::render::words::{count, plural};
use crate::terminal::clean::clean_text;
use crate::terminal::{Line, Page, Style, fit};

/// The tool that asks a person.
pub const ASK: &str = "ask";
/// Lines of each side of a replacement that are shown.
const EDIT_LINES: usize = 6;

fn field<'a>(input: &'a Value, name: &str) -> Option<&'a str> {
    input.get(name).and_then(Value::as_str)
}

/// What a call is about, in a line.
#[must_use]
pub fn subject(input_json: &str) -> String {
    let Ok(input) = serde_json::from_str::<Value>(input_json) else { return input_json.to_owned() };
    if let Some(pattern) = field(&input, "pattern") {
        let place = field(&input, "path").or_else(|| field(&input, "glob"));
        return place.map_or(format!("/{pattern}/"), |place| format!("/{pattern}/ in {place}"));
    }
    for name in ["command", "question"] {
        if let Some(text) = field(&input, name) {
            return text.to_owned();
        }
    }
    match field(&input, "path") {
        None => input_json.to_owned(),
        Some(path) => {
            let lines =
                field(&input, "content").map(|content| format!("  ({})", plural(content.lines().count(), "line")));
            let first = input.get("first_line").and_then(Value::as_u64).map(|first| format!("  from line {first}"));
            format!("{path}{}", lines.or(first).unwrap_or_default())
        }
    }
}

/// The heading of a call, with what an edit replaces.
#[must_use]
pub fn call(tool: &str, input_json: &str, wishes: Wishes) -> Page {
    let mut page = Page::new();
    let input: Value = serde_json::from_str(input_json).unwrap_or(Value::Null);
    if tool == ASK {
        page.push(Line::new().with(Style::Warn, "  ? the agent asks"));
        page.prose(4, Style::Bold, field(&input, "question").unwrap_or(input_json), wishes.columns);
        return page;
    }
    let subject = clean_text(&subject(input_json));
    let mut lines = subject.lines();
    let room = if wishes.full { usize::MAX } else { wishes.columns.saturating_sub(6 + tool.len()) };
    page.push(
        Line::new().with(Style::Accent, format!("  ▸ {tool} ")).text(fit(lines.next().unwrap_or_default(), room)),
    );
    let more = lines.clone().count();
    for line in lines.take(if wishes.full { usize::MAX } else { EDIT_LINES }) {
        page.push(Line::new().text("      ").text(line));
    }
    if more > EDIT_LINES && !wishes.full {
        page.push(Line::new().dim(format!("      ⋮ {} more", plural(more - EDIT_LINES, "line"))));
    }
    if let (Some(old), Some(new)) = (field(&input, "old"), field(&input, "new")) {
        page.append(side("-", old, Style::Bad, wishes));
        page.append(side("+", new, Style::Good, wishes));
    }
    page
}

fn side(mark: &str, text: &str, style: Style, wishes: Wishes) -> Page {
    let clean = clean_text(text);
    let total = clean.lines().count();
    let mut page = Page::new();
    for line in clean.lines().take(if wishes.full { total } else { EDIT_LINES }) {
        page.push(Line::new().text("    ").with(style, format!("{mark} {line}")));
    }
    if total > EDIT_LINES && !wishes.full {
        page.push(Line::new().text("    ").dim(format!("⋮ {} more", plural(total - EDIT_LINES, "line"))));
    }
    page
}

/// How a text is folded.
#[derive(Debug, Clone, Copy)]
pub struct Fold {
    /// Lines of the beginning that stay.
    pub head: usize,
    /// Lines of the end that stay.
    pub tail: usize,
    /// What the text is a part of, behind "more lines"; empty if it is all there is.
    pub part: &'static str,
}

/// Text with its middle left out.
#[must_use]
pub fn folded(text: &str, fold: Fold, wishes: Wishes, style: Style) -> Page {
    let Fold { head, tail, part } = fold;
    let clean = clean_text(text);
    let lines: Vec<&str> = clean.trim_end().lines().collect();
    let mut page = Page::new();
    let room = if wishes.full { usize::MAX } else { wishes.columns.saturating_sub(4) };
    let mut show = |lines: &[&str]| {
        for line in lines {
            page.push(Line::new().text("    ").with(style, fit(line, room)));
        }
    };
    // Leaving out one line takes as much room as showing it.
    if wishes.full || lines.len() <= head + tail + 1 {
        show(&lines);
        return page;
    }
    let (first, rest) = lines.split_at(head);
    let (middle, last) = rest.split_at(rest.len() - tail);
    show(first);
    let left_out = count(middle.len() as u64);
    show(&[format!("⋮ {left_out} more lines{part}").as_str()]);
    show(last);
    page
}
