//! The labels of the metrics: closed vocabularies, so that every series is there from the start and
//! none is ever named by what came from outside.

use t3_record::vocabulary::{Cause, KernelSource, Verdict};

use crate::metrics::reject_reason::RejectReason;

/// The values of one label.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values, each at its [`Label::index`].
    const ALL: &'static [Self];
    /// The value as it stands on the page.
    fn value(self) -> &'static str;
    /// Where it stands in [`Label::ALL`].
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
    /// Where a WebSocket without a record stands.
    State, "state" {
        /// serve has been asked.
        Opening = "opening",
        /// The relay runs.
        Open = "open",
        /// The first leg has ended, or the opening has failed; its record is still to be written.
        Closing = "closing",
    }
}

labels! {
    /// How a pairing ended.
    PairingOutcome, "outcome" {
        /// The browser has a session, by the usual endpoint.
        Paired = "paired",
        /// The browser has a session, by the fallback endpoint.
        Fallback = "paired_fallback",
        /// No credential could be minted.
        MintFailed = "mint_failed",
        /// serve gave no answer to the exchange.
        Unreachable = "exchange_unreachable",
        /// serve did not take the credential, or opened no session for it.
        Rejected = "exchange_rejected",
        /// A browser that comes back without its session again and again was stopped.
        Loop = "loop_stopped",
        /// serve does not know the session of a browser: it is paired again.
        Unknown = "check_unauthenticated",
        /// Whether a session is still good could not be found out: the request was passed on.
        CheckFailed = "check_failed",
    }
}

labels! {
    /// How a request is answered that is no HTTP, or none that everybody reads alike.
    InvalidRequest, "status" {
        /// Malformed.
        Malformed = "400",
        /// A method that is not allowed.
        Method = "405",
        /// It did not come in time.
        Slow = "408",
        /// Its target is too long.
        Target = "414",
        /// Its head is too large.
        Head = "431",
        /// Another version of HTTP.
        Version = "505",
    }
}

impl InvalidRequest {
    /// By its status; one that is not in the list is malformed.
    #[must_use]
    pub fn of(status: http::StatusCode) -> Self {
        let label = status.as_str();
        Self::ALL.iter().copied().find(|bad| bad.value() == label).unwrap_or(Self::Malformed)
    }
}

labels! {
    /// Whose an answer was.
    ResponseSource, "by" {
        /// serve's.
        Serve = "serve",
        /// Our own: an error, a page, a redirect.
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
    /// The class of a status; one beyond 599 counts with the errors.
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
        /// Made.
        New = "new",
        /// Kept from an earlier request.
        Reused = "reused",
        /// Not at all.
        Failed = "failed",
    }
}

labels! {
    /// What became of something that is tried.
    ReloadResult, "result" {
        /// It worked.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
}

labels! {
    /// What became of an entry for the journal.
    JournalOutcome, "outcome" {
        /// journald has it.
        Written = "written",
        /// The queue was full: it is lost.
        Lost = "lost",
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
    fn every_word_stands_at_its_index_and_is_there_once() {
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
    }
}
