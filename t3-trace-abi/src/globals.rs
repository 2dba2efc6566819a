//! The read-only globals of the programs: where the running kernel keeps what they read.
//!
//! Each is a `u16` under the name of the member it places, set before the load. One that keeps
//! [`ABSENT`] was not found: the programs then leave out what depends on it (the verifier removes
//! that code, so no tracepoint argument that this kernel does not have is ever touched).

/// Not there on this kernel.
pub const ABSENT: u16 = u16::MAX;

/// A global's name in the object, the structure, and the path of the member in it (`.` steps into
/// structures; anonymous ones are looked through).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The global.
    pub global: &'static str,
    /// The structure's name.
    pub structure: &'static str,
    /// The member in it.
    pub path: &'static str,
    /// Bytes the programs read there.
    pub size: u32,
    /// Without it the programs cannot tell sockets apart: loading makes no sense.
    pub needed: bool,
}

const fn needed(global: &'static str, structure: &'static str, path: &'static str, size: u32) -> Member {
    Member { global, structure, path, size, needed: true }
}

const fn optional(global: &'static str, structure: &'static str, path: &'static str, size: u32) -> Member {
    Member { global, structure, path, size, needed: false }
}

/// Every member the programs read.
pub const MEMBERS: &[Member] = &[
    needed("SK_FAMILY", "sock", "__sk_common.skc_family", 2),
    needed("SK_STATE", "sock", "__sk_common.skc_state", 1),
    // Not skc_num, which is 0 already when the state becomes CLOSE (inet_put_port).
    needed("SK_SPORT", "inet_sock", "inet_sport", 2),
    needed("SK_DPORT", "sock", "__sk_common.skc_dport", 2),
    // Next to it (`skc_portpair`), so that one read has both ports of a socket that is not closed.
    optional("SK_NUM", "sock", "__sk_common.skc_num", 2),
    needed("SK_COOKIE", "sock", "__sk_common.skc_cookie", 8),
    needed("SK_RCV_SADDR", "sock", "__sk_common.skc_rcv_saddr", 4),
    needed("SK_DADDR", "sock", "__sk_common.skc_daddr", 4),
    // A kernel built without IPv6 has neither.
    optional("SK_V6_RCV_SADDR", "sock", "__sk_common.skc_v6_rcv_saddr", 16),
    optional("SK_V6_DADDR", "sock", "__sk_common.skc_v6_daddr", 16),
    // Nor does a kernel without namespaces have these: everything is then namespace 0.
    optional("SK_NET", "sock", "__sk_common.skc_net.net", 8),
    optional("NET_INUM", "net", "ns.inum", 4),
    optional("SK_FLAGS", "sock", "__sk_common.skc_flags", 8),
    needed("SK_ERR", "sock", "sk_err", 4),
    optional("SK_PROTOCOL", "sock", "sk_protocol", 2),
    // Counters of a connection; read only when a watched one closes.
    optional("TP_ACKED", "tcp_sock", "bytes_acked", 8),
    optional("TP_SENT", "tcp_sock", "bytes_sent", 8),
    optional("TP_RESENT", "tcp_sock", "bytes_retrans", 8),
    optional("TP_RECEIVED", "tcp_sock", "bytes_received", 8),
    optional("TP_SRTT", "tcp_sock", "srtt_us", 4),
    optional("TP_RETRANS", "tcp_sock", "total_retrans", 4),
    optional("TP_UNACKED", "tcp_sock", "packets_out", 4),
    optional("TP_LOST", "tcp_sock", "lost_out", 4),
    // Counters of its bytes, which the Close frames of WebSockets are followed by.
    optional("SEQ_WRITTEN", "tcp_sock", "write_seq", 4),
    optional("SEQ_COPIED", "tcp_sock", "copied_seq", 4),
    optional("SEQ_RECEIVED", "tcp_sock", "rcv_nxt", 4),
    needed("TASK_TGID", "task_struct", "tgid", 4),
    optional("TASK_PID", "task_struct", "pid", 4),
    optional("TASK_FLAGS", "task_struct", "flags", 4),
    optional("TASK_LEADER", "task_struct", "group_leader", 8),
    optional("TASK_COMM", "task_struct", "comm", 16),
    optional("TASK_EXIT_CODE", "task_struct", "exit_code", 4),
    optional("TASK_START", "task_struct", "start_boottime", 8),
    optional("TASK_SIGNAL", "task_struct", "signal", 8),
    optional("SIGNAL_LIVE", "signal_struct", "live.counter", 4),
    optional("SIGNAL_EXIT_CODE", "signal_struct", "group_exit_code", 4),
    optional("SIGINFO_CODE", "kernel_siginfo", "si_code", 4),
];

