//! Bodies on their way: the beginning of a push put back in front of its rest, and an answer that is
//! searched for the secret while it passes.
//!
//! The answer's body drives its connection to the far side, so no task has to be started for that
//! connection and nothing outlives the request. Absent: buffering of whole bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::serve::Session;
use super::upstream::Upstream;
use crate::audit::OpenRecord;
use crate::redact::Redactor;

/// Why a body broke off.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body of ours.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body whose beginning was read already.
pub(super) struct Prefixed {
    pub first: Option<Bytes>,
    pub rest: Incoming,
}

impl hyper::body::Body for Prefixed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        Pin::new(&mut self.rest).poll_frame(cx).map_err(BodyError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |first| u64::try_from(first.len()).unwrap_or(u64::MAX));
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + first),
            None => SizeHint::default(),
        }
    }
}

/// An answer's body.
pub(super) struct Answer {
    pub incoming: Incoming,
    /// Taken and kept for the next request when the body has ended well.
    pub upstream: Option<Upstream>,
    pub redactor: Option<Redactor>,
    pub record: OpenRecord,
    pub session: Arc<Session>,
    pub ended: bool,
}

impl Answer {
    /// For an answer that may have no body at all.
    pub(super) fn ready(mut self) -> Self {
        if self.incoming.is_end_stream() {
            self.end();
        }
        self
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(upstream) = self.upstream.take() {
            self.session.keep(upstream);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            self.record.failed("it ended before the answer was complete: the box or the door went away");
        }
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(upstream) = &mut self.upstream {
                upstream.drive(cx);
            }
            let polled = Pin::new(&mut self.incoming).poll_frame(cx);
            let frame = match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    self.record.failed("the answer broke off");
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    self.end();
                    let rest = self.redactor.as_mut().map(Redactor::finish).unwrap_or_default();
                    let last = (!rest.is_empty()).then(|| Ok(Frame::data(Bytes::from(rest))));
                    return Poll::Ready(last);
                }
            };
            // Nobody asks for more once an announced length is reached.
            let is_last = self.incoming.is_end_stream();
            let frame = match &mut self.redactor {
                None => Some(frame),
                // Trailers of an answer that is searched are left out: nothing needs them.
                Some(redactor) => {
                    let mut out = frame.into_data().map(|data| redactor.push(&data)).unwrap_or_default();
                    if is_last {
                        out.extend(redactor.finish());
                    }
                    (!out.is_empty()).then(|| Frame::data(Bytes::from(out)))
                }
            };
            if is_last {
                self.end();
            }
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        // A mask has the length of what it hides, so what was announced stays true.
        if self.ended { SizeHint::with_exact(0) } else { self.incoming.size_hint() }
    }
}
