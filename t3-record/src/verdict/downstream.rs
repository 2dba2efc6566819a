//! Causes when the downstream side acted first: a deliberate close, a stalled serve, or the path.
//!
//! The client's watchdog closes with a clean Close 1000, so the code proves nothing: the heartbeats
//! before it decide.

use crate::{
    evidence::{Evidence, Heartbeat, Nanos, RelayFacts, SocketFacts, TcpFacts},
    how::How,
    verdict::{
        Finding,
        acts::{Act, Kind},
        death::death,
        leg::{broke_protocol, fin_how},
        pressure,
        watchdog::{DEFAULT_PERIOD, SHORTEST, SHORTEST_KNOWN, period, watchdog, watchdog_limit},
    },
    vocabulary::{Confidence, HeartbeatSource, Segment, Side, Verdict},
};

/// Samples in a row with answers delivered in time, after which an earlier outage is not the cause.
/// The last is the sample at the end; the three heartbeats before it are what the longest watchdog
/// counts (facts: t3 client).
const RECOVERED: usize = 4;

/// Retransmission timeouts in a row after which a segment has been on its way for longer than the
/// shortest watchdog waits: with the shortest timer of 200 ms, doubled each time, the fifth runs
/// out after 6 s (RFC 6298 section 5.5).
const DEAF: u8 = 5;

/// Most unanswered pings at which an older client gives up (facts: t3 client, "Pings unanswered
/// then").
const OLD_MISSES: u32 = 3;

/// `TCP_USER_TIMEOUT` where it is unknown, in milliseconds.
const USER_TIMEOUT_MS: u32 = 10_000;

/// Time that an answer needs to the client, and its close to here.
const CROSSING: Nanos = 500_000_000;

/// Heartbeats recognised by their period that are not chance: at a period at which no user sends
/// messages regularly, and at a shorter one.
const SURE_RHYTHM: u64 = 6;
const SURE_QUICK_RHYTHM: u64 = 12;
/// See [`SURE_QUICK_RHYTHM`].
const SLOWEST_USER: Nanos = 2_000_000_000;

pub(super) fn judge(evidence: &Evidence, first: Act) -> Finding {
    let kernel = &evidence.kernel;
    let relay = evidence.relay.as_ref();
    if matches!(first.kind, Kind::Timeout | Kind::Unreach) {
        return Finding::proven(
            Verdict::ClientVanished,
            vanished_how(first.kind, relay, kernel.down.as_ref()),
            Segment::Downstream,
        );
    }
    let Some(relay) = relay else {
        return plain(first, None, kernel.down.as_ref());
    };
    // The client reports a protocol error of serve, and the relay saw it.
    if let Some(finding) = broke_protocol(evidence, Side::Up).or_else(|| broke_protocol(evidence, Side::Down))
    {
        return finding;
    }
    if let Some(finding) = serve_died(evidence, relay, first) {
        return finding;
    }
    if let Some(finding) = serve_stalled(evidence, relay, first) {
        return finding;
    }
    if let Some(finding) = reply_crossed(evidence, relay, first) {
        return finding;
    }
    if let Some(how) = path_stuck(relay, first.at).filter(|_| is_reaction(relay, first)) {
        return Finding::likely(Verdict::PathStalled, how, Segment::Downstream);
    }
    let cut = matches!(first.kind, Kind::Rst | Kind::Fin);
    if cut && evidence.burst.is_some_and(|burst| burst.users >= 2) {
        return Finding::likely(Verdict::EdgeBurst, How::Burst, Segment::Downstream);
    }
    if gave_up(first.kind, relay) && answers_lost(relay) {
        return Finding::likely(Verdict::PathStalled, How::Loss, Segment::Downstream);
    }
    if let Some(how) = backlog(relay, first) {
        return Finding::likely(Verdict::PathStalled, how, Segment::Downstream);
    }
    if gave_up(first.kind, relay) && heartbeat_lost(relay, first.at) {
        return Finding::likely(Verdict::PathStalled, How::HeartbeatLost, Segment::Downstream);
    }
    if is_false_alarm(evidence, relay, first) {
        return Finding::likely(Verdict::ClientClosed, How::FalseAlarm, Segment::Downstream);
    }
    plain(first, Some(relay), kernel.down.as_ref())
}