/// Members by which the buffer of a `struct msghdr` is found. Each kernel has some of them; those
/// it lacks are not missed.
pub const MESSAGE: &[Member] = &[
    // 5.14 and newer.
    optional("MSG_TYPE", "msghdr", "msg_iter.iter_type", 1),
    optional("MSG_TYPE_WIDE", "msghdr", "msg_iter.type", 4),
    optional("MSG_COUNT", "msghdr", "msg_iter.count", 8),
    optional("MSG_OFFSET", "msghdr", "msg_iter.iov_offset", 8),
    // 6.4 and newer, and before.
    optional("MSG_IOV", "msghdr", "msg_iter.__iov", 8),
    optional("MSG_IOV", "msghdr", "msg_iter.iov", 8),
    // 6.0 and newer.
    optional("MSG_UBUF", "msghdr", "msg_iter.ubuf", 8),
    optional("MSG_SEGMENTS", "msghdr", "msg_iter.nr_segs", 8),
];

/// Kinds of buffers that can be read, by their name in `enum iter_type`.
pub const ITERATORS: &[&str] = &["ITER_IOVEC", "ITER_UBUF"];

/// The bits of a kind of buffer: before 5.14 it has the direction, too.
pub const ITER_TYPE_MASK: &str = "ITER_TYPE_MASK";

/// An argument that only some kernels have. Its global is 1 where it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    /// The global.
    pub global: &'static str,
    /// What has it.
    pub of: Callable,
    /// Its position, counted from 0: a program can only read arguments at fixed positions.
    pub index: usize,
    /// What it must be.
    pub shape: Shape,
}

/// What has arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callable {
    /// This tracepoint.
    Tracepoint(&'static str),
    /// This function.
    Function(&'static str),
}

/// The type of an argument, as BTF names it (BTF keeps no names of these arguments).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// This enum.
    Enum(&'static str),
    /// A pointer to this structure.
    Pointer(&'static str),
    /// An integer of this name.
    Int(&'static str),
}

/// Every optional argument.
pub const ARGUMENTS: &[Argument] = &[
    // 6.10 and newer.
    Argument {
        global: "HAS_RST_REASON",
        of: Callable::Tracepoint("tcp_send_reset"),
        index: 2,
        shape: Shape::Enum("sk_rst_reason"),
    },
    // 6.17 and newer: failed retransmissions are reported too, with an errno here.
    Argument {
        global: "HAS_RETRANS_ERR",
        of: Callable::Tracepoint("tcp_retransmit_skb"),
        index: 2,
        shape: Shape::Int("int"),
    },
    // 6.16 and newer; before that the programs count the threads that live.
    Argument {
        global: "HAS_GROUP_DEAD",
        of: Callable::Tracepoint("sched_process_exit"),
        index: 1,
        shape: Shape::Int("_Bool"),
    },
    // 6.10 and newer; before that it has four arguments.
    Argument {
        global: "HAS_ACCEPT_ARG",
        of: Callable::Function("inet_csk_accept"),
        index: 1,
        shape: Shape::Pointer("proto_accept_arg"),
    },
    // 6.9 and newer and in stable kernels that took it over; before that the argument is a pid.
    Argument {
        global: "HAS_VICTIM_TASK",
        of: Callable::Tracepoint("mark_victim"),
        index: 0,
        shape: Shape::Pointer("task_struct"),
    },
];

/// 1 when events about sockets are written to the ring, as an option selects.
pub const SOCKET_EVENTS: &str = "SOCKET_EVENTS";

/// The number of `SOCK_DONE` in `enum sock_flags`: set when the peer's FIN was taken.
pub const SOCK_DONE: &str = "SOCK_DONE_BIT";
