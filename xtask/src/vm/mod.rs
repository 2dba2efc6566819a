//! Guests: how their file systems are made, how they are booted and watched, how their answer comes back.

pub mod suite;
