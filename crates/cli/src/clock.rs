//! What time it is, for ages on pages.
//!
//! Absent: the engine's clock, which `compose` hands over, and anything that decides by the time.

use jiff::Timestamp;

/// Now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "ages on a page are told by the real clock; renderers take `now`")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
