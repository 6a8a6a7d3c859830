//! Counting what moves: bytes for the record, the box's total for its cap, and the last sign of life
//! for the idle limit.
//!
//! Absent: decisions about requests; a stream over the cap just ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What all streams of one door have moved.
#[derive(Debug)]
pub(crate) struct Total {
    moved: AtomicU64,
    cap_bytes: Option<u64>,
}

impl Total {
    pub(crate) fn new(cap_bytes: Option<u64>) -> Self {
        Self { moved: AtomicU64::new(0), cap_bytes }
    }

    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// The cap, once it is used up.
    pub(crate) fn used_up(&self) -> Option<u64> {
        self.cap_bytes.filter(|cap| self.moved_bytes() >= *cap)
    }
}

/// When anything last moved on one of the box's connections.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touch(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Returns when nothing has moved for this long.
    pub(crate) async fn ceases(&self, limit: Duration) {
        loop {
            let quiet = Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)));
            let Some(left) = limit.checked_sub(quiet).filter(|left| !left.is_zero()) else { return };
            tokio::time::sleep(left).await;
        }
    }
}

/// Counts one stream.
#[derive(Debug)]
pub(crate) struct Meter {
    up: AtomicU64,
    down: AtomicU64,
    total: Option<Arc<Total>>,
    activity: Arc<Activity>,
}

impl Meter {
    /// For a stream to a far side, which counts for the cap.
    pub(crate) fn outward(total: &Arc<Total>, activity: &Arc<Activity>) -> Self {
        Self {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            total: Some(Arc::clone(total)),
            activity: Arc::clone(activity),
        }
    }

    /// For the box's own connection, which only shows signs of life.
    pub(crate) fn inward(activity: &Arc<Activity>) -> Self {
        Self { up: AtomicU64::new(0), down: AtomicU64::new(0), total: None, activity: Arc::clone(activity) }
    }

    pub(crate) fn up_bytes(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    pub(crate) fn down_bytes(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    fn count(&self, counter: &AtomicU64, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes > 0 {
            counter.fetch_add(bytes, Ordering::Relaxed);
            self.activity.touch();
            if let Some(total) = &self.total {
                total.moved.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.total.as_ref().and_then(|total| total.used_up()) {
            Some(cap) => Err(io::Error::other(format!("the box has used up its {cap} bytes"))),
            None => Ok(()),
        }
    }
}

/// A stream with a meter.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, meter: Arc<Meter>) -> Self {
        Self { stream, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.meter.check()?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.meter.count(&self.meter.down, buf.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.meter.check()?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.meter.count(&self.meter.up, *bytes);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
