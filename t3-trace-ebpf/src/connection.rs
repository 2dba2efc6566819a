//! Reports the close of a connection to a watched port, unless it was short.

use aya_ebpf::maps::LruHashMap;
use t3_trace_abi::{Connection, Socket, Stat, TupleGen};

use crate::{
    globals::{TP_ACKED, TP_LOST, TP_RECEIVED, TP_RESENT, TP_RETRANS, TP_SENT, TP_SRTT, TP_UNACKED},
    maps::{CONNECTIONS, MIN_AGE, OPENERS, count},
    probes::message,
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
    // That of all outgoing connections is at port 0.
    let port = if sock.is_outgoing() { 0 } else { sock.local_port() };
    // SAFETY: writers replace the complete value; it is copied here.
    let min_age = unsafe { MIN_AGE.get(port) }.copied().unwrap_or(0);
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
        match OPENERS.get_ptr(&end.tuple) {
            Some(opener) => (*connection).opener = *opener,
            None => (&raw mut (*connection).opener).write_bytes(0, 1),
        }
        (&raw mut (*connection).close_frames).write_bytes(0, 1);
        (*connection).outgoing = u32::from(sock.is_outgoing());
        (*connection).pad = 0;
        if sock.of_websocket {
            let (fin_in, fin_out) = ((*seen).fin_in != 0, (*seen).fin_out != 0);
            message::write_frames(address, end, fin_in, fin_out, &raw mut (*connection).close_frames);
        }
    }
    place.submit(0);
}
