//! The kernel's side of a close: the daemon that gathers evidence and serves it to t3-dispatch, and
//! the operator's commands.
//!
//! Only [`daemon`] and [`kernel`] need privileges; [`live`], [`closes`], [`explain`] and [`doctor`]
//! read what they give as an ordinary user.

pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod closes;
pub mod daemon;
pub mod doctor;
pub mod explain;
pub mod journal_trust;
pub mod kernel;
pub mod layers;
pub mod live;
pub mod owners;
pub mod poll;
pub mod pressure;
pub mod proc;
pub mod view;
pub mod when;
