//! Replay: a provider that plays a cassette and watches that the conversation fits it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::cassette::{BY_HAND, CassetteFault, File};
use crate::error::{ErrorKind, ModelError};
use crate::provider::{Answer, EventStream, Provider, StreamEvent};
use crate::transcript::{AssistantMessage, BlockView, Message, Request, Wire, check_transcript};
use crate::usage::Price;

/// Plays a cassette. Which entry comes next follows from the request alone, so a restarted
/// program goes on where the conversation stands.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    name: String,
    wire: Wire,
    entries: Vec<Played>,
}

#[derive(Debug)]
struct Played {
    answer: Answer,
    chunks: Vec<String>,
    delay_ms: Option<u64>,
}

impl Replay {
    /// Reads the cassette at `path`.
    ///
    /// # Errors
    /// [`CassetteFault`] if it cannot be read or played.
    pub fn open(path: &Path) -> Result<Self, CassetteFault> {
        let file = File::read(path)?;
        let mut entries = Vec::with_capacity(file.entries.len());
        for (position, entry) in file.entries.into_iter().enumerate() {
            let number = position + 1;
            let answer =
                entry.answer(number).map_err(|why| CassetteFault::Entry { path: path.to_owned(), number, why })?;
            entries.push(Played { answer, chunks: entry.chunks, delay_ms: entry.delay_ms });
        }
        let (name, wire) = entries.first().map_or((BY_HAND.to_owned(), Wire::Cassette), |entry| {
            (entry.answer.message.provider.clone(), entry.answer.message.wire)
        });
        Ok(Self { path: path.to_owned(), name, wire, entries })
    }

    /// How many answers it holds.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.entries.len()
    }

    fn next(&self, request: &Request) -> Result<&Played, String> {
        check_transcript(&request.messages).map_err(|fault| fault.to_string())?;
        let mut position = 0;
        for message in &request.messages {
            let Message::Assistant(said) = message else { continue };
            let number = position + 1;
            let Some(entry) = self.entries.get(position) else {
                return Err(format!(
                    "the conversation holds more answers than the cassette, which has {}",
                    self.entries.len()
                ));
            };
            if let Some(difference) = difference(&entry.answer.message, said) {
                return Err(format!(
                    "answer {number} of the conversation is not the one that was played: {difference}"
                ));
            }
            position += 1;
        }
        self.entries.get(position).ok_or_else(|| {
            format!(
                "the cassette has {position} answers, and the conversation asks for one more; newest message: {}",
                newest(request)
            )
        })
    }
}

impl Provider for Replay {
    fn name(&self) -> &str {
        &self.name
    }
    fn wire(&self) -> Wire {
        self.wire
    }
    fn price(&self, _model: &str) -> Option<Price> {
        Some(Price::FREE)
    }

    fn stream(&self, request: &Request) -> EventStream {
        match self.next(request) {
            Err(why) => {
                let error = ModelError::new(
                    ErrorKind::Cassette,
                    &self.name,
                    format!("cassette {}: {why}", self.path.display()),
                );
                stream::iter([Err(error)]).boxed()
            }
            Ok(entry) => play(entry),
        }
    }
}

/// The events of an entry, with its pause before each.
fn play(entry: &Played) -> EventStream {
    let message = &entry.answer.message;
    let mut events = VecDeque::from([StreamEvent::started(entry.answer.answered_by.as_str())]);
    let whole = message.text();
    let recorded = entry.chunks.concat() == whole;
    let mut chunks = Some(entry.chunks.clone()).filter(|_| recorded);
    for (index, block) in message.blocks.iter().enumerate() {
        match &block.view {
            BlockView::Thinking { text } if !text.is_empty() => {
                events.push_back(StreamEvent::ThinkingDelta { text: text.clone() })
            }
            // The recorded pieces hold the text of all blocks; they come where the first stands.
            BlockView::Text { .. } if recorded => {
                events.extend(chunks.take().into_iter().flatten().map(|text| StreamEvent::TextDelta { text }))
            }
            BlockView::Text { text } => {
                events.extend(text.split_inclusive(' ').map(|word| StreamEvent::TextDelta { text: word.to_owned() }))
            }
            BlockView::ToolCall { id, name, input } => {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                events.push_back(StreamEvent::ToolCallStarted { index, id: id.clone(), name: name.clone() });
                events.push_back(StreamEvent::ToolInputDelta { index, fragment: input.as_str().to_owned() });
            }
            BlockView::Thinking { .. } | BlockView::Other { .. } => {}
        }
    }
    events.push_back(StreamEvent::Finished(Box::new(entry.answer.clone())));
    let delay = entry.delay_ms.map(Duration::from_millis);
    stream::iter(events)
        .then(move |event| async move {
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            Ok(event)
        })
        .boxed()
}

/// What differs, for a person; `None` if nothing does.
fn difference(played: &AssistantMessage, said: &AssistantMessage) -> Option<String> {
    if played == said {
        return None;
    }
    if played.blocks.len() != said.blocks.len() {
        return Some(format!("it has {} blocks, played were {}", said.blocks.len(), played.blocks.len()));
    }
    for (number, (played, said)) in (1..).zip(played.blocks.iter().zip(&said.blocks)) {
        if played.view != said.view {
            return Some(format!("block {number} is {}, played was {}", show(&said.view), show(&played.view)));
        }
        if played.raw != said.raw {
            return Some(format!("block {number} reads the same, but its raw bytes differ"));
        }
    }
    Some(format!(
        "it is from {} {:?} with stop {:?}, played was {} {:?} with stop {:?}",
        said.provider, said.wire, said.stop, played.provider, played.wire, played.stop
    ))
}

fn show(view: &BlockView) -> String {
    let text: String = format!("{view:?}").chars().take(200).collect();
    format!("`{text}`")
}

fn newest(request: &Request) -> String {
    super::RequestNote::of(request).newest
}