/// Verdict by the act alone, with healthy heartbeats.
fn plain(first: Act, relay: Option<&RelayFacts>, trace: Option<&SocketFacts>) -> Finding {
    match first.kind {
        Kind::CloseFrame => {
            let code = relay.and_then(|r| r.down.close_frame.as_ref()).and_then(|frame| frame.code);
            Finding::proven(
                Verdict::ClientClosed,
                code.map_or(How::WsCloseEmpty, How::WsClose),
                Segment::Downstream,
            )
        }
        Kind::Fin => {
            let how = relay.map_or(How::Fin, |r| fin_how(&r.down, &r.up, trace.and_then(|t| t.rst_in)));
            Finding::proven(Verdict::ClientLeft, how, Segment::Downstream)
        }
        // A firewall of this host that rejects what dispatch sends answers for the client, and the
        // kernel does not show the sender of a RST.
        Kind::Rst if relay.and_then(|r| r.down.tcp?.outstanding).is_some_and(|bytes| bytes > 0) => {
            Finding::likely(Verdict::ClientReset, How::Rst, Segment::Downstream)
        }
        Kind::Rst => Finding::proven(Verdict::ClientReset, How::Rst, Segment::Downstream),
        Kind::Timeout | Kind::Unreach => {
            Finding::proven(Verdict::ClientVanished, How::Vanished, Segment::Downstream)
        }
        Kind::Abort | Kind::Error => Finding::likely(Verdict::Unknown, How::Rst, Segment::Unknown),
    }
}

/// serve's process had ended, or had been given its fatal signal, before the client gave up: its
/// socket can outlive it (core dump, a child with the descriptor, slow release of memory).
fn serve_died(evidence: &Evidence, relay: &RelayFacts, first: Act) -> Option<Finding> {
    if !is_reaction(relay, first) {
        return None;
    }
    let process = evidence.kernel.peer.as_ref()?;
    let died = process.signalled_at.or(process.ended_at).filter(|died| *died <= first.at)?;
    let finding = death(&evidence.kernel, process.fate)?;
    // A user who leaves at that moment looks the same.
    let is_sure = first.at.saturating_sub(died) >= SHORTEST;
    Some(if is_sure { finding } else { Finding::likely(finding.verdict, finding.how, finding.segment) })
}

/// serve was silent, in frames of any kind, after a ping for the time of the client's watchdog.
fn serve_stalled(evidence: &Evidence, relay: &RelayFacts, first: Act) -> Option<Finding> {
    let at = first.at;
    let heartbeat = relay.heartbeat.filter(|_| is_reaction(relay, first))?;
    // Clients count any frame as life (facts: t3 client).
    let silent_since = match heartbeat.source {
        Some(_) if heartbeat.is_by_serve => relay.up.last_frame_at,
        Some(_) => heartbeat.silent_since,
        None => heartbeat.waiting_since,
    };
    // serve continued to send after the ping, and the client accepted nothing: the answer is in
    // that queue.
    let sending =
        relay.up.last_byte_at.is_some_and(|last| heartbeat.waiting_since.is_some_and(|since| last > since));
    if sending && path_stuck(relay, at).is_some() {
        return None;
    }
    // While the downstream leg was backed up, reading from serve was paused and its answers could
    // be unread, so that time does not count against serve.
    let backed_up = relay.down.backed_up_since.into_iter().chain(relay.down.backlog.map(|b| b.since)).min();
    let until = backed_up.map_or(at, |since| since.min(at));
    let waited = until.saturating_sub(silent_since?);
    if waited < watchdog(&heartbeat) {
        return None;
    }
    let halted = evidence.kernel.peer.as_ref().and_then(|process| process.halted).is_some();
    let segment = if !halted && pressure::starved(&evidence.kernel).is_some() {
        Segment::Devvm
    } else {
        Segment::Serve
    };
    // Two unanswered pings, a close at the tick of a watchdog, or a process known not to run: more
    // than one late answer and a user who left at that moment.
    let known = heartbeat.pongs > 0 && (heartbeat.unanswered >= 2 || at_tick(&heartbeat, at));
    // Few messages have a period by chance.
    let enough = if period(&heartbeat) < SLOWEST_USER { SURE_QUICK_RHYTHM } else { SURE_RHYTHM };
    let few = heartbeat.source == Some(HeartbeatSource::Rhythm) && heartbeat.pings < enough;
    let by_chance = few || heartbeat.can_be_chance();
    let sure = halted || (known && !by_chance && !heartbeat.is_by_serve);
    Some(Finding {
        verdict: Verdict::ServeStalled,
        how: How::Stall,
        segment,
        confidence: if sure { Confidence::Proven } else { Confidence::Likely },
    })
}

