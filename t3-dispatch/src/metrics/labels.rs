//! The labels of the metrics: closed vocabularies, so that every series is there from the start and
//! none is ever named by what came from outside.

use t3_record::vocabulary::{Cause, KernelSource, Verdict};

use crate::metrics::reject_reason::RejectReason;

/// The values of one label.
pub trait Word: Copy + 'static {
    /// The label's name.
    const LABEL: &'static str;
    /// All values, each at its [`Word::index`].
    const ALL: &'static [Self];
    /// The value as it stands on the page.
    fn word(self) -> &'static str;
    /// Where it stands in [`Word::ALL`].
    fn index(self) -> usize;
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $label:literal { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl Word for $name {
            const LABEL: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

macro_rules! words_of_others {
    ($($name:ident, $label:literal, $word:ident;)+) => {$(
        impl Word for $name {
            const LABEL: &'static str = $label;
            const ALL: &'static [Self] = &$name::ALL;
            fn word(self) -> &'static str {
                self.$word()
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

words_of_others! {
    Verdict, "verdict", as_str;
    Cause, "cause", as_str;
    KernelSource, "kernel", as_str;
    RejectReason, "reason", word;
}

words! {
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

words! {
    /// How a pairing ended.
    Paired, "outcome" {
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

words! {
    /// How a request is answered that is no HTTP, or none that everybody reads alike.
    Bad, "status" {
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

impl Bad {
    /// By its status; one that is not in the list is malformed.
    #[must_use]
    pub fn of(status: http::StatusCode) -> Self {
        let word = status.as_str();
        Self::ALL.iter().copied().find(|bad| bad.word() == word).unwrap_or(Self::Malformed)
    }
}

words! {
    /// Whose an answer was.
    By, "by" {
        /// serve's.
        Serve = "serve",
        /// Our own: an error, a page, a redirect.
        Own = "dispatch",
    }
}

words! {
    /// The first digit of a status.
    Class, "class" {
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

impl Class {
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

words! {
    /// Result of obtaining a connection to serve.
    Upstream, "how" {
        /// Made.
        New = "new",
        /// Kept from an earlier request.
        Reused = "reused",
        /// Not at all.
        Failed = "failed",
    }
}

words! {
    /// What became of something that is tried.
    Tried, "result" {
        /// It worked.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
}

words! {
    /// What became of an entry for the journal.
    Entry, "outcome" {
        /// journald has it.
        Written = "written",
        /// The queue was full: it is lost.
        Lost = "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<W: Word>() {
        let mut seen = Vec::new();
        for (index, word) in W::ALL.iter().enumerate() {
            assert_eq!(word.index(), index, "{}", word.word());
            assert!(word.word().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{}", word.word());
            assert!(!seen.contains(&word.word()), "{} twice", word.word());
            seen.push(word.word());
        }
    }

    #[test]
    fn every_word_stands_at_its_index_and_is_there_once() {
        check::<Verdict>();
        check::<Cause>();
        check::<KernelSource>();
        check::<State>();
        check::<Paired>();
        check::<RejectReason>();
        check::<Bad>();
        check::<By>();
        check::<Class>();
        check::<Upstream>();
        check::<Tried>();
        check::<Entry>();
    }
}
