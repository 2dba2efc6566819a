//! Sentences for the events of a record's `chain`; names of signals and close codes. Pure. Draws no
//! conclusion: that is the task of the verdict.

use t3_record::{
    chain::{Chain, Event},
    vocabulary::Side,
};

/// Text of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEventText {
    /// Relative to the first event on a leg: `+0 ms`, `-2 ms`, `+1.5 s`.
    pub at: String,
    /// Event without a full stop. Safe to print.
    pub what: String,
}

/// Returns the texts of all events, in order.
#[must_use]
pub fn texts(chain: &Chain) -> Vec<ChainEventText> {
    let text = |event: &Event| ChainEventText { at: moment(event.at_ms), what: sentence(event) };
    chain.0.iter().map(text).collect()
}

/// Returns the text of one event.
#[must_use]
pub fn sentence(event: &Event) -> String {
    let (peer, leg) = match event.side {
        Side::Down => ("client", "downstream"),
        Side::Up => ("serve", "upstream"),
    };
    match event.what.as_str() {
        "fin_in" => format!("{peer} sent FIN"),
        "rst_in" => format!("{peer} sent RST"),
        "fin_out" => format!("proxy sent FIN to {peer}"),
        "rst_out" => format!("host sent RST to {peer}"),
        "timeout" => format!("TCP timeout on the connection to {peer}"),
        "abort" => format!("socket to {peer} destroyed by an administrator"),
        "refused" => format!("{peer} refused the connection"),
        "unreach" => format!("{peer} was unreachable"),
        "close" => format!("{peer} sent Close without a code"),
        "peer_oom" => "serve process killed by the OOM killer".to_owned(),
        "link_down" => format!("host's link towards {peer} went down"),
        "link_up" => format!("host's link towards {peer} came up"),
        "address_removed" => format!("host's address towards {peer} was removed"),
        "address_added" => format!("host's address towards {peer} was added"),
        "route_removed" => format!("host's route to {peer} was removed"),
        "route_added" => format!("host's route to {peer} was added"),
        other => numbered(other, peer).unwrap_or_else(|| format!("{other} on the {leg} leg")),
    }
}

/// Events with a number in their name.
fn numbered(what: &str, peer: &str) -> Option<String> {
    if let Some(code) = what.strip_prefix("close") {
        let code: u16 = code.parse().ok()?;
        let name = close_code(code).map_or_else(String::new, |name| format!(" ({name})"));
        return Some(format!("{peer} sent Close {code}{name}"));
    }
    if let Some(signal) = what.strip_prefix("peer_sig") {
        return Some(format!("serve process killed by {}", signal_name(signal.parse().ok()?)));
    }
    let status: i32 = what.strip_prefix("peer_exit")?.parse().ok()?;
    Some(format!("serve process exited with status {status}"))
}

/// Returns a time offset with its sign.
#[must_use]
pub fn moment(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    let distance = ms.unsigned_abs();
    match distance {
        0..10_000 => format!("{sign}{distance} ms"),
        _ => format!("{sign}{}.{} s", distance / 1000, distance % 1000 / 100),
    }
}

/// Returns `SIGKILL (9)`; for a signal without a name `signal 35`.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    format!("{name} ({signal})")
}

/// Returns the name of a close code (RFC 6455 section 7.4 and the IANA registry).
#[must_use]
pub const fn close_code(code: u16) -> Option<&'static str> {
    Some(match code {
        1000 => "normal",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unacceptable data",
        1007 => "invalid text",
        1008 => "policy",
        1009 => "message too big",
        1010 => "extension missing",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        1014 => "bad gateway",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use t3_record::vocabulary::LegEnd;

    use super::*;

    fn shown(text: &str) -> Vec<(String, String)> {
        texts(&text.parse().unwrap()).into_iter().map(|event| (event.at, event.what)).collect()
    }

    #[test]
    fn a_kill_is_shown_in_order() {
        let lines = shown("up:peer_sig9@-2,up:rst_in@0,down:close1011@0,down:fin_out@1,up:peer_exit3@60000");
        let lines: Vec<_> = lines.iter().map(|(at, what)| format!("{at} {what}")).collect();
        assert_eq!(
            lines,
            [
                "-2 ms serve process killed by SIGKILL (9)",
                "+0 ms serve sent RST",
                "+0 ms client sent Close 1011 (internal error)",
                "+1 ms proxy sent FIN to client",
                "+60.0 s serve process exited with status 3",
            ]
        );
    }

    #[test]
    fn every_event_of_a_leg_has_its_own_text_on_each_side() {
        let mut seen = HashSet::new();
        for side in [Side::Down, Side::Up] {
            let ends = LegEnd::ALL.iter().filter(|end| **end != LegEnd::None);
            let own = t3_record::evidence::NetworkChange::ALL.map(|change| change.as_str());
            for what in ends.map(|end| end.as_str()).chain(["close", "close1000", "close4711"]).chain(own) {
                let words = sentence(&Event { side, what: what.to_owned(), at_ms: 0 });
                assert!(!words.contains('_') && !words.contains(" on the leg "), "{words}");
                assert!(seen.insert(words), "{side}:{what}");
            }
        }
    }

    #[test]
    fn an_unknown_event_is_shown_unchanged() {
        for (text, words) in [
            ("up:peer_paused@0", "peer_paused on the upstream leg"),
            ("down:close99999@0", "close99999 on the downstream leg"),
            ("up:peer_sig35@0", "serve process killed by signal 35"),
            ("up:peer_sigx@0", "peer_sigx on the upstream leg"),
        ] {
            assert_eq!(shown(text), [("+0 ms".to_owned(), words.to_owned())]);
        }
        assert!(shown(&format!("up:fin_in@{}", i64::MIN))[0].0.starts_with("-9223372036854775.8 s"));
    }
}
