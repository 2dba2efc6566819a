//! The answer: the verdict as a sentence, and how sure it is. Says the record's words in an
//! operator's, and draws no conclusion of its own: what the verdict proves and does not is
//! docs/VERDICTS.md's, here as one table with a row for each verdict.

use t3_record::{
    CloseRecord, Confidence, How, KernelSource, Segment, Side, Verdict, evidence::Fate, value::Percent,
};

use crate::present::{
    chain_text::{close_code, signal_name},
    text::{lasted, safe},
    units,
};

/// What happened, in a sentence or two. One that is only likely says so first.
#[must_use]
pub fn sentence(record: &CloseRecord) -> String {
    let said = plain(record);
    match record.confidence {
        Some(Confidence::Proven) => said,
        Some(Confidence::Likely) => format!("Likely: {said}"),
        None => format!("Probably, for the record does not say how sure it is: {said}"),
    }
}

/// Why it is as sure as it is: the deciding evidence of a proven one, what was not seen of a likely
/// one.
#[must_use]
pub fn sure(record: &CloseRecord) -> String {
    match record.confidence {
        Some(Confidence::Proven) => format!("Proven: {}.", evidence(record)),
        Some(Confidence::Likely) => format!("Likely, not proven: {}. {}", evidence(record), doubt(record)),
        None => format!("Not said by the record. What it has: {}.", evidence(record)),
    }
}

/// The table of answers.
fn plain(record: &CloseRecord) -> String {
    if record.how == Some(How::Simultaneous) || record.segment == Segment::None {
        return "Both ends closed at the same moment, before either had heard of the other: nobody's fault."
            .to_owned();
    }
    let user = safe(&record.user);
    let (browser, serve) = (format!("{user}'s browser"), format!("{user}'s serve"));
    match record.verdict {
        Verdict::ClientClosed => {
            let page = match record.how {
                Some(How::WsClose(1001)) => ", as a page does that is reloaded, left or frozen",
                _ => "",
            };
            format!("{browser} closed the session itself, with {}{page}; {}.", frame(record), pings(record))
        }
        Verdict::ClientLeft if unopened(record) => {
            format!("{browser}, or something between it and this machine, {}.", left(record.how, true))
        }
        Verdict::ClientLeft => format!(
            "{browser}, or something between it and this machine, {}; {}.",
            left(record.how, false),
            pings(record)
        ),
        Verdict::ClientReset => format!(
            "{browser}'s side reset the connection (RST){}; that can be the browser or anything between it and this \
             machine.",
            if unopened(record) { " before the session had opened" } else { "" }
        ),
        Verdict::ClientVanished => format!("{browser}'s side vanished: {}.", vanished(record.how)),
        Verdict::PathStalled => {
            format!(
                "The way between {browser} and this machine stalled: {}. Serve had answered in time.",
                stuck(record)
            )
        }
        Verdict::ClientProtocol => {
            format!("{browser}'s side broke the WebSocket protocol, and the session was ended over it.")
        }
        Verdict::EdgeBurst => format!(
            "A path that several users share was cut between the browsers and this machine: {}.",
            burst(record)
        ),
        Verdict::ServeClosed => format!("{serve} closed the session, with {}{}.", frame(record), lives(record)),
        Verdict::ServeLeft => format!("{serve} {}{}.", left(record.how, unopened(record)), lives(record)),
        Verdict::ServeReset => format!(
            "{serve} reset the connection (RST){}{}.",
            if record.how == Some(How::HandshakeEof) { " in place of an answer to the upgrade" } else { "" },
            lives(record)
        ),
        Verdict::ServeExited => format!("{serve} exited{}.", exited(record)),
        Verdict::ServeKilled => format!("{serve} was killed{}.", killed(record)),
        Verdict::ServeOom => format!("{serve} was killed by the kernel's OOM killer{}.", out_of_memory(record)),
        Verdict::ServeStalled => format!("{serve} did not answer{}. {}", stalled(record), starved(record)),
        Verdict::ServeRefused => match record.how {
            Some(How::Unreach) => format!("{serve} could not be reached at its address; the session never opened."),
            _ => format!(
                "Nobody listened where {serve} should be: the connection was refused and the session never opened."
            ),
        },
        Verdict::ServeTimeout => format!("{serve} {}; the session never opened. {}", waited_for(record), starved(record)),
        Verdict::ServeRejected => format!("{serve} answered {} in place of opening the session.", status(record)),
        Verdict::ServeProtocol => format!("{serve} {}.", broke(record.how)),
        Verdict::DispatchShutdown => {
            format!("t3-dispatch ended the session because it was told to stop{}.", told(record.how))
        }
        Verdict::DispatchStalled => match record.how {
            Some(How::LocalError(number)) => {
                format!("t3-dispatch could not open the session: {} on this machine.", units::errno(number))
            }
            _ => format!(
                "t3-dispatch itself stood still{} while the browser waited. {}",
                for_ms(record.self_lag_ms),
                starved(record)
            ),
        },
        Verdict::DispatchDied => format!("t3-dispatch died with the session open{}.", died(record.how)),
        Verdict::AdminKilled => {
            "A socket of the session was destroyed on this machine, as `ss -K` does it: an administrator or a tool, \
             not the network."
                .to_owned()
        }
        Verdict::Unknown => "Unknown: nothing that was seen explains this close. That is a bug of t3-dispatch's.".to_owned(),
    }
}