/// serve answered a ping after the time of the watchdog, and the close came so soon after it that
/// the client had sent it before it could read the answer.
fn reply_crossed(evidence: &Evidence, relay: &RelayFacts, first: Act) -> Option<Finding> {
    let heartbeat = relay.heartbeat.filter(|heartbeat| !heartbeat.is_by_serve)?;
    let (answered, rtt) = heartbeat.last_pong_at.zip(heartbeat.rtt_ns)?;
    let crossed = answered <= first.at && first.at - answered < CROSSING;
    // Of several late answers, the last has the shortest time.
    let is_late = rtt >= watchdog_limit(period(&heartbeat));
    let starved = pressure::starved(&evidence.kernel).is_some();
    let segment = if starved { Segment::Devvm } else { Segment::Serve };
    (crossed && is_late && is_reaction(relay, first))
        .then(|| Finding::likely(Verdict::ServeStalled, How::Stall, segment))
}

/// Data of serve waited for the client's line for the time of its watchdog, and the answers behind
/// it.
fn backlog(relay: &RelayFacts, first: Act) -> Option<How> {
    let limit = relay.heartbeat.as_ref().map_or(DEFAULT_PERIOD, watchdog);
    let backlog = relay.down.backlog.filter(|_| is_reaction(relay, first))?;
    (first.at.saturating_sub(backlog.since) >= limit).then_some(How::Backlog)
}

/// The act can be the client's reaction to silence: no watchdog sends Close 1001 or a code of the
/// application (facts: t3 client).
pub(super) fn is_reaction(relay: &RelayFacts, first: Act) -> bool {
    let code = relay.down.close_frame.as_ref().and_then(|frame| frame.code);
    first.kind != Kind::CloseFrame || !matches!(code, Some(1001 | 3000..))
}

/// The act can be a watchdog's although no rule of a stall matches.
pub(super) fn is_unsure(evidence: &Evidence, first: Act) -> bool {
    let Some(relay) = evidence.relay.as_ref().filter(|relay| is_reaction(relay, first)) else { return false };
    is_old_watchdog(relay, first)
        || is_short_watchdog(relay, first)
        || stopped_pinging(relay, first)
        || was_halted(evidence, relay, first)
}

/// The act can be that of a client whose watchdog is shorter than its period.
fn is_short_watchdog(relay: &RelayFacts, first: Act) -> bool {
    let since = relay.heartbeat.filter(|h| !h.is_by_serve && h.survived == 0).and_then(|h| h.silent_since);
    since.is_some_and(|since| first.at.saturating_sub(since) >= SHORTEST_KNOWN)
}

/// The process does not run, and was silent for the time of a watchdog that needs no unanswered
/// ping (facts: t3 client, 4.0.2 to 4.0.4).
fn was_halted(evidence: &Evidence, relay: &RelayFacts, first: Act) -> bool {
    let halted = evidence.kernel.peer.as_ref().and_then(|process| process.halted).is_some();
    let silent = relay.up.last_frame_at.map_or(0, |last| first.at.saturating_sub(last));
    halted && silent >= watchdog_limit(relay.heartbeat.as_ref().map_or(DEFAULT_PERIOD, period))
}

/// The act can be that of an older client, which counts only answers as life and gives up after one
/// to three pings without one, although serve sends frames (facts: t3 client, "counts as life").
fn is_old_watchdog(relay: &RelayFacts, first: Act) -> bool {
    let Some(heartbeat) = relay.heartbeat else { return false };
    let waited = heartbeat.waiting_since.map_or(0, |since| first.at.saturating_sub(since));
    (1..=OLD_MISSES).contains(&heartbeat.unanswered) && waited >= watchdog(&heartbeat)
}

