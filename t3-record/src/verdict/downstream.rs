//! The browser's side acted first: did it want to, had it waited in vain for serve, or had the path
//! failed it?
//!
//! The browser's watchdog closes with a clean Close 1000, so the code proves nothing: what the
//! heartbeats did before it decides.

use crate::{
    evidence::{Evidence, Heartbeat, LegFacts, Nanos, RelayFacts, SocketFacts},
    how::How,
    verdict::{
        Finding,
        acts::{Act, Acts, Kind},
        pressure,
        upstream::{broke_protocol, fin_how},
    },
    vocabulary::{Confidence, Segment, Side, Verdict},
};

/// The period of pings when too few were seen to learn it (facts: t3 client, "ping tick").
const DEFAULT_PERIOD: Nanos = 5_000_000_000;

/// Looks in a row at which the answers got through in time: the browser has seen them, and what
/// ends it afterwards is not the trouble before. The last is the one at the end; between them come
/// three beats, which is what the longest watchdog counts (facts: t3 client).
const RECOVERED: usize = 4;

/// No watchdog is shorter, however fast a client pings: what is shorter is the scheduling of a busy
/// machine.
const SHORTEST: Nanos = 1_000_000_000;

/// Retransmission timeouts in a row after which a segment has been on its way for longer than the
/// shortest watchdog waits: with the shortest timer of 200 ms, doubled each time, the fifth runs
/// out after 6 s (RFC 6298 section 5.5).
const DEAF: u8 = 5;

pub(super) fn judge(evidence: &Evidence, _acts: &Acts, first: Act) -> Finding {
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
    // The browser's word that serve broke the protocol, and we saw it.
    if let Some(finding) = broke_protocol(evidence, Side::Up).or_else(|| broke_protocol(evidence, Side::Down))
    {
        return finding;
    }
    if let Some(finding) = serve_stalled(evidence, relay, first.at) {
        return finding;
    }
    if let Some(how) = path_stuck(relay, first.at) {
        return Finding::likely(Verdict::PathStalled, how, Segment::Downstream);
    }
    let cut = matches!(first.kind, Kind::Rst | Kind::Fin);
    if cut && evidence.burst.is_some_and(|burst| burst.users >= 2) {
        return Finding::likely(Verdict::EdgeBurst, How::Burst, Segment::Downstream);
    }
    if gave_up(first.kind, relay) && answers_lost(relay) {
        return Finding::likely(Verdict::PathStalled, How::Loss, Segment::Downstream);
    }
    if gave_up(first.kind, relay) && heartbeat_lost(relay, first.at) {
        return Finding::likely(Verdict::PathStalled, How::HeartbeatLost, Segment::Downstream);
    }
    plain(first, Some(relay), kernel.down.as_ref())
}

/// The end as it looks, with healthy heartbeats.
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
        Kind::Rst => Finding::proven(Verdict::ClientReset, How::Rst, Segment::Downstream),
        Kind::Timeout | Kind::Unreach => {
            Finding::proven(Verdict::ClientVanished, How::Vanished, Segment::Downstream)
        }
        Kind::Abort | Kind::Error => Finding::likely(Verdict::Unknown, How::Rst, Segment::Unknown),
    }
}

/// A ping that serve had received went unanswered for as long as the browser's watchdog waits.
fn serve_stalled(evidence: &Evidence, relay: &RelayFacts, at: Nanos) -> Option<Finding> {
    let heartbeat = relay.heartbeat?;
    // serve went on sending after the ping, and the browser's side took none of it: the answer is
    // somewhere in that queue.
    let sending =
        relay.up.last_byte_at.is_some_and(|last| heartbeat.waiting_since.is_some_and(|since| last > since));
    if sending && path_stuck(relay, at) == Some(How::ZeroWindow) {
        return None;
    }
    // While the browser's leg was backed up we read nothing from serve: its answers may have lain
    // there, so that time is not serve's.
    let until = relay.down.backed_up_since.map_or(at, |since| since.min(at));
    let waited = until.saturating_sub(heartbeat.waiting_since?);
    // A browser that has put up with missed ticks before has a watchdog that needs more of them.
    if waited < watchdog_limit(period(&heartbeat)).saturating_mul(u64::from(heartbeat.survived) + 1) {
        return None;
    }
    let halted = evidence.kernel.peer.as_ref().and_then(|process| process.halted).is_some();
    let segment = if !halted && pressure::starved(&evidence.kernel).is_some() {
        Segment::Devvm
    } else {
        Segment::Serve
    };
    // Two pings in a row, a close at the very tick at which a watchdog looks, or a process that is
    // known not to run: more than one late answer and a person who happened to leave.
    let sure = halted || (heartbeat.pongs > 0 && (heartbeat.unanswered >= 2 || at_tick(&heartbeat, at)));
    Some(Finding {
        verdict: Verdict::ServeStalled,
        how: How::Stall,
        segment,
        confidence: if sure { Confidence::Proven } else { Confidence::Likely },
    })
}

