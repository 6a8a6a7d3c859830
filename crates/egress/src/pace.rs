//! How often something may happen: freely up to a burst, then at a steady rate. Whoever is too early
//! waits; nobody is refused.
//!
//! It keeps a box that asks without end from filling the place where records go. Absent: fairness
//! between the connections of one box.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate for all connections of one door.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    burst: Duration,
    /// When the turn after all that were given is due at the steady rate.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    /// `per_second` (at least one) in the long run, and `burst` at once.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: interval * burst, due: Mutex::new(None) }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) {
        if let Some(at) = self.take(Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// Takes a turn; if it is not due yet, says when it is.
    fn take(&self, now: Instant) -> Option<Instant> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let this = due.map_or(now, |due| due.max(now));
        *due = Some(this + self.interval);
        let early = this.checked_duration_since(now)?.checked_sub(self.burst)?;
        (!early.is_zero()).then(|| now + early)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_waits_its_turn() {
        let pace = Pace::new(10, 5);
        let now = Instant::now();
        let waits: Vec<u128> =
            (0..9).map(|_| pace.take(now).map_or(0, |at| at.duration_since(now).as_millis())).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(10);
        assert_eq!(pace.take(later), None, "what was not used comes back");
    }
}