/// The deciding evidence, by the mechanism that decided.
fn evidence(record: &CloseRecord) -> String {
    let serve = units::process(record)
        .map_or("serve's process".to_owned(), |process| format!("serve's process {process}"));
    let seen = if kernel_saw(record) { "the kernel saw" } else { "t3-dispatch saw" };
    let leg = if by_serve(record) { "serve's leg" } else { "the browser's leg" };
    match record.how {
        Some(How::WsClose(_) | How::WsCloseEmpty) if record.verdict == Verdict::ClientClosed => {
            format!("{} was read on {leg}, and {}", frame(record), pings(record))
        }
        Some(How::WsClose(_) | How::WsCloseEmpty) => format!("{} was read on {leg}", frame(record)),
        Some(How::Fin) => format!("{seen} the FIN on {leg}, and no close frame came before it"),
        Some(How::Rst) => format!("{seen} the RST on {leg}"),
        Some(How::HalfClose) => format!("{seen} the FIN on {leg} while the other direction went on"),
        Some(How::MidFrame) => format!("{seen} the FIN on {leg} inside a frame"),
        Some(How::Vanished) => format!("{seen} the time-out of {leg}, which was idle"),
        Some(How::ZeroWindow) => format!(
            "{leg} took none of what was written to it (its window stayed shut, or it acknowledged nothing)"
        ),
        Some(How::Loss) => format!(
            "what was written to {leg} was lost on the way or not acknowledged (retransmissions: {})",
            told_number(record.down_retrans)
        ),
        Some(How::HeartbeatLost) => format!(
            "the last ping came {} before the end{}, and each that came had been answered",
            told_ms(record.hb_gap_ms),
            rhythm(record)
        ),
        Some(How::Stall) if record.verdict == Verdict::DispatchStalled => {
            format!("t3-dispatch's own event loop was {} late", told_ms(record.self_lag_ms))
        }
        Some(How::Stall) => format!(
            "a ping that had reached serve was unanswered for {}{}",
            told_ms(record.hb_wait_ms),
            rhythm(record)
        ),
        Some(How::Oom) if record.verdict == Verdict::DispatchDied => {
            "the OOM killer took t3-dispatch".to_owned()
        }
        Some(How::Oom) => format!("the kernel's OOM killer chose {serve}"),
        Some(How::Refused) => "serve's port answered the connection with a refusal".to_owned(),
        Some(How::Unreach) => format!("the kernel found the other end of {leg} unreachable"),
        Some(How::ConnectTimeout) => "the connection to serve was never accepted".to_owned(),
        Some(How::HandshakeTimeout) => {
            "serve accepted the connection and did not answer the upgrade".to_owned()
        }
        Some(How::HandshakeEof) => {
            "serve's end of the connection came before its answer to the upgrade".to_owned()
        }
        Some(How::BadAccept) => "serve's 101 had a wrong Sec-WebSocket-Accept".to_owned(),
        Some(How::Garbage) => "serve's answer to the upgrade was no HTTP".to_owned(),
        Some(How::Protocol) => {
            format!("frames were read on {leg} that RFC 6455 forbids", leg = breached(record))
        }
        Some(How::SockDestroy) => "the kernel saw the socket being destroyed (ECONNABORTED)".to_owned(),
        Some(How::Burst) => {
            format!("{}, without a close frame, and nothing else explains this one", burst(record))
        }
        Some(How::Simultaneous) => "each end acted before it had been told of the other's act".to_owned(),
        Some(How::ProxyGone) if record.verdict == Verdict::DispatchDied => {
            "t3-dispatch's end of the evidence socket closed".to_owned()
        }
        Some(How::ProxyGone) => "t3-dispatch ended for a reason of its own".to_owned(),
        Some(How::Exit(code)) => format!("{seen} {serve} exit with status {code}"),
        Some(How::Signal(number)) => format!("{seen} {serve} die of {}", signal_name(number)),
        Some(How::Status(status)) => format!("serve's answer to the upgrade had status {status}"),
        Some(How::ProxySignal(number)) if record.verdict == Verdict::DispatchDied => {
            format!("t3-dispatch died of {}", signal_name(number))
        }
        Some(How::ProxySignal(number)) => format!("t3-dispatch got {}", signal_name(number)),
        Some(How::LocalError(number)) => format!("the system call failed with {}", units::errno(number)),
        None => "the record names no mechanism".to_owned(),
    }
}

