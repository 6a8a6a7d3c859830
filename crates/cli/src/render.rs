//! Tasks, events and reports as pages for people. Pure: values in, [`crate::terminal::Page`] out.
//!
//! Absent: printing, colours as codes, and cleaning of text from outside; `terminal` does those.

pub mod egress;
pub mod environments;
pub mod evidence;
pub mod list;
pub mod next;
pub mod patch;
pub mod secrets;
pub mod story;
pub mod task;
pub mod why;
pub mod words;

#[cfg(test)]
pub mod samples;
#[cfg(test)]
mod tests;
