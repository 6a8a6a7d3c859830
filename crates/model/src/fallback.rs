//! A list of models as one provider: the next is asked when one cannot begin to answer.
//!
//! Each call begins with the first model of the list. It gives way when it is overloaded, out of
//! reach or silent, or its quota or money is used up, and only before it has said anything: what
//! a model has begun to say is never taken up by another. Those after it are a help and no more:
//! whatever keeps one of them from beginning, the next is asked. A model whose provider named a
//! minimum wait is passed over unasked until that time has come.
//!
//! An answer names the provider and model that gave it, as ever, so the blocks of each go back to
//! it alone. Absent: retries, and any memory of which model answered before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::Instant;

use crate::error::{ErrorKind, ModelError};
use crate::provider::{EventStream, PassedOver, Provider, StreamEvent};
use crate::transcript::{Request, Wire};
use crate::usage::Price;

/// A model of a list.
#[derive(Clone)]
pub struct Choice {
    /// Where it is.
    pub provider: Arc<dyn Provider>,
    /// Its name there; it takes the place of [`Request::model`].
    pub model: String,
}

/// A list of models as one provider. Its name and wire are those of the first.
pub struct Fallback {
    first: Listed,
    others: Arc<[Listed]>,
}

/// A choice and when it may be asked again.
#[derive(Clone)]
struct Listed {
    choice: Choice,
    rest: Arc<Mutex<Option<Rest>>>,
}

/// A wait that a provider demanded.
struct Rest {
    until: Instant,
    error: ModelError,
}

impl Fallback {
    /// A list that begins with `first`; the others are asked in their order.
    #[must_use]
    pub fn new(first: Choice, others: Vec<Choice>) -> Self {
        let listed = |choice| Listed { choice, rest: Arc::default() };
        Self { first: listed(first), others: others.into_iter().map(listed).collect() }
    }
}

impl Provider for Fallback {
    fn name(&self) -> &str {
        self.first.choice.provider.name()
    }
    fn wire(&self) -> Wire {
        self.first.choice.provider.wire()
    }

    /// The price of the first of the list that has this name; of the list's first model if none has.
    fn price(&self, model: &str) -> Option<Price> {
        let named = std::iter::once(&self.first).chain(self.others.iter()).find(|listed| listed.choice.model == model);
        let choice = &named.unwrap_or(&self.first).choice;
        choice.provider.price(&choice.model)
    }

    /// The stream of the first model that begins. Its `Started` tells who was passed over; if none
    /// begins, the error does.
    fn stream(&self, request: &Request) -> EventStream {
        let call = Call {
            left: std::iter::once(&self.first).chain(self.others.iter()).cloned().collect::<Vec<_>>().into_iter(),
            request: request.clone(),
            asked: None,
            passed_over: Vec::new(),
            begun: false,
        };
        stream::unfold(Some(call), Call::step).boxed()
    }
}

/// A call on its way through the list.
struct Call {
    left: std::vec::IntoIter<Listed>,
    request: Request,
    asked: Option<(Listed, EventStream)>,
    passed_over: Vec<PassedOver>,
    /// The model that was asked has said something.
    begun: bool,
}

impl Call {
    async fn step(call: Option<Self>) -> Option<(Result<StreamEvent, ModelError>, Option<Self>)> {
        let mut call = call?;
        loop {
            let Some((listed, events)) = &mut call.asked else {
                let Some(listed) = call.left.next() else {
                    return Some((Err(none_began(call.passed_over)), None));
                };
                match listed.resting() {
                    Some(error) => call.pass_over(&listed, error),
                    None => {
                        call.request.model.clone_from(&listed.choice.model);
                        let events = listed.choice.provider.stream(&call.request);
                        call.asked = Some((listed, events));
                    }
                }
                continue;
            };
            match events.next().await? {
                Ok(StreamEvent::Started { model, passed_over }) => {
                    let passed_over = call.passed_over.iter().cloned().chain(passed_over).collect();
                    return Some((Ok(StreamEvent::Started { model, passed_over }), Some(call)));
                }
                Ok(event) => {
                    call.begun = true;
                    return Some((Ok(event), Some(call)));
                }
                Err(error) if !call.begun && (gives_way(error.kind) || !call.passed_over.is_empty()) => {
                    listed.rest(&error);
                    let listed = listed.clone();
                    call.asked = None;
                    call.pass_over(&listed, error);
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    }

    fn pass_over(&mut self, listed: &Listed, error: ModelError) {
        let Choice { provider, model } = &listed.choice;
        self.passed_over.push(PassedOver { provider: provider.name().to_owned(), model: model.clone(), error });
    }
}

impl Listed {
    /// Why it may not be asked now, with the wait that is left.
    fn resting(&self) -> Option<ModelError> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Rest { until, error } = rest.as_ref()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            *rest = None;
            return None;
        }
        let after_ms = Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
        let kind = match error.kind {
            ErrorKind::RateLimited { .. } => ErrorKind::RateLimited { after_ms },
            _ => ErrorKind::Overloaded { after_ms },
        };
        Some(ModelError { kind, ..error.clone() })
    }

    fn rest(&self, error: &ModelError) {
        let Some(wait_ms) = demanded_ms(error.kind) else { return };
        let until = Instant::now() + Duration::from_millis(wait_ms);
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Rest { until, error: error.clone() });
    }
}

/// The wait that the provider demands.
fn demanded_ms(kind: ErrorKind) -> Option<u64> {
    match kind {
        ErrorKind::RateLimited { after_ms } | ErrorKind::Overloaded { after_ms } => after_ms,
        _ => None,
    }
}

/// Whether the first of a list makes way: another model may fare better with the same request.
fn gives_way(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::RateLimited { .. }
        | ErrorKind::Overloaded { .. }
        | ErrorKind::OutOfCredit
        | ErrorKind::Unreachable
        | ErrorKind::Silent { .. } => true,
        // The request is at fault, or a person must act, or an answer had begun.
        ErrorKind::Broken
        | ErrorKind::BadCall
        | ErrorKind::CutCall
        | ErrorKind::Auth
        | ErrorKind::ContextTooLong
        | ErrorKind::BadRequest
        | ErrorKind::Refused
        | ErrorKind::TooLarge
        | ErrorKind::Cassette => false,
    }
}

/// The error of a list of which none began: that of the one that may be asked again soonest, else
/// the first's. Its message tells of all.
fn none_began(passed_over: Vec<PassedOver>) -> ModelError {
    let soonest = passed_over
        .iter()
        .enumerate()
        .filter(|(_, passed)| passed.error.kind.is_retryable())
        .min_by_key(|(_, passed)| demanded_ms(passed.error.kind).unwrap_or(0))
        .map_or(0, |(position, _)| position);
    let others: Vec<String> = passed_over
        .iter()
        .enumerate()
        .filter(|(position, _)| *position != soonest)
        .map(|(_, passed)| format!("{} {}: {}", passed.provider, passed.model, passed.error.message))
        .collect();
    match passed_over.into_iter().nth(soonest) {
        Some(PassedOver { mut error, .. }) if !others.is_empty() => {
            error.message =
                format!("{} (nor did another model of the list begin: {})", error.message, others.join("; "));
            error
        }
        Some(passed) => passed.error,
        // A list has a first.
        None => ModelError::new(ErrorKind::BadRequest, "model", "the list of models is empty"),
    }
}
