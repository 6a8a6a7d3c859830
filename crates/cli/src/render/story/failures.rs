//! Failures as a person wants to read them: told once in full, a repetition in one line, and what
//! follows from one only as far as it says something new. Pure.
//!
//! Absent: whether something is tried again. That is told when it is, not promised before.

use domain::effect::{Effect, FailureClass, FailureSource};

use super::Wishes;
use super::effects::{in_words, is_same};
use crate::terminal::{Line, Style, fit};

/// What was told of failures so far.
#[derive(Debug, Default)]
pub struct Failures {
    last: Option<(Effect, u32)>,
    told: String,
}

impl Failures {
    /// How often this effect failed just before.
    #[must_use]
    pub fn of(&self, effect: &Effect) -> u32 {
        self.last.as_ref().filter(|(last, _)| is_same(last, effect)).map_or(0, |(_, times)| *times)
    }

    /// An effect succeeded; what failed before is over.
    pub fn over(&mut self) {
        self.last = None;
    }

    /// The line for a failed effect.
    pub fn failed(
        &mut self,
        effect: &Effect,
        message: &str,
        (class, source): (FailureClass, FailureSource),
        wishes: Wishes,
    ) -> Line {
        if (class, source) == (FailureClass::Unknown, FailureSource::User) {
            // Nothing went wrong: a person called it off.
            return Line::new().dim(format!("  · {}: {message}", in_words(effect)));
        }
        let times = self.of(effect) + 1;
        let line = if times == 1 {
            let then = match class {
                FailureClass::NeedsPerson => " (a person must change something)",
                FailureClass::Unknown => " (not known whether it happened)",
                FailureClass::Retry | FailureClass::Final => "",
            };
            Line::new()
                .with(Style::Bad, format!("  ✗ {} failed", in_words(effect)))
                .text(format!(": {message}"))
                .dim(then)
        } else {
            let again = format!("  ✗ failed again (try {times})");
            let line = Line::new().with(Style::Bad, again.as_str());
            if self.told == message {
                line.text(": the same")
            } else {
                let room = if wishes.full { usize::MAX } else { wishes.columns.saturating_sub(again.len()) };
                line.text(fit(&format!(": {message}"), room))
            }
        };
        self.last = Some((effect.clone(), times));
        message.clone_into(&mut self.told);
        line
    }

    /// What of a message was not told just before; it counts as told afterwards.
    pub fn unsaid(&mut self, message: &str) -> String {
        let told = std::mem::replace(&mut self.told, message.to_owned());
        if told.is_empty() {
            message.to_owned()
        } else if let Some(rest) = message.strip_prefix(told.as_str()) {
            rest.trim_start_matches([';', ',', '.', ' ']).to_owned()
        } else if let Some(rest) = message.strip_suffix(told.as_str()) {
            format!("{rest}see above")
        } else {
            message.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut failures = Failures { told: "no route".to_owned(), ..Failures::default() };
        assert_eq!(
            failures.unsaid("failed 3 times; the last time: no route"),
            "failed 3 times; the last time: see above"
        );
        assert_eq!(failures.unsaid("failed 3 times; the last time: no route; `diff` shows it"), "`diff` shows it");
        assert_eq!(failures.unsaid("something else"), "something else");
        assert_eq!(failures.unsaid("something else"), "");
    }
}
