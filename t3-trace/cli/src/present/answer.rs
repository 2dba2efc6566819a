//! Conclusion of a close: what happened and why it is proven or likely, in sentences. Adds nothing
//! to the record; docs/VERDICTS.md defines what each verdict proves. Pure.

use t3_record::{
    CloseRecord, ClosedBy, Confidence, How, KernelSource, Segment, Side, Verdict,
    evidence::Fate,
    value::Percent,
    vocabulary::{HeartbeatSource, Reconciled},
};

use super::{
    chain_text::{close_code, signal_name},
    text::{lasted, safe},
    units, verdict_text,
};

/// Returns the conclusion in one to three sentences; a likely one starts with "Likely:".
#[must_use]
pub fn sentence(record: &CloseRecord) -> String {
    let mut text = conclusion(record);
    if let Some(origin) = record.reconciled {
        text.push(' ');
        text.push_str(reconciled(origin));
    }
    match record.confidence {
        Some(Confidence::Proven) => text,
        Some(Confidence::Likely) => format!("Likely: {text}"),
        None => format!("Probably (confidence not recorded): {text}"),
    }
}

/// Returns why t3-trace wrote the record later.
const fn reconciled(origin: Reconciled) -> &'static str {
    match origin {
        Reconciled::Journal => {
            "No record was written then: t3-trace was not running either. It wrote this one later from the ws open; the \
             time of the close is the last sign of life."
        }
        Reconciled::Spool => {
            "The record did not arrive in the journal when the session closed; t3-trace wrote it again later."
        }
        Reconciled::Restart => {
            "t3-trace wrote the record later: it had waited for the next t3-dispatch to continue the session."
        }
    }
}

/// Returns the confidence with the deciding evidence; for a likely verdict also the doubt.
#[must_use]
pub fn confidence(record: &CloseRecord) -> String {
    match record.confidence {
        Some(Confidence::Proven) => format!("Proven: {}.", evidence(record)),
        Some(Confidence::Likely) => {
            format!("Likely, not proven: {}. {}", evidence(record), doubt(record))
        }
        None => format!("Confidence not recorded. Evidence: {}.", evidence(record)),
    }
}

/// Returns the confidence of a record that a statement of the edge contradicts: not proven,
/// whatever the record says.
#[must_use]
pub fn contradicted(record: &CloseRecord, why: &str) -> String {
    format!(
        "Not proven: {}. One of them is wrong, or they are about different events: compare the clocks, and both logs. \
         Evidence of this host: {}.",
        safe(why),
        evidence(record)
    )
}

/// Returns why a likely conclusion is not proven.
fn doubt(record: &CloseRecord) -> &'static str {
    let by_client =
        matches!(record.verdict, Verdict::ClientClosed | Verdict::ClientLeft | Verdict::ClientReset);
    if by_client && record.hb_by == Some(HeartbeatSource::None) {
        "No heartbeat was recognised, so a stall that ended in the client's watchdog would look the same."
    } else if record.how == Some(How::FalseAlarm) {
        "A user who closed at the time of the next ping would look the same."
    } else if record.verdict == Verdict::ServeRefused && record.segment == Segment::Devvm {
        "serve may have begun to listen in that moment."
    } else if by_client && unopened(record) && record.up_silent_ms.is_some() {
        "serve had not answered the upgrade, and the client may have given up because of it."
    } else if record.reconciled == Some(Reconciled::Journal) {
        "The session may have closed shortly before, without a record."
    } else if record.pause_ms.is_some() && record.verdict != Verdict::HostPaused {
        "The host did not run for part of that time, so the order of events is uncertain."
    } else if record.lag_ms.is_some() && record.verdict != Verdict::DispatchStalled {
        "t3-dispatch was late in that time, so the order of events is uncertain."
    } else {
        verdict_text::text(record.verdict).doubt
    }
}

