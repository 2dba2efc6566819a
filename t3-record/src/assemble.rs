//! Record from evidence: judges, then sets each known value under its key.

mod direct;

pub use direct::{assemble_direct, assemble_pair};

use crate::{
    chain::{Chain, Event, MAX_EVENTS},
    evidence::{
        Evidence, Fate, Heartbeat, KernelFacts, LegFacts, Nanos, OpenFailure, Pressure, Process, SocketFacts,
        Stall,
    },
    record::CloseRecord,
    value::Percent,
    verdict::{Judgement, acts::errno_end, disturbance::Disturbance, judge, leg_end},
    vocabulary::{HeartbeatSource, LegEnd, Side},
    wire::Session,
};

/// Creates the record of a session.
#[must_use]
pub fn assemble(session: &Session, evidence: &Evidence) -> CloseRecord {
    let judgement = judge(evidence);
    let ended_at = ended_at(evidence, &judgement);
    let opened_at = session.opened_at.or_else(|| evidence.relay.as_ref().and_then(|relay| relay.opened_at));
    let mut record = CloseRecord::new(
        session.user.clone(),
        session.ip.clone(),
        opened_at.zip(ended_at).map_or(0, |(opened, ended)| ms(ended.saturating_sub(opened))),
        judgement.cause,
        judgement.verdict,
        judgement.segment,
        session.conn.clone(),
        evidence.kernel.source,
    );
    record.how = judgement.how;
    record.closed_by = judgement.closed_by;
    record.confidence = Some(judgement.confidence);
    record.down_end = leg_end(evidence, Side::Down);
    let never =
        session.up.is_none() && evidence.relay.as_ref().is_some_and(|relay| relay.open_failure.is_some());
    record.up_end = leg_end(evidence, Side::Up).or(never.then_some(LegEnd::None));
    record.ray.clone_from(&session.ray);
    record.burst = evidence.burst;
    let resumed = evidence.relay.as_ref().map_or(0, |relay| relay.resumed).max(session.resumed);
    record.resumed = Some(resumed).filter(|times| *times > 0);
    record.chain = chain(evidence);
    relay(&mut record, evidence, judgement.at);
    kernel(&mut record, &evidence.kernel, judgement.at.or(ended_at).unwrap_or(Nanos::MAX));
    record
}

/// Time at which the first leg ended.
fn ended_at(evidence: &Evidence, judgement: &Judgement) -> Option<Nanos> {
    let relay = evidence.relay.as_ref().map(|relay| relay.ended_at);
    relay.or(judgement.at).or_else(|| evidence.dispatch_died.as_ref().map(|died| died.at))
}

const fn ms(nanos: Nanos) -> u64 {
    nanos / 1_000_000
}

