//! What lies in the maps and in the ring.

use crate::codec::record;

record! {
    /// A process as the kernel names it: thread group id and the leader's `comm`.
    Task = 20 {
        /// Thread group id in the initial pid namespace; 0 for none.
        tgid: u32,
        /// Ends at the first zero byte.
        comm: [u8; 16],
    }
}

record! {
    /// A connection as one end of it sees it: the key of `GENERATION`.
    Tuple = 40 {
        /// This end's address.
        local: [u8; 16],
        /// The other end's address.
        remote: [u8; 16],
        /// This end's port.
        local_port: u16,
        /// The other end's port.
        remote_port: u16,
        /// Inode of the network namespace.
        netns: u32,
    }
}

record! {
    /// One of the connections that used a tuple: the key of `SERVE_ENDS`.
    TupleGen = 48 {
        /// The connection's ends.
        tuple: Tuple,
        /// When it was established; 0 when that was not seen.
        generation: u64,
    }
}

record! {
    /// First occurrences of what ends a connection, on one socket: the value of `SOCKETS` and
    /// `SERVE_ENDS`.
    Socket = 88 {
        /// The peer's FIN came in.
        fin_in: u64,
        /// FIN was sent.
        fin_out: u64,
        /// A RST came in.
        rst_in: u64,
        /// A RST was sent.
        rst_out: u64,
        /// `error` was set.
        error_at: u64,
        /// The socket left for CLOSE, or `tcp_close` was entered.
        closed: u64,
        /// The first `sk_err`, positive; 0 for none.
        error: u32,
        /// `enum sk_rst_reason` of the first RST sent, plus one; 0 where the kernel gives none.
        rst_reason: u32,
        /// Segments retransmitted.
        retrans: u32,
        /// In whose context `close` or `shutdown` ran.
        closer: Task,
        /// Always 0.
        pad: [u8; 8],
    }
}

record! {
    /// What was seen of a process: the value of `PROCESSES`.
    Process = 96 {
        /// Its start (`CLOCK_BOOTTIME`), which tells it from an earlier process of the same id; 0
        /// when not known.
        started_boot: u64,
        /// Its last thread ended.
        ended: u64,
        /// The OOM killer chose it.
        oom: u64,
        /// The last signal that could end it was sent.
        signalled: u64,
        /// As `wait` gives it: status in bits 8 to 15, signal in bits 0 to 6.
        exit_code: u32,
        /// Number of that signal.
        signal: u32,
        /// Who it is.
        task: Task,
        /// Who sent the signal; tgid 0 when the kernel did.
        sender: Task,
        /// Always 0.
        pad: [u8; 16],
    }
}

record! {
    /// A socket in an event: a cookie, or serve's end.
    SocketId = 56 {
        /// `SO_COOKIE`; 0 for serve's end.
        cookie: u64,
        /// serve's end; zero when there is a cookie.
        end: TupleGen,
    }
}

record! {
    /// One record of the ring.
    Event = 80 {
        /// When.
        at: u64,
        /// [`Kind`] as a number.
        kind: u32,
        /// Thread group id, for processes.
        tgid: u32,
        /// Error number or exit code.
        value: u32,
        /// Always 0.
        pad: u32,
        /// Which socket, for sockets.
        socket: SocketId,
    }
}

record! {
    /// Who opened an end of a connection, and when: the value of `OPENERS`.
    Opener = 40 {
        /// When it accepted or connected, or first read from it.
        at: u64,
        /// Its cgroup (v2) at that moment, as the inode of its folder.
        cgroup: u64,
        /// The process.
        task: Task,
        /// Always 0.
        pad: [u8; 4],
    }
}

record! {
    /// The Close frames of a plain-text WebSocket, of which nothing else was kept.
    CloseFrames = 32 {
        /// The peer's came in.
        received: u64,
        /// One was sent.
        sent: u64,
        /// Code of the one that came in; 0 for none.
        received_code: u16,
        /// Code of the one that was sent; 0 for none.
        sent_code: u16,
        /// Bits of [`WebSocket`].
        flags: u32,
        /// Always 0.
        pad: [u8; 8],
    }
}

record! {
    /// One record of the ring `CONNECTIONS`: a watched connection that has closed.
    Connection = 280 {
        /// When.
        at: u64,
        /// Its end on the watched port, with the time of its establishment.
        end: TupleGen,
        /// What was seen of it until then. A RST that is sent at the close comes after it.
        socket: Socket,
        /// `SO_COOKIE`; 0 when nobody has asked for it.
        cookie: u64,
        /// `tcp_sock.bytes_acked`, which may count a FIN.
        acked: u64,
        /// `tcp_sock.bytes_sent`, with those sent again.
        sent: u64,
        /// `tcp_sock.bytes_retrans`.
        resent: u64,
        /// `tcp_sock.bytes_received`, which counts a FIN.
        received: u64,
        /// `tcp_sock.srtt_us`: eighths of a microsecond; 0 when not measured.
        srtt: u32,
        /// `tcp_sock.total_retrans`.
        retrans: u32,
        /// `tcp_sock.packets_out`.
        unacked: u32,
        /// `tcp_sock.lost_out`.
        lost: u32,
        /// Who accepted it, or connected; tgid 0 when that was not seen.
        opener: Opener,
        /// Its Close frames, on a port where they are read.
        close_frames: CloseFrames,
        /// 1 when the process connected, 0 when it accepted.
        outgoing: u32,
        /// Always 0.
        pad: u32,
    }
}

