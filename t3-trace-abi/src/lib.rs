//! The records that cross from the eBPF programs to user space, and nothing else.
//!
//! Fixed layouts: `repr(C)`, fixed-width integers in the machine's byte order, padding written out,
//! sizes asserted at compile time. Times are nanoseconds of `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`),
//! 0 for "never". Addresses are bytes in network order, IPv4 as v4-mapped IPv6; ports are in host
//! order. Kinds travel as integers; [`Kind::decode`] keeps an unknown one as unknown. A retired
//! number stays retired.
//!
//! Both sides are built from one commit and the object is embedded in the binary, so no version
//! travels with a record.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod codec;
pub mod globals;
mod records;

pub use codec::{DecodeError, Wire};
pub use records::{
    ALL_NAMESPACES, CloseFrames, Connection, Event, Kind, Opener, Port, Process, Socket, SocketId, Stat,
    Task, Tuple, TupleGen, WebSocket,
};