fn relay(record: &mut CloseRecord, evidence: &Evidence, decided_at: Option<Nanos>) {
    let Some(relay) = &evidence.relay else { return };
    // Ages are relative to the close, which is the deciding act: a Close frame can be long before
    // the end of its leg.
    let close = decided_at.map_or(relay.ended_at, |at| at.min(relay.ended_at));
    let age = |at: Nanos| ms(close.saturating_sub(at));
    let first_frame = [(Side::Down, &relay.down), (Side::Up, &relay.up)]
        .into_iter()
        .filter_map(|(side, leg)| Some((side, leg.close_frame.as_ref()?)))
        .min_by_key(|(_, frame)| frame.at);
    if let Some((side, frame)) = first_frame {
        record.ws_from = Some(side);
        record.ws_code = frame.code;
        record.ws_reason = (!frame.reason.is_empty()).then(|| frame.reason.clone());
    }
    if relay.opened_at.is_some() {
        record.up_bytes = Some(relay.up.bytes);
        record.down_bytes = Some(relay.down.bytes);
        record.up_msgs = Some(relay.up.msgs);
        record.down_msgs = Some(relay.down.msgs);
    }
    record.up_idle_ms = relay.up.quiet_since.or(relay.up.last_byte_at).map(age);
    record.down_idle_ms = relay.down.quiet_since.or(relay.down.last_byte_at).map(age);
    if let Some(heartbeat) = &relay.heartbeat {
        heartbeats(record, heartbeat, age);
    }
    if relay.opened_at.is_some() {
        let source = relay.heartbeat.map(|heartbeat| heartbeat.source.unwrap_or(HeartbeatSource::Text));
        record.hb_by = Some(source.unwrap_or(HeartbeatSource::None));
        record.ext = relay.extensions.as_deref().filter(|names| !names.is_empty()).map(ToOwned::to_owned);
        record.up_silent_ms = relay.up.last_frame_at.or(relay.opened_at).map(age);
        let some = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
        record.up_undelivered = some(relay.down.undelivered);
        record.down_undelivered = some(relay.up.undelivered);
        record.up_queued = relay.down.backlog.map(|backlog| backlog.bytes).filter(|bytes| *bytes > 0);
    }
    if relay.open_failure.is_some_and(waited_for_serve) {
        record.up_silent_ms = Some(ms(relay.ended_at.saturating_sub(relay.started_at)));
    }
    record.resumed_ms = relay.resumed_at.map(age);
    record.peer_uid = relay.peer_uid;
    record.self_lag_ms = relay.self_lag_ms;
    let disturbance = Disturbance::before(relay, &evidence.kernel, close);
    record.lag_ms = Some(ms(disturbance.lag)).filter(|ms| *ms > 0);
    record.pause_ms = Some(ms(disturbance.pause)).filter(|ms| *ms > 0);
    legs(record, &relay.down, &relay.up);
}

/// serve sent no answer of any kind, and the time without one is known.
const fn waited_for_serve(failure: OpenFailure) -> bool {
    matches!(
        failure,
        OpenFailure::ClientGone
            | OpenFailure::ConnectTimeout
            | OpenFailure::HandshakeTimeout
            | OpenFailure::HandshakeEof
            | OpenFailure::HandshakeReset
    )
}

fn heartbeats(record: &mut CloseRecord, heartbeat: &Heartbeat, age: impl Fn(Nanos) -> u64) {
    record.hb_n = Some(heartbeat.pings);
    record.hb_rtt_ms = heartbeat.rtt_ns.map(ms);
    record.hb_rtt_max_ms = heartbeat.rtt_max_ns.map(ms);
    record.hb_gap_ms = heartbeat.last_ping_at.map(&age);
    record.hb_wait_ms = heartbeat.waiting_since.map(&age);
    record.hb_period_ms = heartbeat.period_ns.map(ms);
}

fn legs(record: &mut CloseRecord, down: &LegFacts, up: &LegFacts) {
    if let Some(tcp) = &down.tcp {
        record.down_rtt_us = Some(tcp.rtt_us);
        record.down_retrans = Some(tcp.total_retrans);
        record.down_unacked = Some(tcp.unacked);
        record.down_lost = Some(tcp.lost);
    }
    if let Some(tcp) = &up.tcp {
        record.up_rtt_us = Some(tcp.rtt_us);
        record.up_retrans = Some(tcp.total_retrans);
        record.up_unacked = Some(tcp.unacked);
        record.up_lost = Some(tcp.lost);
    }
}

