//! The control group: legs that take the people's way to t3 and shorter ones, all day, so that a
//! drop nobody else saw is known to be the person's last mile, and one that a leg saw is known to
//! be that leg's segment.
//!
//! From a leg to a conclusion: [`dial`] establishes, [`echo`] keeps a leg under
//! observation, [`run`] restarts it, the [`leg_states`] keeps what was seen (metrics and the last
//! minutes), and `t3_record::probe` concludes.

pub mod cli;
pub mod dial;
pub mod echo;
pub mod leg;
pub mod leg_states;
pub mod metrics;
pub mod once;
pub mod page;
pub mod progress;
pub mod run;