fn conclusion(record: &CloseRecord) -> String {
    if record.how == Some(How::Simultaneous) || record.segment == Segment::None {
        return "Both ends closed at the same time, before either saw the other's close: no fault."
            .to_owned();
    }
    let user = safe(&record.user);
    let (client, serve) = (format!("{user}'s client"), format!("{user}'s serve"));
    match record.verdict {
        Verdict::ClientClosed if record.how == Some(How::FalseAlarm) => format!(
            "The watchdog of {client} closed a healthy session: every ping was answered, and serve had nothing else to \
             send. Client error of effect 4.0.2 to 4.0.4; neither serve nor the path is the cause."
        ),
        Verdict::ClientClosed => {
            let page = match record.how {
                Some(How::WsClose(1001)) => ", as sent by a page that is reloaded, closed or frozen",
                _ => "",
            };
            format!("{client} closed the session itself, with {}{page}; {}.", frame(record), pings(record))
        }
        Verdict::ClientLeft if unopened(record) => {
            format!(
                "{client}, or a hop between it and this host, {}{}.",
                left(record.how, true),
                record.up_silent_ms.map_or_else(String::new, |ms| format!(", {} after its upgrade", lasted(ms)))
            )
        }
        Verdict::ClientLeft => format!(
            "{client}, or a hop between it and this host, {}; {}.",
            left(record.how, false),
            pings(record)
        ),
        Verdict::ClientReset => format!(
            "{client}, or a hop between it and this host, reset the connection (RST){}.",
            if unopened(record) { " before the session had opened" } else { "" }
        ),
        Verdict::ClientVanished => format!("The downstream peer of {client} stopped responding: {}.", vanished(record.how)),
        Verdict::PathStalled if record.closed_by == Some(ClosedBy::Upstream) => format!(
            "{client}, or the path to it, was silent: it answered no ping of serve{}, and serve closed the session.",
            for_ms(record.hb_wait_ms)
        ),
        Verdict::PathStalled => {
            format!(
                "The path between {client} and this host stalled: {}. serve had replied in time.",
                stuck(record)
            )
        }
        Verdict::ClientProtocol => {
            format!("{client} violated the WebSocket protocol, which ended the session.")
        }
        Verdict::EdgeBurst => format!(
            "A component shared by several users between their clients and this host dropped its connections: {}.",
            burst(record)
        ),
        Verdict::ServeClosed => format!("{serve} closed the session, with {}{}.", frame(record), lives(record)),
        Verdict::ServeLeft => format!("{serve} {}{}.", left(record.how, unopened(record)), lives(record)),
        Verdict::ServeReset => format!(
            "{serve} reset the connection (RST){}{}.",
            match record.how {
                Some(How::HandshakeEof) => " instead of a reply to the upgrade",
                _ if unopened(record) => " instead of a reply to the upgrade",
                // Not seen on serve's own socket.
                _ if record.segment == Segment::Devvm => ", or a firewall of this host did",
                _ => "",
            },
            lives(record)
        ),
        Verdict::ServeExited => format!("{serve} exited{}.", exited(record)),
        Verdict::ServeKilled => format!("{serve} was killed{}.", killed(record)),
        Verdict::ServeOom => format!("{serve} was killed by the kernel's OOM killer{}.", out_of_memory(record)),
        Verdict::ServeStalled if record.how == Some(How::Loss) => format!(
            "{serve} did not receive the data sent to it: this host lost the segments, as a firewall does."
        ),
        Verdict::ServeStalled => format!("{serve} was unresponsive{}. {}", stalled(record), starved(record)),
        Verdict::ServeRefused => match record.how {
            Some(How::Unreach) => format!("{serve} was unreachable at its address. The session never opened."),
            Some(How::ForeignListener) => format!(
                "The port of {serve} belongs to {}: nothing was sent to it. The session never opened.",
                record.peer_uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("another user (uid {uid})"))
            ),
            Some(How::OtherAddress) => format!(
                "Connection to {serve} refused: its port listens on another address of this host, not on 127.0.0.1. \
                 The session never opened."
            ),
            _ if record.segment == Segment::Devvm => format!(
                "Connection to {serve} refused although its port listens: a firewall of this host rejected it. The \
                 session never opened."
            ),
            _ => format!(
                "Connection to {serve} refused: nothing was listening. The session never opened."
            ),
        },
        Verdict::ServeTimeout if record.how == Some(How::Loss) => format!(
            "{serve} did not receive the connection attempt: this host dropped it, as a firewall does. The session never \
             opened."
        ),
        Verdict::ServeTimeout => format!("{serve} {}. The session never opened. {}", waited_for(record), starved(record)),
        Verdict::ServeRejected => format!("{serve} replied with {} instead of opening the session.", status(record)),
        Verdict::ServeProtocol => format!("{serve} {}.", broke(record.how)),
        Verdict::DispatchShutdown => {
            format!("t3-dispatch closed the session on a stop signal{}.", stop_signal(record.how))
        }
        Verdict::DispatchStalled => match record.how {
            Some(How::LocalError(number)) => {
                format!("t3-dispatch could not open the session: {} on this host.", units::errno(number))
            }
            _ => format!(
                "The event loop of t3-dispatch was blocked{} while the client waited. {}",
                for_ms(record.lag_ms.or(record.self_lag_ms)),
                starved(record)
            ),
        },
        Verdict::DispatchDied => format!("t3-dispatch terminated with the session open{}.", died(record.how)),
        Verdict::HostPaused => format!(
            "The whole host did not run{} while the client waited: VM paused, migrated, suspended or not scheduled.",
            for_ms(record.pause_ms)
        ),
        Verdict::AdminKilled => {
            "A socket of the session was destroyed on this host (`ss -K` or similar) by an administrator or a tool, \
             not by the network."
                .to_owned()
        }
        Verdict::Unknown if record.how == Some(How::PowerLoss) => {
            "The host went down without a shutdown while the session was open: power loss, reset or kernel panic."
                .to_owned()
        }
        Verdict::Unknown if record.how == Some(How::Reboot) => {
            "The host was shut down or rebooted while the session was open.".to_owned()
        }
        // A verdict without details of its record.
        verdict => verdict_text::text(verdict).meaning.to_owned(),
    }
}

