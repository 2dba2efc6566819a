//! What an upgrade has to pass before serve is asked: the origin of its page, the user's pace, and
//! a place for it.
//!
//! Who is turned away here never opened a WebSocket: there is a line and a counter for it, and no
//! `ws close`.

pub mod log_throttle;
pub mod origin;
pub mod quota;
pub mod rejections;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use t3_record::evidence::Nanos;

use crate::{
    admission::{
        origin::{Allowed, Foreign},
        quota::{Full, Pace, Rates, Seat, Seats},
    },
    metrics::reject_reason::RejectReason,
    response::body::ResponseBody,
    response::text::plain,
};

/// When to come back to a machine that has no place left: a browser tries again by itself, others
/// may look here.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// Limits on upgrades.
#[derive(Debug, Clone)]
pub struct Settings {
    pub max_sessions: NonZeroUsize,
    pub max_sessions_per_user: NonZeroUsize,
    /// Upgrades per second and user; 0 for no limit.
    pub upgrade_rate: u32,
    pub upgrade_burst: NonZeroU32,
    /// Origins allowed besides the host itself.
    pub allowed_origins: Vec<Allowed>,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    origins: Vec<Allowed>,
    rates: Option<Mutex<Rates>>,
    seats: Arc<Seats>,
}

/// Reason for rejecting an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// By its origin.
    #[error("{0}")]
    Origin(Foreign),
    /// The user opens WebSockets faster than allowed.
    #[error("too many upgrades of this user; see --upgrade-rate and --upgrade-burst")]
    Rate(Duration),
    /// The user has too many.
    #[error("too many open WebSockets of this user; see --max-sessions-per-user")]
    UserSessions,
    /// There are too many.
    #[error("too many open WebSockets; see --max-sessions")]
    Sessions,
}

impl Gate {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let rates = NonZeroU32::new(settings.upgrade_rate)
            .map(|rate| Mutex::new(Rates::new(Pace::new(rate, settings.upgrade_burst))));
        Self {
            origins: settings.allowed_origins,
            rates,
            seats: Seats::new(settings.max_sessions.get(), settings.max_sessions_per_user.get()),
        }
    }

    /// Lets an upgrade of `user` pass. Its place is held as long as the [`Seat`] lives.
    ///
    /// # Errors
    /// [`Closed`] says why not.
    pub fn admit(&self, headers: &HeaderMap, user: &str, now: Nanos) -> Result<Seat, Closed> {
        origin::check(headers, &self.origins).map_err(Closed::Origin)?;
        if let Some(rates) = &self.rates {
            let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
            rates.take(user, now).map_err(Closed::Rate)?;
        }
        self.seats.take(user).map_err(|full| match full {
            Full::All => Closed::Sessions,
            Full::User => Closed::UserSessions,
        })
    }

    /// WebSockets that have a place, and how many users they belong to.
    #[must_use]
    pub fn taken(&self) -> (usize, usize) {
        self.seats.taken()
    }
}

impl Closed {
    /// For counters and logs.
    #[must_use]
    pub const fn reason(&self) -> RejectReason {
        match self {
            Self::Origin(_) => RejectReason::Origin,
            Self::Rate(_) => RejectReason::Rate,
            Self::UserSessions => RejectReason::UserSessions,
            Self::Sessions => RejectReason::Sessions,
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Rate(_) | Self::UserSessions => StatusCode::TOO_MANY_REQUESTS,
            Self::Sessions => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self) -> Response<ResponseBody> {
        let mut response = plain(self.status(), &self.to_string());
        let wait = match self {
            Self::Origin(_) => return response,
            Self::Rate(wait) => *wait,
            Self::UserSessions | Self::Sessions => FULL_RETRY,
        };
        // Whole seconds (RFC 9110 section 10.2.3), and never too early.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_when_to_come_back() {
        for (closed, status, after) in [
            (Closed::Rate(Duration::from_millis(1)), 429, Some("1")),
            (Closed::Rate(Duration::from_millis(2001)), 429, Some("3")),
            (Closed::UserSessions, 429, Some("5")),
            (Closed::Sessions, 503, Some("5")),
        ] {
            let answer = closed.answer();
            assert_eq!(answer.status().as_u16(), status);
            let found = answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(found, after, "{closed}");
        }
    }
}