fn kernel(record: &mut CloseRecord, kernel: &KernelFacts, close: Nanos) {
    let reason = |trace: &Option<SocketFacts>| trace.as_ref().and_then(|trace| trace.rst_reason.clone());
    record.rst_reason = reason(&kernel.up).or_else(|| reason(&kernel.down)).or_else(|| reason(&kernel.serve));
    if let Some(process) = &kernel.peer {
        record.peer_pid = Some(process.task.pid);
        record.peer_comm = Some(process.task.comm.clone());
        record.peer_exit = Some(process.fate);
        let request = process.stop_request.as_ref().filter(|request| request.at <= close);
        let killer = process.killer.as_ref().or_else(|| request?.by.as_ref());
        record.killed_by = killer.map(|killer| format!("{}[{}]", killer.comm, killer.pid));
        record.oom_victim.clone_from(&process.victim_argv);
    }
    pressure(record, kernel);
    if let Some(memory) = &kernel.memory {
        record.mem_current = memory.current;
        record.mem_max = memory.max;
        record.oom_kills = memory.oom_kills;
        record.mem_high = memory.high_events.filter(|times| *times > 0);
    }
    record.swap_free = kernel.swap_free;
    record.lost = (kernel.lost > 0).then_some(kernel.lost);
}

fn pressure(record: &mut CloseRecord, kernel: &KernelFacts) {
    let some = |stall: Option<Stall>| stall.map(|stall| Percent(stall.some));
    let full = |stall: Option<Stall>| stall.and_then(|stall| stall.full).map(Percent);
    let peak = |stall: Option<Stall>| stall.map(|stall| Percent(stall.peak));
    if let Some(Pressure { mem, io, cpu }) = kernel.pressure {
        (record.psi_mem, record.psi_io, record.psi_cpu) = (some(mem), some(io), some(cpu));
        (record.psi_mem_full, record.psi_io_full) = (full(mem), full(io));
        (record.psi_mem_peak, record.psi_io_peak, record.psi_cpu_peak) = (peak(mem), peak(io), peak(cpu));
    }
    if let Some(Pressure { mem, io, cpu }) = kernel.host {
        (record.host_psi_mem, record.host_psi_io, record.host_psi_cpu) = (some(mem), some(io), some(cpu));
    }
}

/// Limit of changes of the own network in a chain.
const MAX_NETWORK_EVENTS: usize = 3;

/// First events of both legs by time; equal times in a fixed order, independent of arrival.
fn chain(evidence: &Evidence) -> Option<Chain> {
    let mut events: Vec<(Nanos, Side, String)> = Vec::new();
    for (side, trace) in [(Side::Down, &evidence.kernel.down), (Side::Up, &evidence.kernel.up)] {
        if let Some(trace) = trace {
            socket_events(&mut events, side, trace);
        }
        if let Some(frame) = evidence.relay.as_ref().and_then(|relay| relay.leg(side).close_frame.as_ref()) {
            events.push((
                frame.at,
                side,
                frame.code.map_or("close".to_owned(), |code| format!("close{code}")),
            ));
        }
    }
    let zero = events.iter().map(|(at, ..)| *at).min()?;
    if let Some(process) = &evidence.kernel.peer {
        process_events(&mut events, process);
    }
    // Of a link that flaps only the last changes, or they would displace the end itself.
    let network = evidence.kernel.network.iter().rev().take(MAX_NETWORK_EVENTS);
    events.extend(network.map(|event| (event.at, event.side, event.change.as_str().to_owned())));
    events.sort();
    let ms_from_zero = |at: Nanos| {
        let distance = i64::try_from(at.abs_diff(zero) / 1_000_000).unwrap_or(i64::MAX);
        if at < zero { -distance } else { distance }
    };
    let events = events.into_iter().take(MAX_EVENTS).map(|(at, side, what)| Event {
        side,
        what,
        at_ms: ms_from_zero(at),
    });
    Some(Chain(events.collect()))
}

fn socket_events(events: &mut Vec<(Nanos, Side, String)>, side: Side, trace: &SocketFacts) {
    let SocketFacts { fin_in, fin_out, rst_in, rst_out, error, .. } = trace;
    for (at, what) in [
        (fin_in, LegEnd::FinIn),
        (fin_out, LegEnd::FinOut),
        (rst_in, LegEnd::RstIn),
        (rst_out, LegEnd::RstOut),
    ] {
        events.extend(at.map(|at| (at, side, what.as_str().to_owned())));
    }
    if let Some((errno, at)) = error
        && let Some(end) = errno_end(*errno)
    {
        events.push((*at, side, end.as_str().to_owned()));
    }
}

