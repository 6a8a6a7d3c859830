//! A change as a coloured patch and as a list of files. Pure.

use server::api::{DiffBody, DiffFile};

use super::words::{count, plural};
use crate::terminal::{Line, Page, Style};

/// Most marks in the bar behind a file.
const BAR: u64 = 30;

/// The patch, coloured.
#[must_use]
pub fn page(diff: &DiffBody) -> Page {
    let mut page = Page::new();
    let mut in_head = true;
    for line in diff.patch.lines() {
        if line.starts_with("diff ") {
            in_head = true;
        } else if line.starts_with("@@") {
            in_head = false;
        }
        let style = match line.as_bytes().first() {
            _ if line.starts_with("@@") => Style::Accent,
            _ if in_head => Style::Bold,
            Some(b'+') => Style::Good,
            Some(b'-') => Style::Bad,
            _ => Style::Plain,
        };
        page.push(Line::new().with(style, line));
    }
    if diff.truncated {
        page.push(Line::new().with(Style::Warn, "… the patch is longer than what is shown; --stat names every file"));
    }
    page
}

/// The files, with how much changed in each.
#[must_use]
pub fn stat(diff: &DiffBody) -> Page {
    let mut page = Page::new();
    let column =
        diff.files.iter().map(|file| Line::new().text(name(file)).columns()).max().unwrap_or(0).clamp(10, 60) + 3;
    let most = diff.files.iter().map(|file| file.added_lines + file.removed_lines).max().unwrap_or(1).max(1);
    for file in &diff.files {
        let line = Line::new().text(" ").text(name(file)).until(column).text("| ");
        let line = if file.binary {
            line.dim("not text")
        } else {
            let scaled = |n: u64| if most <= BAR { n } else { (n * BAR).div_ceil(most) };
            let bar = |mark: &str, n: u64| mark.repeat(usize::try_from(scaled(n)).unwrap_or(0));
            line.text(format!("{:>5} ", count(file.added_lines + file.removed_lines)))
                .with(Style::Good, bar("+", file.added_lines))
                .with(Style::Bad, bar("-", file.removed_lines))
        };
        page.push(if file.status == "modified" { line } else { line.dim(format!(" {}", file.status)) });
    }
    let (added, removed) =
        diff.files.iter().fold((0, 0), |(a, r), file| (a + file.added_lines, r + file.removed_lines));
    page.push(Line::new().text(format!(
        " {} changed, +{} -{}",
        plural(diff.files.len(), "file"),
        count(added),
        count(removed)
    )));
    page
}

fn name(file: &DiffFile) -> String {
    match &file.old_path {
        Some(old) => format!("{old} → {}", file.path),
        None => file.path.clone(),
    }
}