/// The act can be a reaction to silence, and the client's heartbeats had stopped before it: nothing
/// shows that serve was alive since.
fn stopped_pinging(relay: &RelayFacts, first: Act) -> bool {
    let heartbeat = relay.heartbeat.filter(|heartbeat| !heartbeat.is_by_serve);
    let Some(last) = heartbeat.and_then(|heartbeat| heartbeat.last_ping_at) else { return false };
    let period = heartbeat.as_ref().map_or(DEFAULT_PERIOD, period);
    first.at.saturating_sub(last) >= missing_after(period)
}

/// Time after a ping without another one in which heartbeats count as missing. A watchdog that
/// closes at the first missed answer fires two periods after the last ping that came, to the
/// millisecond (measured with effect 4.1); a tenth is for the jitter of its ticks.
fn missing_after(period: Nanos) -> Nanos {
    (period.saturating_mul(2) - period / 10).max(SHORTEST)
}

/// The act was at the time of the next ping: the watchdog closes instead of pinging (facts: t3
/// client, "stock watchdog").
fn at_tick(heartbeat: &Heartbeat, at: Nanos) -> bool {
    let (Some(period), Some(last)) = (heartbeat.period_ns, heartbeat.last_ping_at) else { return false };
    at.saturating_sub(last).abs_diff(period) <= period / 10
}

/// Answers were written and the client accepted none: zero window, or nothing acknowledged.
fn path_stuck(relay: &RelayFacts, at: Nanos) -> Option<How> {
    let period = relay.heartbeat.as_ref().map_or(DEFAULT_PERIOD, period);
    // A line that accepts some bytes now and then is slow ([`backlog`]), not blocked.
    let blocked = relay.down.blocked_since.or(relay.down.backed_up_since);
    let is_blocked = relay.down.pending_bytes > 0
        && blocked.is_some_and(|since| at.saturating_sub(since) >= watchdog_limit(period));
    let Some(tcp) = relay.down.tcp else {
        return is_blocked.then_some(How::ZeroWindow);
    };
    if is_blocked {
        let is_lossy = tcp.retransmits > 0 || tcp.backoff > 0 || tcp.lost > 0 || tcp.total_retrans > 0;
        return Some(match (is_window_closed(&tcp), is_lossy) {
            (true, _) => How::ZeroWindow,
            (false, true) => How::Loss,
            (false, false) => How::Backlog,
        });
    }
    let silent = u64::from(tcp.last_ack_recv_ms).saturating_mul(1_000_000) >= watchdog_limit(period);
    // The other direction may work, so that ACKs of old data still arrive; then only the expired
    // timer of the oldest segment shows the loss.
    let unacknowledged = tcp.retransmits >= DEAF;
    let unsent = u64::from(tcp.last_data_sent_ms).saturating_mul(1_000_000) >= watchdog_limit(period);
    if tcp.notsent_bytes > 0 && is_window_closed(&tcp) && unsent {
        // dispatch's socket holds answers that the peer's zero window has blocked for that time.
        return Some(How::ZeroWindow);
    }
    (tcp.unacked > 0 && (silent && (tcp.retransmits > 0 || tcp.backoff > 0) || unacknowledged))
        .then_some(How::Loss)
}

/// The peer advertised a zero window; where the kernel does not report it, nothing is in flight
/// although data waits.
fn is_window_closed(tcp: &TcpFacts) -> bool {
    tcp.peer_window.map_or(tcp.unacked == 0, |window| window == 0)
}

/// An end as by a watchdog or a cut path: FIN, the watchdog's Close 1000 (facts: t3 client, "close
/// sent by the watchdog"), or RST, which a host sends for a client that no longer exists. A page
/// that is left sends 1001, and pings rarely in the background.
fn gave_up(kind: Kind, relay: &RelayFacts) -> bool {
    let code = relay.down.close_frame.as_ref().and_then(|frame| frame.code);
    matches!(kind, Kind::Fin | Kind::Rst) || (kind == Kind::CloseFrame && matches!(code, Some(1000) | None))
}