fn process_events(events: &mut Vec<(Nanos, Side, String)>, process: &Process) {
    if let Fate::Signal(signal) = process.fate
        && let Some(at) = process.signalled_at.or(process.ended_at)
    {
        events.push((at, Side::Up, format!("peer_sig{signal}")));
    }
    events.extend(
        process
            .stop_request
            .as_ref()
            .filter(|_| !matches!(process.fate, Fate::Signal(_)))
            .map(|request| (request.at, Side::Up, format!("peer_sig{}", request.signal))),
    );
    let ended = match process.fate {
        Fate::Exit(status) => Some(format!("peer_exit{status}")),
        Fate::Oom => Some("peer_oom".to_owned()),
        Fate::Alive | Fate::Signal(_) => None,
    };
    let ended_at = process.signalled_at.filter(|_| process.fate == Fate::Oom).or(process.ended_at);
    events.extend(ended.zip(ended_at).map(|(what, at)| (at, Side::Up, what)));
}

#[cfg(test)]
mod tests {
    use crate::{
        assemble,
        evidence::*,
        verdict::evidence_builder::{END, EvidenceBuilder, MS, OPENED},
        vocabulary::{KernelSource, Side},
        wire::Session,
    };

    fn session() -> Session {
        Session {
            conn: "k3v9q0a1b2c3d".into(),
            user: "alice".into(),
            ip: "203.0.113.7".into(),
            ray: Some("8c1f0000abcd1234-LHR".into()),
            opened_at: Some(OPENED),
            down: None,
            up: None,
            serve_port: 3773,
            kept: false,
            resumed: 0,
        }
    }

    #[track_caller]
    fn check(builder: EvidenceBuilder, expected: &str) {
        assert_eq!(assemble(&session(), &builder.0).to_line(), expected);
    }

    #[test]
    fn a_killed_serve_with_complete_evidence() {
        let killed =
            EvidenceBuilder::healthy().rst(Side::Up, END).peer(Fate::Signal(9), END - MS).kernel(|k| {
                let peer = k.peer.as_mut().unwrap();
                peer.killer = Some(Task { pid: 77, comm: "bash".into() });
                peer.signalled_at = Some(END - 2 * MS);
                let stall = Stall { some: 3.04, full: Some(1.0), peak: 12.0, some30: 1.0 };
                k.pressure = Some(Pressure { mem: Some(stall), io: Some(stall), cpu: None });
                k.memory = Some(Memory {
                    current: Some(1 << 30),
                    max: None,
                    oom_kills: Some(0),
                    high_events: Some(14),
                });
                k.swap_free = Some(1 << 20);
                k.lost = 2;
            });
        check(
            killed,
            "ws close user=alice ip=203.0.113.7 dur_ms=60000 cause=upstream_closed verdict=serve_killed segment=serve \
             conn=k3v9q0a1b2c3d kernel=tracepoint how=signal:9 closed_by=upstream confidence=proven down_end=rst_out up_end=rst_in \
             up_bytes=1000 down_bytes=1000 up_msgs=10 down_msgs=10 up_idle_ms=100 down_idle_ms=100 hb_n=12 hb_rtt_ms=1 \
             hb_rtt_max_ms=2 hb_gap_ms=2000 hb_period_ms=5000 hb_by=text up_silent_ms=100 down_rtt_us=0 down_retrans=0 down_unacked=0 down_lost=0 up_rtt_us=0 \
             up_retrans=0 up_unacked=0 up_lost=0 peer_pid=4242 peer_comm=node peer_exit=sig:9 killed_by=bash[77] psi_mem=3.0 \
             psi_io=3.0 psi_mem_full=1.0 psi_io_full=1.0 psi_mem_peak=12.0 psi_io_peak=12.0 mem_current=1073741824 oom_kills=0 \
             mem_high=14 swap_free=1048576 self_lag_ms=1 chain=up:peer_sig9@-2,up:rst_in@0,down:rst_out@1 ray=8c1f0000abcd1234-LHR lost=2",
        );
    }

