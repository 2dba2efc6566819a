//! States of a TCP socket (`BPF_TCP_*` in include/uapi/linux/bpf.h).

pub const ESTABLISHED: i32 = 1;
pub const SYN_SENT: i32 = 2;
pub const SYN_RECV: i32 = 3;
pub const FIN_WAIT1: i32 = 4;
pub const FIN_WAIT2: i32 = 5;
pub const TIME_WAIT: i32 = 6;
pub const CLOSE: i32 = 7;
pub const CLOSE_WAIT: i32 = 8;
pub const LAST_ACK: i32 = 9;
pub const LISTEN: i32 = 10;
pub const CLOSING: i32 = 11;
pub const NEW_SYN_RECV: i32 = 12;