/// The act came when the next ping was due: the watchdog closes in place of it (facts: t3 client,
/// "stock watchdog").
fn at_tick(heartbeat: &Heartbeat, at: Nanos) -> bool {
    let (Some(period), Some(last)) = (heartbeat.period_ns, heartbeat.last_ping_at) else { return false };
    at.saturating_sub(last).abs_diff(period) <= period / 10
}

/// Answers were written and the browser's side took none of them: its window stayed shut, or
/// nothing was acknowledged.
fn path_stuck(relay: &RelayFacts, at: Nanos) -> Option<How> {
    let period = relay.heartbeat.as_ref().map_or(DEFAULT_PERIOD, period);
    let backed_up = relay.down.backed_up_since.or(relay.down.blocked_since);
    if relay.down.pending_bytes > 0
        && backed_up.is_some_and(|since| at.saturating_sub(since) >= watchdog_limit(period))
    {
        return Some(How::ZeroWindow);
    }
    let tcp = relay.down.tcp?;
    let silent = u64::from(tcp.last_ack_recv_ms).saturating_mul(1_000_000) >= watchdog_limit(period);
    // The other direction may be whole, so that acknowledgements of old data still come: then only
    // the timer of the oldest segment tells, which has run out this often in a row.
    let unacknowledged = tcp.retransmits >= DEAF;
    let unsent = u64::from(tcp.last_data_sent_ms).saturating_mul(1_000_000) >= watchdog_limit(period);
    if tcp.notsent_bytes > 0 && tcp.unacked == 0 && unsent {
        // Our own socket holds answers that the peer's shut window has kept back for as long.
        return Some(How::ZeroWindow);
    }
    (tcp.unacked > 0 && (silent && (tcp.retransmits > 0 || tcp.backoff > 0) || unacknowledged))
        .then_some(How::Loss)
}

/// Ended the way a watchdog or a cut path ends it: by FIN, by the watchdog's own Close 1000 (facts:
/// t3 client, "close sent by the watchdog"), or by RST, with which a host answers what comes for a
/// browser that is gone already. A page that is left says 1001, and its pings may have been rare
/// because it was in the background.
fn gave_up(kind: Kind, relay: &RelayFacts) -> bool {
    let code = relay.down.close_frame.as_ref().and_then(|frame| frame.code);
    matches!(kind, Kind::Fin | Kind::Rst) || (kind == Kind::CloseFrame && matches!(code, Some(1000) | None))
}

/// Segments were lost, and for longer than the shortest watchdog waits no answer got through that
/// serve had given; it has not gone well for long enough since. Loss without silence is any path's,
/// and silence without loss is a browser's that does not ping.
fn answers_lost(relay: &RelayFacts) -> bool {
    let period = relay.heartbeat.as_ref().map_or(DEFAULT_PERIOD, period);
    // An answer got through just when the next ping was due, and the next one not.
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

/// Pings stopped arriving although each one that came was answered; or they had stopped, and what
/// had been held up on the way came together with the end.
fn heartbeat_lost(relay: &RelayFacts, at: Nanos) -> bool {
    let Some(heartbeat) = relay.heartbeat else { return false };
    let period = period(&heartbeat);
    // A watchdog that closes at the first missed answer fires two periods after the last ping that
    // came, to the millisecond (measured with effect 4.1); a tenth is for the jitter of its ticks.
    let silence = (period.saturating_mul(2) - period / 10).max(SHORTEST);
    // With fewer pings no rhythm is known that could have been lost.
    let Some(last) = heartbeat.last_ping_at.filter(|_| heartbeat.pings >= 3) else { return false };
    let since = at.saturating_sub(last);
    let interval = heartbeat.last_interval_ns;
    let held_up = interval.is_some_and(|interval| interval >= silence) && since < period.max(SHORTEST);
    (since >= silence && heartbeat.waiting_since.is_none()) || held_up
}

fn vanished_how(kind: Kind, relay: Option<&RelayFacts>, trace: Option<&SocketFacts>) -> How {
    if kind == Kind::Unreach {
        return How::Unreach;
    }
    let Some(relay) = relay else {
        return if trace.is_some_and(|t| t.retrans > 0) { How::Loss } else { How::Vanished };
    };
    let LegFacts { tcp, pending_bytes, .. } = &relay.down;
    match tcp {
        // Probes of a shut window are answered until the peer is gone; data waits unsent.
        Some(tcp) if tcp.peer_window == Some(0) || (*pending_bytes > 0 && tcp.unacked == 0) => {
            How::ZeroWindow
        }
        Some(tcp) if tcp.unacked > 0 || tcp.retransmits > 0 || tcp.lost > 0 => How::Loss,
        _ if trace.is_some_and(|t| t.retrans > 0) => How::Loss,
        _ => How::Vanished,
    }
}

fn period(heartbeat: &Heartbeat) -> Nanos {
    heartbeat.period_ns.filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD)
}

/// How long a ping may go unanswered before the watchdog can have fired: it looks at the next tick,
/// and ticks jitter.
fn watchdog_limit(period: Nanos) -> Nanos {
    (period.saturating_mul(9) / 10).max(SHORTEST)
}