/// Returns the deciding evidence of each mechanism.
fn evidence(record: &CloseRecord) -> String {
    let serve = units::process(record)
        .map_or("serve process".to_owned(), |process| format!("serve process {process}"));
    let source = if kernel_saw(record) { "kernel event" } else { "seen by t3-dispatch" };
    let leg = if by_serve(record) { "upstream leg" } else { "downstream leg" };
    let died = record.verdict == Verdict::DispatchDied;
    match record.how {
        Some(How::WsClose(_) | How::WsCloseEmpty) if record.verdict == Verdict::ClientClosed => {
            format!("{} received on the {leg}; {}", frame(record), pings(record))
        }
        Some(How::WsClose(_) | How::WsCloseEmpty) => format!("{} received on the {leg}", frame(record)),
        Some(How::Fin) => format!("FIN on the {leg} ({source}), no Close frame before it"),
        Some(How::Rst) => format!("RST on the {leg} ({source})"),
        Some(How::HalfClose) => format!("FIN on the {leg} ({source}); the other direction stayed open"),
        Some(How::MidFrame) => format!("FIN on the {leg} ({source}) inside a frame"),
        Some(How::Vanished) => format!("{leg} timed out while idle (keepalive unanswered)"),
        Some(How::ZeroWindow) => {
            format!("the peer on the {leg} read nothing (zero window, or no ACKs)")
        }
        Some(How::Loss) if record.verdict == Verdict::ServeTimeout => {
            "the connection attempt was not answered, and no accept queue was full".to_owned()
        }
        Some(How::Loss) => format!(
            "data on the {leg} was lost or not acknowledged (retransmissions: {})",
            (if by_serve(record) { record.up_retrans } else { record.down_retrans })
                .map_or_else(|| "unknown".to_owned(), |number| number.to_string())
        ),
        Some(How::Backlog) => format!(
            "{} of serve's data waited for the client's line",
            record.up_queued.map_or_else(|| "part".to_owned(), units::size)
        ),
        Some(How::Pause) => format!("the host did not run{}", for_ms(record.pause_ms)),
        Some(How::PowerLoss) => {
            "the host went down without a shutdown (power loss, reset or panic)".to_owned()
        }
        Some(How::Reboot) => "the host was shut down with the session open".to_owned(),
        Some(How::HeartbeatLost) if record.closed_by == Some(ClosedBy::Upstream) => {
            format!("a ping of serve was unanswered for {}{}", ms_or(record.hb_wait_ms), rhythm(record))
        }
        Some(How::HeartbeatLost) => format!(
            "last ping {} before the end{}; every ping before it was answered",
            ms_or(record.hb_gap_ms),
            rhythm(record)
        ),
        Some(How::Stall) if record.verdict == Verdict::DispatchStalled => {
            format!("event loop of t3-dispatch was {} late", ms_or(record.lag_ms.or(record.self_lag_ms)))
        }
        Some(How::Stall) => {
            format!(
                "a ping that reached serve was unanswered for {}{}",
                ms_or(record.hb_wait_ms),
                rhythm(record)
            )
        }
        Some(How::Oom) if died => "the OOM killer terminated t3-dispatch".to_owned(),
        Some(How::Oom) => format!("the kernel's OOM killer chose {serve}"),
        Some(How::ForeignListener) => match record.peer_uid {
            Some(uid) => format!("the socket on the port of serve belongs to uid {uid}, not to the user"),
            None => "the owner of the socket on the port of serve is not known".to_owned(),
        },
        Some(How::OtherAddress) => {
            "ECONNREFUSED; a socket listens on the port of serve on another address".to_owned()
        }
        Some(How::FalseAlarm) => format!(
            "Close 1000 received {} after the last ping, in place of the next one{}; serve had answered every ping",
            ms_or(record.hb_gap_ms),
            rhythm(record)
        ),
        Some(How::Refused) if record.segment == Segment::Devvm => {
            "serve's port refused the connection (ECONNREFUSED), and a socket listens on it".to_owned()
        }
        Some(How::Refused) => "serve refused the connection (ECONNREFUSED)".to_owned(),
        Some(How::Unreach) => format!("the kernel reported the peer on the {leg} as unreachable"),
        Some(How::ConnectTimeout) => "the connection to serve was never accepted".to_owned(),
        Some(How::HandshakeTimeout) => {
            "serve accepted the connection and did not answer the upgrade".to_owned()
        }
        Some(How::HandshakeEof) => "serve ended the connection before its reply to the upgrade".to_owned(),
        Some(How::BadAccept) => "serve's 101 had a wrong Sec-WebSocket-Accept".to_owned(),
        Some(How::Garbage) => "serve's reply to the upgrade was not HTTP".to_owned(),
        Some(How::Protocol) => format!("frames that RFC 6455 forbids were received on the {leg}"),
        Some(How::SockDestroy) => "kernel event: socket destroyed (ECONNABORTED)".to_owned(),
        Some(How::Burst) => {
            format!("{}, without a Close frame, and no other rule explains this close", burst(record))
        }
        Some(How::Simultaneous) => "both ends closed before either saw the other's close".to_owned(),
        Some(How::ProxyGone) if died => "t3-dispatch's end of the evidence socket closed".to_owned(),
        Some(How::ProxyGone) => "t3-dispatch ended without a signal".to_owned(),
        Some(How::Exit(code)) => format!("{serve} exited with status {code} ({source})"),
        Some(How::Signal(number)) => format!("{serve} killed by {} ({source})", signal_name(number)),
        Some(How::Status(status)) => format!("serve's reply to the upgrade had status {status}"),
        Some(How::ProxySignal(number)) if died => {
            format!("t3-dispatch was killed by {}", signal_name(number))
        }
        Some(How::ProxySignal(number)) => format!("t3-dispatch received {}", signal_name(number)),
        Some(How::LocalError(number)) => format!("a system call failed with {}", units::errno(number)),
        None => "no mechanism recorded".to_owned(),
    }
}