/// Segments were lost, no answer of serve was delivered for longer than the shortest watchdog, and
/// the path has not recovered since. Loss without silence is normal on any path; silence without
/// loss is a client that does not ping.
fn answers_lost(relay: &RelayFacts) -> bool {
    let period = relay.heartbeat.as_ref().map_or(DEFAULT_PERIOD, period);
    // One answer was delivered at the time of the next ping, and the following one was not.
    let late = period.saturating_add(watchdog_limit(period));
    let (mut silent, mut lost, mut well) = (false, 0, 0);
    for sample in relay.samples.iter().rev() {
        if sample.silence_ns >= late {
            (silent, well) = (true, 0);
        } else {
            well += 1;
        }
        if well >= RECOVERED {
            break;
        }
        lost = sample.lost.saturating_add(lost);
    }
    silent && lost > 0
}

/// Pings stopped although all were answered; or they had stopped, and the delayed ones arrived
/// together with the end.
fn heartbeat_lost(relay: &RelayFacts, at: Nanos) -> bool {
    let Some(heartbeat) = relay.heartbeat.filter(|heartbeat| !heartbeat.is_by_serve) else { return false };
    let period = period(&heartbeat);
    let silence = missing_after(period);
    // With fewer pings the period is unknown.
    let Some(last) = heartbeat.last_ping_at.filter(|_| heartbeat.pings >= 3) else { return false };
    let since = at.saturating_sub(last);
    let interval = heartbeat.last_interval_ns;
    let held_up = interval.is_some_and(|interval| interval >= silence) && since < period.max(SHORTEST);
    (since >= silence && heartbeat.waiting_since.is_none()) || held_up
}

/// A watchdog that closes a healthy session: it measures the time since the last frame of serve and
/// not since an unanswered ping, so that on a quiet server it fires at a tick that is late (facts:
/// t3 client, "False alarm"). Every ping was answered, serve was silent for a period, and the Close
/// is in place of the next ping.
fn is_false_alarm(evidence: &Evidence, relay: &RelayFacts, first: Act) -> bool {
    let by_watchdog = relay.down.close_frame.as_ref().is_some_and(|frame| frame.is_of_a_watchdog());
    let heartbeat = relay.heartbeat.filter(|heartbeat| {
        let is_of_t3 = !heartbeat.is_by_serve && heartbeat.source != Some(HeartbeatSource::Ping);
        is_of_t3 && heartbeat.unanswered == 0
    });
    let (true, Some(heartbeat), Some(served)) = (by_watchdog, heartbeat, relay.up.last_frame_at) else {
        return false;
    };
    let (Some(pinged), Some(_)) = (heartbeat.last_ping_at, heartbeat.last_pong_at) else { return false };
    // A message after the last frame of serve could wait for a reply.
    let waits = relay.down.last_frame_at.is_some_and(|sent| sent > served);
    // A stopped process is silent, too, although no ping is unanswered yet.
    let halted = evidence.kernel.peer.as_ref().and_then(|process| process.halted).is_some();
    let period = period(&heartbeat);
    // The tick is late, never early; the rest is for the jitter of the period that was learned.
    let tick = (period - period / 500).max(SHORTEST)..missing_after(period);
    first.kind == Kind::CloseFrame
        && !waits
        && !halted
        && tick.contains(&first.at.saturating_sub(pinged))
        && first.at.saturating_sub(served) >= tick.start
}

fn vanished_how(kind: Kind, relay: Option<&RelayFacts>, trace: Option<&SocketFacts>) -> How {
    if kind == Kind::Unreach {
        return How::Unreach;
    }
    let Some(relay) = relay else { return How::Vanished };
    let Some(tcp) = &relay.down.tcp else { return How::Vanished };
    // Zero-window probes are answered until the peer is gone; data stays unsent.
    if tcp.peer_window == Some(0) || (relay.down.pending_bytes > 0 && is_window_closed(tcp)) {
        return How::ZeroWindow;
    }
    let in_flight = tcp.unacked > 0
        || tcp.retransmits > 0
        || tcp.lost > 0
        || trace.is_some_and(|trace| trace.retrans > 0);
    // A link that loses everything was silent for the whole timeout.
    let silence_ms = tcp.last_ack_recv_ms.min(tcp.last_data_recv_ms);
    let delivers = silence_ms < tcp.user_timeout_ms.unwrap_or(USER_TIMEOUT_MS) / 10 * 9;
    if in_flight && delivers { How::Loss } else { How::Vanished }
}
