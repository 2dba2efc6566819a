//! Daemon of t3-trace: serves the evidence of the kernel side, the pressure sampler and the
//! registered sessions on the evidence socket.
//!
//! The only privileged part of the project. It parses nothing from the network and links no crate
//! that could: all input comes over a Unix socket, and the kernel reports the uid of its peer.

pub mod args;
mod connection;
mod connection_owners;
pub mod direct;
mod dispatch_process;
mod evidence;
pub mod exit;
mod forwarder;
pub mod listen;
mod locked;
pub mod metrics;
mod moments;
mod open_sessions;
pub mod options;
mod orphans;
mod overflow;
mod own_network;
mod peer_process;
mod pick_up;
mod places;
pub mod poll;
pub mod port_owners;
pub mod pressure;
mod questions;
pub mod reconcile;
pub mod run;
pub mod sessions;
mod start;
mod state;
mod status;
pub mod subscribers;
mod systemd;
mod turns;
pub mod watch_only;

pub use start::start;
