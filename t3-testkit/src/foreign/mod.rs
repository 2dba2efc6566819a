//! Direct connections and foreign proxies: endings of sessions that t3-dispatch does not carry, and
//! the expected `tcp close` record of each port.
//!
//! Everything runs in a network namespace of its own, with short TCP timeouts: one t3-trace, and
//! for each proxy a thread that injects the faults one after the other.

mod expected;
mod fault;
mod legs;
mod network;
mod proxy;
mod runner;
mod table;

pub use expected::{Expected, ExpectedLeg};
pub use fault::{CATALOGUE, Fault, Place};
pub use legs::Leg;
pub use network::in_own_network;
pub use proxy::Proxy;
pub use runner::{Outcome, Run, Target, run_target};
pub use table::{markdown, versions};
