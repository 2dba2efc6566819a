//! Conversion of the records of the eBPF programs to the types of `t3_record`. Pure.

use std::collections::BTreeMap;

use t3_record::evidence::{Counters, Fate, Nanos, SocketFacts, Task};
use t3_trace_abi as abi;

use super::types::{
    Change, CloseFrames, ClosedConnection, Event, EventKind, Generation, Opener, ProcessFacts, ServeTuple,
    SignalFacts, SocketKey, address,
};

const SIGKILL: i32 = 9;

/// Converts the record of a socket.
pub(super) fn socket(raw: &abi::Socket, reasons: &BTreeMap<u32, String>) -> SocketFacts {
    SocketFacts {
        fin_in: time(raw.fin_in),
        fin_out: time(raw.fin_out),
        rst_in: time(raw.rst_in),
        rst_out: time(raw.rst_out),
        error: i32::try_from(raw.error).ok().filter(|error| *error != 0).map(|error| (error, raw.error_at)),
        closed: time(raw.closed),
        closer: task(&raw.closer),
        rst_reason: raw.rst_reason.checked_sub(1).and_then(|number| reasons.get(&number)).cloned(),
        retrans: raw.retrans,
    }
}

/// Converts the record of a process.
pub(super) fn process(raw: &abi::Process) -> ProcessFacts {
    let last_signal = time(raw.signalled).and_then(|at| {
        let signal = i32::try_from(raw.signal).ok()?;
        Some(SignalFacts { signal, sender: task(&raw.sender), at })
    });
    let ended_at = time(raw.ended);
    let mut fate = if ended_at.is_some() { exit_fate(raw.exit_code) } else { Fate::Alive };
    // The last signal is not always the fatal one: a SIGTERM may have been handled before an
    // abort().
    let fatal = last_signal.clone().filter(|last| fate == Fate::Signal(last.signal));
    let killer = fatal.as_ref().and_then(|signal| signal.sender.clone());
    // The OOM killer also marks processes that are already exiting, to speed up their exit: those
    // have another cause.
    if raw.oom != 0 && fate == Fate::Signal(SIGKILL) && killer.is_none() {
        fate = Fate::Oom;
    }
    ProcessFacts {
        task: Task { pid: raw.task.tgid, comm: comm(&raw.task.comm) },
        started_boot_ns: time(raw.started_boot),
        fate,
        ended_at,
        killer,
        signalled_at: fatal.map(|signal| signal.at),
        last_signal,
        oom_at: time(raw.oom),
    }
}

/// Decodes one record of the ring; `None` for an unknown kind or length.
pub(super) fn event(bytes: &[u8]) -> Option<Event> {
    use abi::{Kind, Wire};
    let raw = abi::Event::decode(bytes).ok()?;
    let change = match Kind::decode(raw.kind)? {
        Kind::FinIn => Change::FinIn,
        Kind::FinOut => Change::FinOut,
        Kind::RstIn => Change::RstIn,
        Kind::RstOut => Change::RstOut,
        Kind::Error => Change::Error(i32::try_from(raw.value).ok()?),
        Kind::Closed => Change::Closed,
        Kind::Exit => {
            return Some(Event {
                at: raw.at,
                kind: EventKind::Exit { tgid: raw.tgid, fate: exit_fate(raw.value) },
            });
        }
        Kind::Oom => return Some(Event { at: raw.at, kind: EventKind::Oom { tgid: raw.tgid } }),
    };
    let socket = match raw.socket.cookie {
        0 => {
            let end = &raw.socket.end;
            SocketKey::Serve(tuple(&end.tuple), Generation(end.generation))
        }
        cookie => SocketKey::Cookie(cookie),
    };
    Some(Event { at: raw.at, kind: EventKind::Socket { socket, change } })
}

/// Decodes the ends of a connection.
pub(super) fn tuple(raw: &abi::Tuple) -> ServeTuple {
    ServeTuple {
        local: address(raw.local, raw.local_port),
        remote: address(raw.remote, raw.remote_port),
        netns: Some(raw.netns),
    }
}

/// Decodes one record of the ring of connections; `None` for another length.
pub(super) fn connection(
    bytes: &[u8],
    reasons: &BTreeMap<u32, String>,
    has_counters: bool,
) -> Option<ClosedConnection> {
    use abi::Wire;
    let raw = abi::Connection::decode(bytes).ok()?;
    let sent = raw.sent.saturating_sub(raw.resent);
    // A FIN counts as a byte, acknowledged and received.
    let acked = raw.acked.min(sent);
    let counters = Counters {
        acked,
        unacked_bytes: sent - acked,
        received: raw.received.saturating_sub(u64::from(raw.socket.fin_in != 0)),
        rtt_us: raw.srtt >> 3,
        total_retrans: raw.retrans,
        unacked: raw.unacked,
        lost: raw.lost,
    };
    Some(ClosedConnection {
        at: raw.at,
        tuple: tuple(&raw.end.tuple),
        generation: Generation(raw.end.generation),
        socket: socket(&raw.socket, reasons),
        cookie: (raw.cookie != 0).then_some(raw.cookie),
        counters: has_counters.then_some(counters),
        opener: opener(&raw.opener),
        is_outgoing: raw.outgoing != 0,
        close_frames: close_frames(&raw.close_frames),
    })
}

/// Decodes the process at an end of a connection; `None` if it was not seen.
pub(super) fn opener(raw: &abi::Opener) -> Option<Opener> {
    Some(Opener { at: raw.at, task: task(&raw.task)?, cgroup: raw.cgroup })
}

fn close_frames(raw: &abi::CloseFrames) -> Option<CloseFrames> {
    use abi::WebSocket;
    let has = |flag| raw.flags & flag != 0;
    let frame = |at, code: u16| time(at).map(|at| (at, (code != 0).then_some(code)));
    has(WebSocket::OPEN).then(|| CloseFrames {
        received: frame(raw.received, raw.received_code),
        sent: frame(raw.sent, raw.sent_code),
        is_read_complete: !has(WebSocket::LOST_RECEIVED),
        has_unread: has(WebSocket::UNREAD),
        is_sent_complete: !has(WebSocket::LOST_SENT),
    })
}

/// Decodes a wait status: the signal in the low seven bits, else the exit status above them.
fn exit_fate(code: u32) -> Fate {
    match code & 0x7f {
        0 => Fate::Exit(i32::from((code >> 8).to_le_bytes()[0])),
        signal => Fate::Signal(i32::from(signal.to_le_bytes()[0])),
    }
}

fn time(ns: u64) -> Option<Nanos> {
    (ns != 0).then_some(ns)
}

fn task(raw: &abi::Task) -> Option<Task> {
    (raw.tgid != 0).then(|| Task { pid: raw.tgid, comm: comm(&raw.comm) })
}

fn comm(raw: &[u8; 16]) -> String {
    let name = raw.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests;
