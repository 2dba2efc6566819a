//! Reports the close of a connection to a watched port, unless it was short.

use aya_ebpf::maps::LruHashMap;
use t3_trace_abi::{CloseFrames, Connection, Opener, Socket, Stat, TupleGen};

use crate::{
    globals::{TP_ACKED, TP_LOST, TP_RECEIVED, TP_RESENT, TP_RETRANS, TP_SENT, TP_SRTT, TP_UNACKED},
    maps::{CONNECTIONS, MIN_AGE, count},
    sock::Sock,
};

/// Writes the connection to the ring, or counts why it did not. One that is older than the watch
/// has an unknown age and is reported.
#[inline(always)]
pub fn closed<const DIRECT: bool>(
    sock: Sock<DIRECT>,
    ends: &LruHashMap<TupleGen, Socket>,
    end: &TupleGen,
    at: u64,
) {
    // SAFETY: writers replace the complete value; it is copied here.
    let min_age = unsafe { MIN_AGE.get(sock.local_port()) }.copied().unwrap_or(0);
    if end.generation != 0 && at - end.generation < min_age {
        count(Stat::ConnectionsShort);
        return;
    }
    let Some(seen) = ends.get_ptr(end) else {
        // Counted when it found no place.
        return;
    };
    let Some(mut place) = CONNECTIONS.reserve::<Connection>(0) else {
        count(Stat::ConnectionsLost);
        return;
    };
    let connection = place.as_mut_ptr();
    let address = sock.address();
    // SAFETY: the reservation has room for one Connection, aligned to 8; every byte of it is
    // written. As in `facts::update`, a map value stays readable.
    unsafe {
        (*connection).at = at;
        (*connection).end = *end;
        (*connection).socket = *seen;
        (*connection).cookie = sock.cookie_if_any();
        (*connection).acked = TP_ACKED.read_or(address, 0);
        (*connection).sent = TP_SENT.read_or(address, 0);
        (*connection).resent = TP_RESENT.read_or(address, 0);
        (*connection).received = TP_RECEIVED.read_or(address, 0);
        (*connection).srtt = TP_SRTT.read_or(address, 0);
        (*connection).retrans = TP_RETRANS.read_or(address, 0);
        (*connection).unacked = TP_UNACKED.read_or(address, 0);
        (*connection).lost = TP_LOST.read_or(address, 0);
        (*connection).opener = Opener::ZERO;
        (*connection).close_frames = CloseFrames::ZERO;
        (*connection).outgoing = 0;
        (*connection).pad = 0;
    }
    place.submit(0);
}
