//! Recording: a provider that writes down what another one answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Mutex;

use crate::cassette::{CASSETTE_VERSION, CassetteFault, Entry, File, RequestNote};
use crate::error::{ErrorKind, ModelError};
use crate::provider::{Answer, EventStream, Provider, StreamEvent};
use crate::transcript::{Message, Request, Wire};
use crate::usage::Price;

/// Wraps a provider and writes each of its answers to a cassette before handing it on. Give each
/// conversation its own. The file is replaced as a whole, so it is always playable.
pub struct Recording<P> {
    inner: P,
    tape: Arc<Tape>,
}

struct Tape {
    path: PathBuf,
    file: Mutex<File>,
}

impl<P: Provider> Recording<P> {
    /// Records what `inner` answers to the cassette at `path`; goes on with it if it exists.
    ///
    /// # Errors
    /// [`CassetteFault`] if there is a file that is no cassette of this version.
    pub fn new(inner: P, path: &Path) -> Result<Self, CassetteFault> {
        let file = match File::read(path) {
            Err(CassetteFault::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                File { cassette: CASSETTE_VERSION, entries: Vec::new() }
            }
            other => other?,
        };
        Ok(Self { inner, tape: Arc::new(Tape { path: path.to_owned(), file: Mutex::new(file) }) })
    }
}

impl<P: Provider> Provider for Recording<P> {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn wire(&self) -> Wire {
        self.inner.wire()
    }
    fn price(&self, model: &str) -> Option<Price> {
        self.inner.price(model)
    }

    fn stream(&self, request: &Request) -> EventStream {
        struct State {
            inner: EventStream,
            request: Request,
            tape: Arc<Tape>,
            provider: String,
            chunks: Vec<String>,
        }
        let state = State {
            inner: self.inner.stream(request),
            request: request.clone(),
            tape: Arc::clone(&self.tape),
            provider: self.inner.name().to_owned(),
            chunks: Vec::new(),
        };
        stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            let event = match state.inner.next().await? {
                Ok(event) => event,
                Err(error) => return Some((Err(error), None)),
            };
            match event {
                StreamEvent::Finished(answer) => {
                    let written = state.tape.write(&state.request, &answer, std::mem::take(&mut state.chunks)).await;
                    let last = written.map(|()| StreamEvent::Finished(answer)).map_err(|why| {
                        let what = format!(
                            "the answer came, but the cassette {} cannot be written: {why}",
                            state.tape.path.display()
                        );
                        ModelError::new(ErrorKind::Cassette, &state.provider, what)
                    });
                    Some((last, None))
                }
                event => {
                    if let StreamEvent::TextDelta { text } = &event {
                        state.chunks.push(text.clone());
                    }
                    Some((Ok(event), Some(state)))
                }
            }
        })
        .boxed()
    }
}

impl Tape {
    async fn write(&self, request: &Request, answer: &Answer, chunks: Vec<String>) -> std::io::Result<()> {
        let mut file = self.file.lock().await;
        let position = request.answers();
        // A turn that is made again replaces what followed it; a conversation that began before
        // the recording brings its earlier answers along.
        file.entries.truncate(position);
        let missing = file.entries.len();
        let earlier = request.messages.iter().filter_map(|message| match message {
            Message::Assistant(said) => Some(said),
            Message::User { .. } => None,
        });
        file.entries
            .extend(earlier.skip(missing).map(|said| Entry { message: Some(said.clone()), ..Entry::default() }));
        file.entries.push(Entry { request: Some(RequestNote::of(request)), chunks, ..Entry::of(answer) });
        let mut text = serde_json::to_vec_pretty(&*file)?;
        text.push(b'\n');
        let unfinished = self.path.with_added_extension("part");
        tokio::fs::write(&unfinished, text).await?;
        tokio::fs::rename(&unfinished, &self.path).await
    }
}
