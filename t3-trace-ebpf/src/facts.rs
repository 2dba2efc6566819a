//! Noting facts about a socket: the first occurrence of each is kept with its time and becomes an
//! event.

use aya_ebpf::{helpers::bpf_ktime_get_ns, maps::LruHashMap};
use t3_trace_abi::{Kind, Socket, Stat, TupleGen};

use crate::{
    connection,
    maps::{SERVE_ENDS, SOCKETS, WATCHED_ENDS, count, emit_socket},
    opener,
    probes::message,
    sock::{self, Sock},
    task,
};

const BPF_NOEXIST: u64 = 1;

/// What one hook saw at one moment.
#[derive(Clone, Copy)]
pub struct Facts {
    /// A connection begins; nothing else is set then.
    pub established: bool,
    /// So many nanoseconds ago, at the latest.
    pub fin_in: Option<u64>,
    /// So many nanoseconds ago, at the latest.
    pub fin_out: Option<u64>,
    pub rst_in: bool,
    pub rst_out: bool,
    pub closed: bool,
    /// The connection itself is over (the state becomes CLOSE), so that its tuple can be used
    /// again.
    pub gone: bool,
    /// `current` is the one who acts.
    pub by_current: bool,
    /// `sk_err`, 0 for none.
    pub error: u32,
    /// `enum sk_rst_reason` plus one, 0 for none.
    pub rst_reason: u32,
    pub retrans: u32,
}

impl Facts {
    pub const NONE: Self = Self {
        established: false,
        fin_in: None,
        fin_out: None,
        rst_in: false,
        rst_out: false,
        closed: false,
        gone: false,
        by_current: false,
        error: 0,
        rst_reason: 0,
        retrans: 0,
    };
}

/// Stores the facts under each identity of the socket.
///
/// Records are filled in place, here and below: a program has 512 bytes of stack, and an
/// interrupting program can overwrite any other memory.
#[inline(always)]
pub fn note<const DIRECT: bool>(sock: Sock<DIRECT>, facts: Facts) {
    // SAFETY: no arguments, cannot fail.
    let at = unsafe { bpf_ktime_get_ns() };
    if sock.of_dispatch
        && !facts.established
        && let Some(cookie) = sock.cookie()
    {
        update(&SOCKETS, Stat::SocketsAdded, &cookie, cookie, None, at, &facts);
    }
    if sock.of_serve || sock.of_watch {
        let mut end = TupleGen::ZERO;
        sock.write_tuple(&mut end.tuple);
        if facts.established {
            sock::established(&end.tuple, at);
            if sock.of_websocket {
                message::established(sock.address(), at);
            }
        } else {
            end.generation = sock::generation(&end.tuple);
            if sock.is_outgoing() && end.generation == 0 {
                // Of another process, from the same port.
                return;
            }
            let (ends, added) = if sock.of_serve {
                (&SERVE_ENDS, Stat::SocketsAdded)
            } else {
                (&WATCHED_ENDS, Stat::WatchedAdded)
            };
            update(ends, added, &end, 0, Some(&end), at, &facts);
            if facts.gone {
                sock::gone(&end);
                if sock.of_watch {
                    connection::closed(sock, ends, &end, at);
                    opener::gone(&end.tuple, sock.local_port(), sock.is_outgoing());
                }
                if sock.of_websocket {
                    message::gone(sock.address());
                }
            }
        }
    }
}

/// Nothing has been seen.
static NOTHING: Socket = Socket::ZERO;

#[inline(always)]
fn update<K>(
    map: &LruHashMap<K, Socket>,
    added: Stat,
    key: &K,
    cookie: u64,
    end: Option<&TupleGen>,
    at: u64,
    facts: &Facts,
) {
    let place = match map.get_ptr_mut(key) {
        Some(place) => place,
        None => {
            count(added);
            // Another CPU may have been first: then its entry is the one.
            let _ = map.insert(key, &NOTHING, BPF_NOEXIST);
            let Some(place) = map.get_ptr_mut(key) else {
                count(Stat::SocketsLost);
                return;
            };
            place
        }
    };
    // SAFETY: a map value stays readable while the program runs, even when it is evicted meanwhile.
    // The hooks of one socket run under its lock, so its fields have one writer.
    let socket = unsafe { &mut *place };
    if facts.by_current && socket.closer.tgid == 0 {
        task::write_current(&mut socket.closer);
    }
    socket.retrans += facts.retrans;
    let tgid = socket.closer.tgid;
    if facts.rst_in && socket.rst_in == 0 {
        socket.rst_in = at;
        emit_socket(at, Kind::RstIn, tgid, 0, cookie, end);
    }
    if facts.rst_out && socket.rst_out == 0 {
        socket.rst_out = at;
        socket.rst_reason = facts.rst_reason;
        emit_socket(at, Kind::RstOut, tgid, facts.rst_reason, cookie, end);
    }
    if let Some(ago) = facts.fin_in
        && socket.fin_in == 0
    {
        let at = at - ago;
        socket.fin_in = at;
        emit_socket(at, Kind::FinIn, tgid, 0, cookie, end);
    }
    if let Some(ago) = facts.fin_out
        && socket.fin_out == 0
    {
        let at = at - ago;
        socket.fin_out = at;
        emit_socket(at, Kind::FinOut, tgid, 0, cookie, end);
    }
    if facts.error != 0 && socket.error == 0 {
        socket.error = facts.error;
        socket.error_at = at;
        emit_socket(at, Kind::Error, tgid, facts.error, cookie, end);
    }
    if facts.closed && socket.closed == 0 {
        socket.closed = at;
        emit_socket(at, Kind::Closed, tgid, 0, cookie, end);
    }
}
