//! Control group: probe legs on the users' path to t3 and on shorter paths. A disconnect that no
//! leg saw is the user's last mile; one that a leg saw is in the segment of that leg.
//!
//! [`dial`] establishes a leg, [`echo`] keeps it under observation, [`run`] restarts it,
//! [`leg_states`] keeps metrics and the recent history, and `t3_record::probe` concludes.

pub mod cli;
pub mod dial;
pub mod echo;
pub mod leg;
pub mod leg_states;
pub mod metrics;
pub mod once;
pub mod page;
pub mod progress;
pub mod report;
pub mod run;