fn unopened(record: &CloseRecord) -> bool {
    record.dur_ms == 0 && record.up_bytes.is_none()
}

fn kernel_saw(record: &CloseRecord) -> bool {
    matches!(record.kernel, KernelSource::Kprobe | KernelSource::Tracepoint)
}

/// Whether the verdict concerns the upstream leg.
fn by_serve(record: &CloseRecord) -> bool {
    record.verdict.side() == Some(Side::Up)
}

fn frame(record: &CloseRecord) -> String {
    let Some(How::WsClose(code)) = record.how else { return "Close without a code".to_owned() };
    let mut text = format!("Close {code}");
    if let Some(meaning) = close_code(code) {
        text.push_str(&format!(" ({meaning})"));
    }
    let from = if by_serve(record) { Side::Up } else { Side::Down };
    // ws_reason belongs to the first Close frame; use it only if that one is from this side.
    if let Some(reason) = record.ws_reason.as_ref().filter(|_| record.ws_from == Some(from)) {
        text.push_str(&format!(" and reason \"{}\"", safe(reason)));
    }
    text
}

fn pings(record: &CloseRecord) -> &'static str {
    let waited = record.hb_wait_ms.zip(record.hb_period_ms).filter(|(wait, period)| wait / 2 > *period);
    let silent = record.up_silent_ms.unwrap_or(u64::MAX);
    match (record.hb_n, waited) {
        (Some(1..), Some((wait, _))) if silent < wait / 2 => {
            "serve sent other messages, although heartbeats were unanswered"
        }
        (Some(1..), Some(_)) => "its last heartbeats were unanswered",
        (Some(1..), None) => "its heartbeats had been answered",
        _ if record.hb_by == Some(HeartbeatSource::None) => "no heartbeat was recognised",
        _ => "no heartbeat was unanswered",
    }
}

