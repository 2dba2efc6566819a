//! Checks before an upgrade is forwarded to serve: origin, rate and session quota.
//!
//! A rejected upgrade never opened a WebSocket: it gets a log line and a counter, but no `ws close`
//! record.

pub mod client;
pub mod connections;
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
        quota::{QuotaExceeded, RateLimiter, TokenBucket, UserPermit, UserQuota},
    },
    metrics::reject_reason::RejectReason,
    response::body::ResponseBody,
    response::text::plain,
};

/// Retry-After of a rejection by the session quota. Browsers retry without it; other clients use
/// it.
const SESSIONS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Limits on upgrades.
#[derive(Debug, Clone)]
pub struct AdmissionSettings {
    pub max_sessions: NonZeroUsize,
    pub max_sessions_per_user: NonZeroUsize,
    /// Upgrades per second and user; 0 for no limit.
    pub upgrade_rate: u32,
    pub upgrade_burst: NonZeroU32,
    /// Allowed origins in addition to the host itself.
    pub allowed_origins: Vec<AllowedOrigin>,
}

#[derive(Debug)]
pub struct Admission {
    origins: Vec<AllowedOrigin>,
    limiter: Option<Mutex<RateLimiter>>,
    quota: Arc<UserQuota>,
}

/// Reason for rejecting an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    #[error("{0}")]
    Origin(OriginMismatch),
    /// The user exceeds the upgrade rate; holds the time until the next token.
    #[error("too many upgrades of this user; see --upgrade-rate and --upgrade-burst")]
    Rate(Duration),
    #[error("too many open WebSockets of this user; see --max-sessions-per-user")]
    UserSessions,
    #[error("too many open WebSockets; see --max-sessions")]
    Sessions,
}

impl Admission {
    #[must_use]
    pub fn new(settings: AdmissionSettings) -> Self {
        let limiter = NonZeroU32::new(settings.upgrade_rate)
            .map(|rate| Mutex::new(RateLimiter::new(TokenBucket::new(rate, settings.upgrade_burst))));
        Self {
            origins: settings.allowed_origins,
            limiter,
            quota: UserQuota::new(settings.max_sessions.get(), settings.max_sessions_per_user.get()),
        }
    }

    /// Admits an upgrade of `user`. It counts against the quota until the [`UserPermit`] is
    /// dropped.
    ///
    /// # Errors
    /// [`AdmissionError`] names the failed check.
    pub fn admit(&self, headers: &HeaderMap, user: &str, now: Nanos) -> Result<UserPermit, AdmissionError> {
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

    /// Admits a session that is already open.
    pub fn readmit(&self, user: &str) -> UserPermit {
        self.quota.acquire_above_limit(user)
    }

    /// Returns the limits on WebSockets: in total, and per user.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        self.quota.limits()
    }

    /// Returns the number of WebSockets with a permit, and the number of their users.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize) {
        self.quota.in_use()
    }
}

impl AdmissionError {
    #[must_use]
    pub const fn reason(&self) -> RejectReason {
        match self {
            Self::Origin(_) => RejectReason::Origin,
            Self::Rate(_) => RejectReason::Rate,
            Self::UserSessions => RejectReason::UserSessions,
            Self::Sessions => RejectReason::Sessions,
        }
    }

    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Rate(_) | Self::UserSessions => StatusCode::TOO_MANY_REQUESTS,
            Self::Sessions => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    #[must_use]
    pub fn answer(&self) -> Response<ResponseBody> {
        let mut response = plain(self.status(), &self.to_string());
        let wait = match self {
            Self::Origin(_) => return response,
            Self::Rate(wait) => *wait,
            Self::UserSessions | Self::Sessions => SESSIONS_RETRY_AFTER,
        };
        // Seconds (RFC 9110 section 10.2.3), rounded up.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_has_retry_after() {
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
