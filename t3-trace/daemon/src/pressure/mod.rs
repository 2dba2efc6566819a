//! Was the machine, or the user's cgroup, starving? Counters once a second into a ring of a minute,
//! and the answer at the moment of a close.
//!
//! Never reports averages of the kernel (they lag) and never a zero for what the kernel does not
//! give.

mod psi;
mod ring;
mod sampler;

pub use psi::{Totals, parse};
pub use ring::{Counters, KEEP, LONG_WINDOW, Ring, Sample, WINDOW};
pub use sampler::{Reading, Recent, Sampler, SamplerError};