/// Bits of [`CloseFrames::flags`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocket;

impl WebSocket {
    /// The handshake has been seen: it is a WebSocket.
    pub const OPEN: u32 = 1;
    /// What came in can no longer be followed: a Close frame from the peer may be missing.
    pub const LOST_RECEIVED: u32 = 2;
    /// What was sent can no longer be followed: a sent Close frame may be missing.
    pub const LOST_SENT: u32 = 4;
    /// Bytes came in that the process never read.
    pub const UNREAD: u32 = 8;
}

/// What an [`Event`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The peer's FIN came in.
    FinIn = 1,
    /// FIN was sent.
    FinOut = 2,
    /// A RST came in.
    RstIn = 3,
    /// A RST was sent.
    RstOut = 4,
    /// The socket's error was set.
    Error = 5,
    /// The socket left for CLOSE.
    Closed = 6,
    /// A process ended.
    Exit = 7,
    /// The OOM killer chose a process.
    Oom = 8,
}

impl Kind {
    /// The kind of this number; `None` for an unknown one.
    #[must_use]
    pub const fn decode(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::FinIn,
            2 => Self::FinOut,
            3 => Self::RstIn,
            4 => Self::RstOut,
            5 => Self::Error,
            6 => Self::Closed,
            7 => Self::Exit,
            8 => Self::Oom,
            _ => return None,
        })
    }
}

/// Bits of one port in `PORTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port;

impl Port {
    /// dispatch listens on it.
    pub const LISTEN: u8 = 1;
    /// A serve listens on it.
    pub const SERVE: u8 = 2;
    /// The close of each connection to it is reported.
    pub const WATCH: u8 = 4;
    /// The close of connections from it is reported: it is the local port of an outgoing connection
    /// that is older than the watch. On port 0: outgoing connections are watched.
    pub const OUTGOING: u8 = 8;
    /// Processes that accept connections to it have their outgoing connections watched, too.
    pub const PROXY: u8 = 16;
    /// Close frames of WebSockets on it are read.
    pub const WEBSOCKET: u8 = 32;
    /// Entries of the table: one byte for each port number.
    pub const TABLE: usize = 65_536;
}

/// Key of `NAMESPACES` by which all network namespaces are watched. No namespace has this number.
pub const ALL_NAMESPACES: u32 = 0;

/// Counters in `STATS`, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stat {
    /// Events written to the ring, and those about sockets if the ring does not have them.
    Events = 0,
    /// Events that found the ring full.
    EventsLost = 1,
    /// Facts about sockets that found no place.
    SocketsLost = 2,
    /// Facts about processes that found no place.
    ProcessesLost = 3,
    /// Facts about sockets on watched ports that have no cookie: not dispatch's.
    Strangers = 4,
    /// New entries in the tables of sockets.
    SocketsAdded = 5,
    /// Closed connections to watched ports that were too short to be reported.
    ConnectionsShort = 6,
    /// Closed connections to watched ports that found the ring full.
    ConnectionsLost = 7,
    /// New entries in the table of ends on watched ports.
    WatchedAdded = 8,
}

impl Stat {
    /// How many there are.
    pub const COUNT: u32 = 9;
}

#[cfg(test)]
mod tests {
    use super::{
        CloseFrames, Connection, Event, Kind, Opener, Process, Socket, SocketId, Task, Tuple, TupleGen,
    };
    use crate::{DecodeError, Wire};

    /// What is written is what is read, and every byte counts: changing any one changes the value.
    fn round_trip<T: Wire + PartialEq + core::fmt::Debug>() {
        let mut bytes = [0; 320];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(i % 255 + 1).unwrap();
        }
        let bytes = &bytes[..T::SIZE];
        let value = T::decode(bytes).unwrap();
        let mut again = [0; 320];
        value.write(&mut again);
        assert_eq!(&again[..T::SIZE], bytes);
        for i in 0..T::SIZE {
            let mut other = [0; 320];
            other[..T::SIZE].copy_from_slice(bytes);
            other[i] ^= 0x80;
            assert_ne!(T::decode(&other[..T::SIZE]).unwrap(), value, "byte {i} of {}", T::NAME);
        }
        for len in (0..T::SIZE).chain([T::SIZE + 1]) {
            let expected = DecodeError { record: T::NAME, expected: T::SIZE, found: len };
            assert_eq!(T::decode(&again[..len]), Err(expected));
        }
    }

    #[test]
    fn records_round_trip_and_refuse_other_lengths() {
        round_trip::<Task>();
        round_trip::<Tuple>();
        round_trip::<TupleGen>();
        round_trip::<Socket>();
        round_trip::<Process>();
        round_trip::<SocketId>();
        round_trip::<Event>();
        round_trip::<Connection>();
        round_trip::<Opener>();
        round_trip::<CloseFrames>();
    }

    #[test]
    fn unknown_kinds_stay_unknown() {
        for number in 0..=u32::from(u16::MAX) {
            assert_eq!(Kind::decode(number).map(|kind| kind as u32).unwrap_or(number), number);
        }
        assert_eq!(Kind::decode(0), None);
        assert_eq!(Kind::decode(9), None);
        assert_eq!(Kind::decode(u32::MAX), None);
    }
}
