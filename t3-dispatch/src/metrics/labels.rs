//! Labels of the metrics: closed vocabularies, so that every series exists from the start and no
//! outside input becomes a label value.

use t3_record::vocabulary::{Cause, KernelSource, Verdict};

use crate::metrics::reject_reason::RejectReason;

/// The values of one label.
pub trait Label: Copy + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// All values; each is at its [`Label::index`].
    const ALL: &'static [Self];
    /// Value on the metrics page.
    fn value(self) -> &'static str;
    /// Index in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident, $label:literal { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

macro_rules! label_of {
    ($($name:ident, $label:literal, $value:ident;)+) => {$(
        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &$name::ALL;
            fn value(self) -> &'static str {
                self.$value()
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

label_of! {
    Verdict, "verdict", as_str;
    Cause, "cause", as_str;
    KernelSource, "kernel", as_str;
    RejectReason, "reason", value;
}

labels! {
    /// State of a WebSocket that has no record yet.
    State, "state" {
        /// The upgrade was forwarded to serve.
        Opening = "opening",
        /// The relay runs.
        Open = "open",
        /// The first leg has ended or the open has failed; the record is pending.
        Closing = "closing",
    }
}

labels! {
    /// Outcome of a pairing.
    PairingOutcome, "outcome" {
        /// The browser has a session from the current endpoint.
        Paired = "paired",
        /// The browser has a session from the fallback endpoint.
        Fallback = "paired_fallback",
        /// No credential could be minted.
        MintFailed = "mint_failed",
        /// serve sent no response to the exchange.
        Unreachable = "exchange_unreachable",
        /// serve rejected the credential or opened no session for it.
        Rejected = "exchange_rejected",
        /// The port of serve belongs to another user; no credential was sent.
        ForeignListener = "foreign_listener",
        /// A browser that repeatedly returned without its session was stopped.
        Loop = "loop_stopped",
        /// The user had too many sessions within a minute.
        Limited = "limited",
        /// serve does not know the session of the browser, which is paired again.
        Unknown = "check_unauthenticated",
        /// The session could not be checked; the request was forwarded.
        CheckFailed = "check_failed",
    }
}

labels! {
    /// Response status of an invalid request.
    InvalidRequest, "status" {
        /// Malformed.
        Malformed = "400",
        /// Method not allowed.
        Method = "405",
        /// Timed out.
        Slow = "408",
        /// Target too long.
        Target = "414",
        /// Head too large.
        Head = "431",
        /// Unsupported HTTP version.
        Version = "505",
    }
}

impl InvalidRequest {
    /// Returns the value of a status; `Malformed` if it is not in the list.
    #[must_use]
    pub fn of(status: http::StatusCode) -> Self {
        let label = status.as_str();
        Self::ALL.iter().copied().find(|bad| bad.value() == label).unwrap_or(Self::Malformed)
    }
}

labels! {
    /// Limit in effect.
    Limit, "limit" {
        /// `--max-connections`.
        Connections = "connections",
        /// Untrusted part of it.
        Untrusted = "untrusted_connections",
        /// `--max-requests-per-user`.
        UserRequests = "user_requests",
        /// `--max-sessions`.
        Sessions = "sessions",
        /// `--max-sessions-per-user`.
        UserSessions = "user_sessions",
        /// `--max-probes`.
        Probes = "probes",
    }
}

impl Limit {
    pub const COUNT: usize = 6;
}

labels! {
    /// Source of a response.
    ResponseSource, "by" {
        Serve = "serve",
        /// t3-dispatch itself: an error, a page, a redirect.
        Own = "dispatch",
    }
}

labels! {
    /// The first digit of a status.
    StatusClass, "class" {
        /// Informational; 101 for a WebSocket.
        C1 = "1xx",
        /// Successful.
        C2 = "2xx",
        /// Redirection.
        C3 = "3xx",
        /// Client error.
        C4 = "4xx",
        /// Server error.
        C5 = "5xx",
    }
}

impl StatusClass {
    /// Returns the class of a status; a status above 599 counts as 5xx.
    #[must_use]
    pub fn of(status: http::StatusCode) -> Self {
        match status.as_u16() / 100 {
            1 => Self::C1,
            2 => Self::C2,
            3 => Self::C3,
            4 => Self::C4,
            _ => Self::C5,
        }
    }
}

labels! {
    /// Result of obtaining a connection to serve.
    ConnectResult, "how" {
        /// New connection.
        New = "new",
        /// Pooled connection of an earlier request.
        Reused = "reused",
        /// The connection failed.
        Failed = "failed",
    }
}

labels! {
    /// Result of a reload.
    ReloadResult, "result" {
        Ok = "ok",
        Failed = "failed",
    }
}

labels! {
    /// How a connection without a request counts.
    AttemptKind, "how" {
        /// dispatch kept it waiting for a second or longer.
        Late = "late",
        /// A part of a request arrived.
        Partial = "partial",
        /// Nothing arrived in a second or longer.
        Empty = "empty",
    }
}

labels! {
    /// How a connection without a request ended.
    AttemptEnd, "end" {
        /// The client closed it.
        Fin = "fin",
        /// The client reset it, or the connection failed.
        Rst = "rst",
        /// A timeout of dispatch or of TCP.
        Timeout = "timeout",
        /// dispatch stopped.
        Shutdown = "shutdown",
    }
}

labels! {
    /// Outcome of a journal entry.
    JournalOutcome, "outcome" {
        /// Sent to journald.
        Written = "written",
        /// Dropped because the queue was full.
        Lost = "lost",
        /// Set aside because it can never be sent.
        Rejected = "rejected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<W: Label>() {
        let mut seen = Vec::new();
        for (index, label) in W::ALL.iter().enumerate() {
            assert_eq!(label.index(), index, "{}", label.value());
            assert!(
                label.value().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                "{}",
                label.value()
            );
            assert!(!seen.contains(&label.value()), "{} twice", label.value());
            seen.push(label.value());
        }
    }

    #[test]
    fn every_value_is_at_its_index_and_unique() {
        check::<Verdict>();
        check::<Cause>();
        check::<KernelSource>();
        check::<State>();
        check::<PairingOutcome>();
        check::<RejectReason>();
        check::<InvalidRequest>();
        check::<ResponseSource>();
        check::<StatusClass>();
        check::<ConnectResult>();
        check::<ReloadResult>();
        check::<JournalOutcome>();
        check::<AttemptKind>();
        check::<AttemptEnd>();
    }
}
