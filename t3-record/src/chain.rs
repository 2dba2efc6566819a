//! The first events of both legs in kernel order: `up:rst_in@0,up:peer_sig9@-2,down:fin_out@1`.
//!
//! Each item: leg, event, milliseconds relative to the event that decided the verdict (negative:
//! before it). Up to [`MAX_EVENTS`], in the order of time.

use std::{fmt, str::FromStr};

use crate::vocabulary::Side;

/// Limit of events in a chain.
pub const MAX_EVENTS: usize = 8;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Leg.
    pub side: Side,
    /// Event, a lower-case token.
    pub what: String,
    /// Milliseconds relative to the deciding event.
    pub at_ms: i64,
}

/// The events in the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain(pub Vec<Event>);

/// Text that is not a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an event of a chain: expected leg:what@milliseconds")]
pub struct BadEvent(pub String);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, event) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}@{}", event.side, event.what, event.at_ms)?;
        }
        Ok(())
    }
}

impl FromStr for Chain {
    type Err = BadEvent;
    fn from_str(text: &str) -> Result<Self, BadEvent> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(event).collect::<Result<Vec<_>, _>>().map(Self)
    }
}

fn event(text: &str) -> Result<Event, BadEvent> {
    let bad = || BadEvent(text.to_owned());
    let (side, rest) = text.split_once(':').ok_or_else(bad)?;
    let (what, at) = rest.rsplit_once('@').ok_or_else(bad)?;
    let token =
        !what.is_empty() && what.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !token {
        return Err(bad());
    }
    Ok(Event {
        side: side.parse().map_err(|_| bad())?,
        what: what.to_owned(),
        at_ms: at.parse().map_err(|_| bad())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_reads_back() {
        let text = "up:peer_sig9@-2,up:rst_in@0,down:fin_out@1";
        let chain: Chain = text.parse().unwrap();
        assert_eq!(chain.0.len(), 3);
        assert_eq!(chain.0[0], Event { side: Side::Up, what: "peer_sig9".into(), at_ms: -2 });
        assert_eq!(chain.to_string(), text);
        assert_eq!("".parse::<Chain>(), Ok(Chain::default()));
    }

    #[test]
    fn strange_text_is_refused() {
        for text in ["up", "up:x", "up:@1", "left:x@1", "up:x@y", ",", "up:a b@1", "up:x@1,"] {
            assert!(text.parse::<Chain>().is_err(), "{text:?}");
        }
    }
}