fn left(how: Option<How>, unopened: bool) -> &'static str {
    match how {
        Some(How::MidFrame) => "ended the connection within a message (FIN inside a frame)",
        Some(How::HalfClose) => "closed only its sending direction (FIN; data still flowed the other way)",
        Some(How::HandshakeEof) => "ended the connection (FIN) before it answered the upgrade",
        Some(How::Unreach) => "became unreachable",
        _ if unopened => "ended the connection (FIN) before the session opened",
        _ => "ended the connection (FIN) without a Close frame",
    }
}

fn lives(record: &CloseRecord) -> String {
    match (record.peer_exit, &record.killed_by) {
        (Some(Fate::Alive), Some(sender)) => {
            format!("; {} had sent its process, which is alive, a signal to stop", safe(sender))
        }
        (Some(Fate::Alive), None) => "; its process is alive".to_owned(),
        _ => String::new(),
    }
}

fn vanished(how: Option<How>) -> &'static str {
    match how {
        Some(How::ZeroWindow) => "it stopped reading until the TCP timeout (zero window)",
        Some(How::Loss) => "it never acknowledged the data sent to it (TCP timeout)",
        Some(How::Unreach) => "its host or network became unreachable",
        _ => "keepalive probes were unanswered (TCP timeout)",
    }
}

fn stuck(record: &CloseRecord) -> String {
    match record.how {
        Some(How::Loss) => {
            "segments were lost, and replies to the client's heartbeats were not acknowledged in time"
                .to_owned()
        }
        Some(How::ZeroWindow) => "replies were sent and the client did not read them".to_owned(),
        Some(How::Backlog) => "replies waited behind data that the client's line was too slow for".to_owned(),
        _ => format!("no ping arrived for {}", ms_or(record.hb_gap_ms)),
    }
}

fn burst(record: &CloseRecord) -> String {
    match record.burst {
        Some(burst) => format!(
            "{} of {} ended within one second",
            units::count(burst.sessions.into(), "session"),
            units::count(burst.users.into(), "user")
        ),
        None => "many sessions of several users ended within one second".to_owned(),
    }
}

fn exited(record: &CloseRecord) -> String {
    let how = match record.how {
        Some(How::Exit(0)) => " with status 0 (regular exit)",
        Some(How::Exit(status)) => &format!(" with status {status} (error)"),
        _ => "",
    };
    let sender =
        record.killed_by.as_ref().map(|killer| format!("; {} had sent it a signal to stop", safe(killer)));
    format!("{how}{}", sender.unwrap_or_default())
}

fn killed(record: &CloseRecord) -> String {
    let how = match record.how {
        Some(How::Signal(number)) => format!(" by {}", signal_name(number)),
        _ => String::new(),
    };
    let by = record.killed_by.as_ref().map(|killer| format!(", sent by {}", safe(killer)));
    format!("{how}{}", by.unwrap_or_default())
}

fn out_of_memory(record: &CloseRecord) -> String {
    if record.segment == Segment::Devvm {
        return ": the whole host was out of memory".to_owned();
    }
    record
        .mem_max
        .map_or_else(String::new, |most| format!("; the limit of its cgroup is {}", units::size(most)))
}