    #[test]
    fn unknown_values_are_omitted() {
        let mut builder =
            EvidenceBuilder::healthy().no_kernel(KernelSource::Off).close(Side::Down, 1000, END);
        let relay = builder.0.relay.as_mut().unwrap();
        relay.heartbeat = None;
        relay.self_lag_ms = None;
        (relay.down.tcp, relay.up.tcp) = (None, None);
        check(
            builder,
            "ws close user=alice ip=203.0.113.7 dur_ms=60000 cause=downstream_closed verdict=client_closed segment=downstream \
             conn=k3v9q0a1b2c3d kernel=off how=ws_close:1000 closed_by=downstream confidence=likely ws_code=1000 ws_from=down \
             up_bytes=1000 down_bytes=1000 up_msgs=10 down_msgs=10 up_idle_ms=100 down_idle_ms=100 hb_by=none up_silent_ms=100 chain=down:close1000@0 \
             ray=8c1f0000abcd1234-LHR",
        );
    }

    #[test]
    fn a_session_of_a_dead_dispatch() {
        let mut builder = EvidenceBuilder::healthy()
            .socket(Side::Down, |t| t.fin_out = Some(END))
            .socket(Side::Up, |t| t.rst_out = Some(END + MS));
        builder.0.relay = None;
        builder.0.dispatch_died = Some(DispatchDeath { fate: Some(Fate::Signal(9)), at: END });
        check(
            builder,
            "ws close user=alice ip=203.0.113.7 dur_ms=60000 cause=dispatch_closed verdict=dispatch_died segment=dispatch \
             conn=k3v9q0a1b2c3d kernel=tracepoint how=proxy_signal:9 closed_by=dispatch confidence=proven down_end=fin_out \
             up_end=rst_out peer_pid=4242 peer_comm=node peer_exit=alive chain=down:fin_out@0,up:rst_out@1 ray=8c1f0000abcd1234-LHR",
        );
    }

    #[test]
    fn restarts_that_the_session_survived_are_recorded() {
        let record = |registered: u32, relay: Option<(u32, Option<Nanos>)>| {
            let mut builder = EvidenceBuilder::healthy().close(Side::Down, 1000, END);
            let facts = builder.0.relay.as_mut().unwrap();
            match relay {
                Some((resumed, at)) => (facts.resumed, facts.resumed_at) = (resumed, at),
                None => builder.0.relay = None,
            }
            let record = assemble(&Session { resumed: registered, ..session() }, &builder.0);
            (record.resumed, record.resumed_ms)
        };
        assert_eq!(record(0, Some((0, None))), (None, None));
        assert_eq!(record(0, Some((2, Some(END - 1500 * MS)))), (Some(2), Some(1500)));
        // Of a dispatch that died: the registration has the number.
        assert_eq!(record(3, None), (Some(3), None));
        assert_eq!(record(1, Some((0, None))), (Some(1), None));
    }

    #[test]
    fn the_first_close_frame_is_recorded() {
        let mut builder =
            EvidenceBuilder::healthy().close(Side::Up, 1001, END).close(Side::Down, 1000, END + MS);
        builder.0.relay.as_mut().unwrap().up.close_frame.as_mut().unwrap().reason = "going \"away\"".into();
        let record = assemble(&session(), &builder.0);
        assert_eq!((record.ws_code, record.ws_from), (Some(1001), Some(Side::Up)));
        assert!(record.to_line().contains(r#" ws_reason="going \"away\"" "#), "{}", record.to_line());
    }
}