/// What was not seen, where a verdict is only likely.
fn doubt(record: &CloseRecord) -> &'static str {
    match record.verdict {
        Verdict::PathStalled => {
            "It is concluded from silence: a person who leaves at such a moment looks the same."
        }
        Verdict::EdgeBurst => "One end alone proves nothing; together they point at what they share.",
        Verdict::ServeStalled => {
            "The late answer is certain; that the browser gave up because of it is concluded, for a person who leaves \
             at such a moment looks the same."
        }
        Verdict::ServeLeft | Verdict::ServeReset => {
            "The end is certain; whether serve's process lives was not seen."
        }
        Verdict::ServeTimeout => {
            "The browser left before t3-dispatch's own patience ended; it had waited long enough to have given up."
        }
        Verdict::DispatchStalled => "That the browser gave up because of it is concluded from the time.",
        Verdict::DispatchDied => "Nobody saw of what it died.",
        Verdict::ClientLeft => "That it left is certain; how is not, for nobody saw its FIN.",
        Verdict::Unknown => "No rule fits.",
        _ => "It is concluded from timing or from what was not there.",
    }
}

fn unopened(record: &CloseRecord) -> bool {
    record.dur_ms == 0 && record.up_bytes.is_none()
}

fn kernel_saw(record: &CloseRecord) -> bool {
    matches!(record.kernel, KernelSource::Kprobe | KernelSource::Tracepoint)
}

/// The verdict speaks of serve's end of the connection.
fn by_serve(record: &CloseRecord) -> bool {
    record.verdict.side() == Some(Side::Up)
}

fn breached(record: &CloseRecord) -> &'static str {
    if by_serve(record) { "serve's leg" } else { "the browser's leg" }
}

fn frame(record: &CloseRecord) -> String {
    let Some(How::WsClose(code)) = record.how else { return "a close frame without a code".to_owned() };
    let mut said = format!("close frame {code}");
    if let Some(meaning) = close_code(code) {
        said.push_str(&format!(" ({meaning})"));
    }
    let from = if by_serve(record) { Side::Up } else { Side::Down };
    // The first frame's reason belongs to this one only if it came from there.
    if let Some(reason) = record.ws_reason.as_ref().filter(|_| record.ws_from == Some(from)) {
        said.push_str(&format!(" and the reason \"{}\"", safe(reason)));
    }
    said
}

fn pings(record: &CloseRecord) -> &'static str {
    match record.hb_n {
        Some(1..) => "its heartbeats had been answered",
        _ => "no heartbeat of it was waiting for an answer",
    }
}

fn left(how: Option<How>, unopened: bool) -> &'static str {
    match how {
        Some(How::MidFrame) => "ended the connection in the middle of a message (FIN inside a frame)",
        Some(How::HalfClose) => {
            "closed its sending direction only (FIN, while data still went the other way)"
        }
        Some(How::HandshakeEof) => "ended the connection (FIN) before it had answered the upgrade",
        Some(How::Unreach) => "became unreachable",
        _ if unopened => "ended the connection (FIN) before the session had opened",
        _ => "ended the connection in order (FIN) but without a close frame",
    }
}

fn lives(record: &CloseRecord) -> &'static str {
    if record.peer_exit == Some(Fate::Alive) { "; its process lives" } else { "" }
}

