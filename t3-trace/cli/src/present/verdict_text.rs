//! The verdicts in plain words, as an operator would say them. A close is told by what happened,
//! not by the project's own vocabulary.

use t3_record::vocabulary::{Segment, Verdict};

/// A verdict's sentence.
#[must_use]
pub const fn plain(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::ClientClosed => "browser closed",
        Verdict::ClientLeft => "browser left without goodbye",
        Verdict::ClientReset => "browser's side reset",
        Verdict::ClientVanished => "browser's side vanished",
        Verdict::PathStalled => "network to browser stalled",
        Verdict::ClientProtocol => "browser broke the protocol",
        Verdict::EdgeBurst => "shared path was cut",
        Verdict::ServeClosed => "serve closed",
        Verdict::ServeLeft => "serve left without goodbye",
        Verdict::ServeReset => "serve reset",
        Verdict::ServeExited => "serve exited",
        Verdict::ServeKilled => "serve was killed",
        Verdict::ServeOom => "serve ran out of memory",
        Verdict::ServeStalled => "serve did not answer",
        Verdict::ServeRefused => "serve was not there",
        Verdict::ServeTimeout => "serve never answered",
        Verdict::ServeRejected => "serve refused the session",
        Verdict::ServeProtocol => "serve broke the protocol",
        Verdict::DispatchShutdown => "proxy was stopped",
        Verdict::DispatchStalled => "proxy stood still",
        Verdict::DispatchDied => "proxy died",
        Verdict::AdminKilled => "cut by an administrator",
        Verdict::Unknown => "unknown (a bug: report it)",
    }
}

/// The longest sentence, in characters: the width of its column.
pub const WIDTH: usize = 28;

/// What a verdict means for the reader's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Fine,
    /// Somebody was cut off, by something outside of this machine.
    Warning,
    /// Somebody was cut off, by something on this machine.
    Bad,
}

/// The tone of a close.
#[must_use]
pub const fn tone(verdict: Verdict, segment: Segment) -> Tone {
    match (verdict, segment) {
        (
            Verdict::ClientClosed | Verdict::ClientLeft | Verdict::ServeClosed | Verdict::DispatchShutdown,
            _,
        ) => Tone::Fine,
        (Verdict::Unknown, _) | (_, Segment::Serve | Segment::Devvm | Segment::Dispatch) => Tone::Bad,
        _ => Tone::Warning,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_verdict_has_words_of_its_own_that_fit_their_column() {
        let sentences: HashSet<&str> = Verdict::ALL.iter().map(|verdict| plain(*verdict)).collect();
        assert_eq!(sentences.len(), Verdict::ALL.len());
        let longest = sentences.iter().map(|sentence| sentence.chars().count()).max();
        assert_eq!(longest, Some(WIDTH));
    }

    #[test]
    fn no_plain_words_are_our_own_vocabulary() {
        for verdict in Verdict::ALL {
            assert!(!plain(*verdict).contains('_'), "{verdict}");
        }
    }

    #[test]
    fn what_is_our_machines_fault_is_bad_and_an_ordinary_end_is_fine() {
        assert_eq!(tone(Verdict::ClientClosed, Segment::None), Tone::Fine);
        assert_eq!(tone(Verdict::ServeStalled, Segment::Devvm), Tone::Bad);
        assert_eq!(tone(Verdict::PathStalled, Segment::Downstream), Tone::Warning);
        assert_eq!(tone(Verdict::Unknown, Segment::Unknown), Tone::Bad);
    }
}