fn stalled(record: &CloseRecord) -> String {
    match record.how {
        Some(How::ZeroWindow) => ": it read nothing until the TCP timeout".to_owned(),
        _ => format!(": a heartbeat was unanswered for {}, and the client gave up", ms_or(record.hb_wait_ms)),
    }
}

/// Returns whether pressure explains a stall, by the segment of the record.
fn starved(record: &CloseRecord) -> String {
    let most = |now: Option<Percent>, peak: Option<Percent>| match (now, peak) {
        (Some(now), Some(peak)) => Some(if peak > now { peak } else { now }),
        (now, peak) => now.or(peak),
    };
    let shares = units::shares([
        most(record.psi_mem, record.psi_mem_peak),
        most(record.psi_io, record.psi_io_peak),
        most(record.psi_cpu, record.psi_cpu_peak),
    ]);
    let host = units::shares([record.host_psi_mem, record.host_psi_io, record.host_psi_cpu]);
    match record.segment {
        Segment::Devvm if !shares.is_empty() => {
            format!("Pressure explains it: PSI some of serve's cgroup was {shares} (worst second).")
        }
        Segment::Devvm if !host.is_empty() => {
            format!("Pressure explains it: host PSI some was {host} (10 s).")
        }
        Segment::Devvm => "Pressure explains it.".to_owned(),
        _ if shares.is_empty() && host.is_empty() => "Pressure was not measured.".to_owned(),
        _ => "Pressure does not explain it.".to_owned(),
    }
}

fn waited_for(record: &CloseRecord) -> &'static str {
    match record.how {
        Some(How::ConnectTimeout) => "did not accept the connection: its listen queue was full",
        _ => "accepted the connection and never answered the upgrade",
    }
}

fn status(record: &CloseRecord) -> String {
    match record.how {
        Some(How::Status(status @ (401 | 403))) => format!("status {status} (not allowed)"),
        Some(How::Status(status)) => format!("status {status}"),
        _ => "a status other than 101".to_owned(),
    }
}

fn broke(how: Option<How>) -> &'static str {
    match how {
        Some(How::BadAccept) => "answered the upgrade with a wrong Sec-WebSocket-Accept",
        Some(How::Garbage) => "sent a reply to the upgrade that was not HTTP",
        _ => "violated the WebSocket protocol, which ended the session",
    }
}

fn stop_signal(how: Option<How>) -> String {
    match how {
        Some(How::ProxySignal(number)) => format!(": {}", signal_name(number)),
        _ => String::new(),
    }
}

fn died(how: Option<How>) -> String {
    match how {
        Some(How::ProxySignal(number)) => format!(": killed by {}", signal_name(number)),
        Some(How::Oom) => ": killed by the OOM killer".to_owned(),
        _ => String::new(),
    }
}

fn rhythm(record: &CloseRecord) -> String {
    let ping = match record.hb_by {
        Some(HeartbeatSource::Ping) => "a Ping frame",
        Some(HeartbeatSource::Rhythm) => "a small message",
        _ => "a ping",
    };
    record.hb_period_ms.map_or_else(String::new, |period| format!(" ({ping} every {})", lasted(period)))
}

fn for_ms(ms: Option<u64>) -> String {
    ms.map_or_else(String::new, |ms| format!(" for {}", lasted(ms)))
}

fn ms_or(ms: Option<u64>) -> String {
    ms.map_or_else(|| "an unknown time".to_owned(), lasted)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use t3_record::Cause;

    use super::*;

    #[test]
    fn every_mechanism_has_its_own_text_without_contract_words() {
        let mut seen = HashSet::new();
        // `ws_close` is listed twice, with and without a code.
        for token in BTreeSet::from_iter(How::TOKENS) {
            let mut close = CloseRecord::new(
                "ann".to_owned(),
                "192.0.2.7".to_owned(),
                5000,
                Cause::Graceful,
                Verdict::Unknown,
                Segment::Unknown,
                "c1".to_owned(),
                KernelSource::Tracepoint,
            );
            for text in [(*token).to_owned(), format!("{token}:9")] {
                let Ok(mechanism) = text.parse() else { continue };
                close.how = Some(mechanism);
                let words = evidence(&close);
                assert!(!words.is_empty() && !words.contains('_'), "{text}: {words}");
                assert!(seen.insert(words), "{text}");
            }
        }
    }
}
