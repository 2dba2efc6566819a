//! Every map, and the two ways of writing that count what they lose. User space sets the sizes at
//! load.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use t3_trace_abi::{Event, Kind, Opener, Port, Process, Socket, Stat, Tuple, TupleGen};

use crate::{conversation::Conversation, globals::SOCKET_EVENTS};

/// One byte of role bits for each port, as one value: a look-up of element 0 (inlined by the
/// verifier) answers for both ports of a socket.
#[map]
pub static PORTS: Array<[u8; Port::TABLE]> = Array::with_max_entries(1, 0);

/// One of the watched network namespaces in the low half, `ALL_NAMESPACES` for all, and their
/// number in the high half: answers for a machine with one without a helper.
#[map]
pub static SCOPE: Array<u64> = Array::with_max_entries(1, 0);

/// Watched network namespaces, by inode.
#[map]
pub static NAMESPACES: HashMap<u32, u8> = HashMap::with_max_entries(256, 0);

/// dispatch's sockets, by cookie.
#[map]
pub static SOCKETS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(16_384, 0);

/// serve's own ends of their connections.
#[map]
pub static SERVE_ENDS: LruHashMap<TupleGen, Socket> = LruHashMap::with_max_entries(16_384, 0);

/// The ends on watched ports that are not those of a serve: in a table of their own, so that they
/// evict nothing of a session.
#[map]
pub static WATCHED_ENDS: LruHashMap<TupleGen, Socket> = LruHashMap::with_max_entries(4_096, 0);

/// Age in nanoseconds from which a closed connection is reported, by watched port.
#[map]
pub static MIN_AGE: HashMap<u16, u64> = HashMap::with_max_entries(1_024, 0);

/// Closed connections to watched ports: a ring of their own, so that they displace no event of a
/// process.
#[map]
pub static CONNECTIONS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Open connections to ports where Close frames are read, by the address of their socket. An entry
/// leaves with its socket.
#[map]
pub static WEBSOCKETS: HashMap<u64, Conversation> = HashMap::with_max_entries(1, 0);

/// The socket of each call of `tcp_sendmsg` or `tcp_recvmsg` that is followed by kprobe: a
/// kretprobe has no arguments.
#[map]
pub static CALLS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1, 0);

/// The live connection of each tuple. Not an LRU map: a session that lasts for days must not be
/// forgotten because others came after it. An entry leaves with its socket.
#[map]
pub static GENERATION: HashMap<Tuple, u64> = HashMap::with_max_entries(16_384, 0);

/// Processes at the ends of live watched connections. Not an LRU map, as [`GENERATION`].
#[map]
pub static OPENERS: HashMap<Tuple, Opener> = HashMap::with_max_entries(16_384, 0);

/// Watched processes that are connecting, by the address of the socket: it has no local port yet.
#[map]
pub static CONNECTING: LruHashMap<u64, Opener> = LruHashMap::with_max_entries(1_024, 0);

/// Live outgoing connections of watched processes, by local port.
#[map]
pub static OUTGOING: Array<u64> = Array::with_max_entries(65_536, 0);

/// Cgroups whose outgoing connections are watched.
#[map]
pub static CGROUPS: HashMap<u64, u8> = HashMap::with_max_entries(1_024, 0);

/// Processes that accept connections on a port with [`Port::PROXY`], by thread group id: their
/// outgoing connections are watched.
#[map]
pub static PROXIES: LruHashMap<u32, u8> = LruHashMap::with_max_entries(1_024, 0);

/// The connection that last used a tuple and is gone: what comes after the state is CLOSE (an
/// active reset does) still belongs to it. Also takes what [`GENERATION`] has no room for.
#[map]
pub static LAST_GENERATION: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(4_096, 0);

/// Processes that exited or received a fatal signal, by thread group id.
#[map]
pub static PROCESSES: LruHashMap<u32, Process> = LruHashMap::with_max_entries(8_192, 0);

/// Processes whose end is an event.
#[map]
pub static OWNERS: LruHashMap<u32, u8> = LruHashMap::with_max_entries(4_096, 0);

/// Threads the kernel has just killed, thread id to thread group id: before 6.9 `mark_victim` knows
/// only the former.
#[map]
pub static VICTIMS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(256, 0);

/// The ring.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Counters, by `Stat`.
#[map]
pub static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Stat::COUNT, 0);

/// A watched process has a connection from this port.
#[inline(always)]
pub fn is_outgoing(local_port: u16) -> bool {
    OUTGOING.get(u32::from(local_port)).is_some_and(|number| *number != 0)
}

/// Counts one up.
#[inline(always)]
pub fn count(stat: Stat) {
    if let Some(counter) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: a value of this CPU's copy; a program is not interrupted by itself on one CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts an event about a socket, and sends it if events about sockets are wanted: its `cookie`,
/// or else `end`.
#[inline(always)]
pub fn emit_socket(at: u64, kind: Kind, tgid: u32, value: u32, cookie: u64, end: Option<&TupleGen>) {
    if SOCKET_EVENTS.is_set() {
        emit(at, kind, tgid, value, cookie, end);
    } else {
        count(Stat::Events);
    }
}

/// Sends an event, or counts that it was lost. About a socket: `cookie`, or else `end`.
#[inline(always)]
pub fn emit(at: u64, kind: Kind, tgid: u32, value: u32, cookie: u64, end: Option<&TupleGen>) {
    let Some(mut place) = EVENTS.reserve::<Event>(0) else {
        count(Stat::EventsLost);
        return;
    };
    let event = place.as_mut_ptr();
    // SAFETY: the reservation has room for one Event, aligned to 8; every byte of it is written.
    unsafe {
        (*event).at = at;
        (*event).kind = kind as u32;
        (*event).tgid = tgid;
        (*event).value = value;
        (*event).pad = 0;
        (*event).socket.cookie = cookie;
        match end {
            Some(end) => (*event).socket.end = *end,
            None => (&raw mut (*event).socket.end).write_bytes(0, 1),
        }
    }
    place.submit(0);
    count(Stat::Events);
}