fn vanished(how: Option<How>) -> &'static str {
    match how {
        Some(How::ZeroWindow) => "it had stopped reading, and the kernel gave up",
        Some(How::Loss) => "what was sent to it was never acknowledged, and the kernel gave up",
        Some(How::Unreach) => "its host or network could not be reached any more",
        _ => "no answer came to keepalive probes, and the kernel gave up",
    }
}

fn stuck(record: &CloseRecord) -> String {
    match record.how {
        Some(How::Loss) => {
            "segments were lost, and answers to the browser's heartbeats were not acknowledged in time"
                .to_owned()
        }
        Some(How::ZeroWindow) => "answers were written and not taken by the browser's side".to_owned(),
        _ => format!("no ping came for {}", told_ms(record.hb_gap_ms)),
    }
}

fn burst(record: &CloseRecord) -> String {
    match record.burst {
        Some(burst) => format!(
            "{} of {} ended within the same second",
            units::count(burst.sessions.into(), "session"),
            units::count(burst.users.into(), "user")
        ),
        None => "many sessions of several users ended within the same second".to_owned(),
    }
}

fn exited(record: &CloseRecord) -> String {
    let how = match record.how {
        Some(How::Exit(0)) => " with status 0, on purpose",
        Some(How::Exit(status)) => &format!(" with status {status}, an error"),
        _ => "",
    };
    let asked = record.killed_by.as_ref().map(|killer| format!("; {} had asked it to end", safe(killer)));
    format!("{how}{}", asked.unwrap_or_default())
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
        return ": the whole machine was out of memory".to_owned();
    }
    record
        .mem_max
        .map_or_else(String::new, |most| format!(", in a cgroup that may have {}", units::size(most)))
}

fn stalled(record: &CloseRecord) -> String {
    match record.how {
        Some(How::ZeroWindow) => {
            ": it took nothing of what was written to it until the kernel gave up".to_owned()
        }
        _ => format!(
            ": a heartbeat waited {} for its answer, and the browser gave up",
            told_ms(record.hb_wait_ms)
        ),
    }
}

/// Whether pressure explains a stall; the record's segment says it.
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
            format!(
                "The machine starved it: serve's cgroup stood still for {shares} of the time (worst second)."
            )
        }
        Segment::Devvm if !host.is_empty() => {
            format!("The machine starved it: it stood still for {host} of the time.")
        }
        Segment::Devvm => "The machine starved it.".to_owned(),
        _ if shares.is_empty() && host.is_empty() => {
            "Whether the machine starved it was not measured.".to_owned()
        }
        _ => "Pressure on the machine does not explain it.".to_owned(),
    }
}

fn waited_for(record: &CloseRecord) -> &'static str {
    match record.how {
        Some(How::ConnectTimeout) => "did not accept the connection: its queue was full",
        _ => "took the connection and never answered the upgrade",
    }
}

fn status(record: &CloseRecord) -> String {
    match record.how {
        Some(How::Status(status @ (401 | 403))) => format!("status {status} (not allowed)"),
        Some(How::Status(status)) => format!("status {status}"),
        _ => "another status than 101".to_owned(),
    }
}

fn broke(how: Option<How>) -> &'static str {
    match how {
        Some(How::BadAccept) => "answered the upgrade with a wrong Sec-WebSocket-Accept",
        Some(How::Garbage) => "answered the upgrade with something that is no HTTP",
        _ => "broke the WebSocket protocol, and the session was ended over it",
    }
}

fn told(how: Option<How>) -> String {
    match how {
        Some(How::ProxySignal(number)) => format!(": {}", signal_name(number)),
        _ => String::new(),
    }
}

fn died(how: Option<How>) -> String {
    match how {
        Some(How::ProxySignal(number)) => format!(", of {}", signal_name(number)),
        Some(How::Oom) => ": the kernel's OOM killer took it".to_owned(),
        _ => String::new(),
    }
}

fn rhythm(record: &CloseRecord) -> String {
    record.hb_period_ms.map_or_else(String::new, |period| format!(" (a ping every {})", lasted(period)))
}

fn for_ms(ms: Option<u64>) -> String {
    ms.map_or_else(String::new, |ms| format!(" for {}", lasted(ms)))
}

fn told_ms(ms: Option<u64>) -> String {
    ms.map_or_else(|| "too long".to_owned(), lasted)
}

fn told_number(number: Option<u32>) -> String {
    number.map_or_else(|| "not known".to_owned(), |number| number.to_string())
}
