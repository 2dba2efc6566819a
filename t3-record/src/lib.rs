//! Evidence of a WebSocket's end, its verdict, the record, and the messages of the evidence socket.
//!
//! Pure: no sockets, no clock, no async, no logging. The other crates depend on this one; it
//! depends on none of them.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod assemble;
pub mod burst;
pub mod chain;
pub mod edge;
pub mod evidence;
pub mod how;
pub mod journal;
pub mod logfmt;
pub mod probe;
pub mod reconcile;
pub mod record;
pub mod value;
pub mod verdict;
pub mod vocabulary;
pub mod wire;

pub use assemble::{assemble, assemble_direct, assemble_pair};
pub use chain::Chain;
pub use evidence::Evidence;
pub use how::How;
pub use record::{AttemptsRecord, BurstRecord, CloseRecord, OpenRecord, TcpCloseRecord};
pub use verdict::{
    Judgement,
    direct::{judge_direct, judge_pair},
    judge,
};
pub use vocabulary::{
    Cause, ClosedBy, Confidence, HeartbeatSource, KernelSource, LegEnd, Reconciled, Segment, Side, Verdict,
    Via,
};
