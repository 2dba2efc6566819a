//! Sockets, clock and random numbers.

pub mod bind;
pub mod clock;
pub mod listeners;
pub mod random_id;
pub mod tcp;
pub mod tcp_info;
