//! The commands of t3-trace without privileges: `live`, `closes`, `explain` and `doctor`. They read
//! the journal and the evidence socket as an ordinary user.

pub mod closes;
pub mod doctor;
pub mod explain;
pub mod journal;
pub mod layers;
pub mod live;
pub mod present;
pub mod server;
pub mod store;
pub mod subscriber;
pub mod time;
