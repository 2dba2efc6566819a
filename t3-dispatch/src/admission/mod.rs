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
        origin::{AllowedOrigin, OriginMismatch},
        quota::{QuotaExceeded, RateLimiter, SessionPermit, SessionQuota, TokenBucket},
    },
    metrics::reject_reason::RejectReason,
    response::body::ResponseBody,
    response::text::plain,
};

/// When to come back to a machine that has no place left: a browser tries again by itself, others
/// may look here.
const SESSIONS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Limits on upgrades.
#[derive(Debug, Clone)]
pub struct Settings {
    pub max_sessions: NonZeroUsize,
    pub max_sessions_per_user: NonZeroUsize,
    /// Upgrades per second and user; 0 for no limit.
    pub upgrade_rate: u32,
    pub upgrade_burst: NonZeroU32,
    /// Origins allowed besides the host itself.
    pub allowed_origins: Vec<AllowedOrigin>,
}

/// The gate.
#[derive(Debug)]
pub struct Admission {
    origins: Vec<AllowedOrigin>,
    limiter: Option<Mutex<RateLimiter>>,
    quota: Arc<SessionQuota>,
}

/// Reason for rejecting an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// By its origin.
    #[error("{0}")]
    Origin(OriginMismatch),
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

impl Admission {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let limiter = NonZeroU32::new(settings.upgrade_rate)
            .map(|rate| Mutex::new(RateLimiter::new(TokenBucket::new(rate, settings.upgrade_burst))));
        Self {
            origins: settings.allowed_origins,
            limiter,
            quota: SessionQuota::new(settings.max_sessions.get(), settings.max_sessions_per_user.get()),
        }
    }

    /// Lets an upgrade of `user` pass. Its place is held as long as the [`SessionPermit`] lives.
    ///
    /// # Errors
    /// [`AdmissionError`] says why not.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        user: &str,
        now: Nanos,
    ) -> Result<SessionPermit, AdmissionError> {
        origin::check(headers, &self.origins).map_err(AdmissionError::Origin)?;
        if let Some(limiter) = &self.limiter {
            let mut limiter = limiter.lock().unwrap_or_else(PoisonError::into_inner);
            limiter.acquire(user, now).map_err(AdmissionError::Rate)?;
        }
        self.quota.acquire(user).map_err(|exceeded| match exceeded {
            QuotaExceeded::Total => AdmissionError::Sessions,
            QuotaExceeded::User => AdmissionError::UserSessions,
        })
    }

    /// WebSockets that have a place, and how many users they belong to.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        self.quota.in_use()
    }
}

impl AdmissionError {
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
            Self::UserSessions | Self::Sessions => SESSIONS_RETRY_AFTER,
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
        for (error, status, after) in [
            (AdmissionError::Rate(Duration::from_millis(1)), 429, Some("1")),
            (AdmissionError::Rate(Duration::from_millis(2001)), 429, Some("3")),
            (AdmissionError::UserSessions, 429, Some("5")),
            (AdmissionError::Sessions, 503, Some("5")),
        ] {
            let answer = error.answer();
            assert_eq!(answer.status().as_u16(), status);
            let found = answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(found, after, "{error}");
        }
    }
}
