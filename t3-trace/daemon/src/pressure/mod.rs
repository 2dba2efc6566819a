//! Pressure of the host and of each user's cgroup: one sample per second, kept for a minute,
//! evaluated at a close.
//!
//! Does not report the kernel's averages, which lag, nor zeros for values that the kernel lacks.

mod host_time;
mod psi;
mod ring;
mod sampler;

pub use psi::{Totals, parse};
pub use ring::{Counters, KEEP, LONG_WINDOW, Ring, Sample, WINDOW};
pub use sampler::{Reading, Recent, Sampler, SamplerError};
