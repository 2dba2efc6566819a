//! Restart of t3-dispatch with open sessions: traffic whose every byte is checked at both ends, and
//! the programs with a [`Keeper`](crate::keeper::Keeper).

mod checker;
mod content;
mod fixture;
mod peer;
mod report;
mod state;
mod tally;
mod traffic;

pub use crate::chaos::plan::Rng;
pub use crate::keeper::LISTENER;
pub use checker::{Checker, Script, WrongByte};
pub use content::{Bytes, Direction, Frame, LARGE, Sender};
pub use fixture::{Fixture, Options};
pub use peer::{EndReport, Kind, Pace, StreamEnd};
pub use report::{SessionReport, findings};
pub use state::{copy, file, flipped};
pub use tally::Tally;
pub use traffic::Traffic;
