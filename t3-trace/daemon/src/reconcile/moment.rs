//! A time on the wall clock and on the clock of a boot.

use serde::{Deserialize, Serialize};
use t3_record::evidence::Nanos;

/// A time on both clocks: the wall clock can be set, the other one starts with each boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Wall clock in microseconds since the epoch.
    pub(crate) wall_us: u64,
    /// Id of the boot.
    pub(crate) boot: String,
    /// `CLOCK_MONOTONIC` of that boot in nanoseconds.
    pub(crate) monotonic: Nanos,
}
