//! The events of a record's `chain` as sentences, with the names of signals and close codes. One
//! table; pure. Draws no conclusion: what an event means is the verdict's business.

use t3_record::{
    chain::{Chain, Event},
    vocabulary::Side,
};

/// One event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEventText {
    /// Relative to the first event on a leg: `+0 ms`, `-2 ms`, `+1.5 s`.
    pub at: String,
    /// What happened, without a full stop at its end. Safe to print.
    pub what: String,
}

/// All events of a chain, in their order.
#[must_use]
pub fn tell(chain: &Chain) -> Vec<ChainEventText> {
    chain.0.iter().map(|event| ChainEventText { at: moment(event.at_ms), what: sentence(event) }).collect()
}

/// What one event says.
#[must_use]
pub fn sentence(event: &Event) -> String {
    let (peer, towards) = match event.side {
        Side::Down => ("the browser's side", "the browser's side"),
        Side::Up => ("serve", "serve"),
    };
    match event.what.as_str() {
        "fin_in" => format!("{peer} ended its stream (FIN)"),
        "rst_in" => format!("{peer} reset the connection (RST)"),
        "fin_out" => format!("the proxy ended its stream to {towards} (FIN)"),
        "rst_out" => format!("this machine reset the connection to {towards} (RST)"),
        "timeout" => format!("{peer} no longer answered, the kernel gave up"),
        "abort" => format!("an administrator destroyed the connection to {towards}"),
        "refused" => format!("{peer} refused the connection"),
        "unreach" => format!("{peer} could not be reached"),
        "close" => format!("{peer} said goodbye (close frame without a code)"),
        "peer_oom" => "the OOM killer ended serve's process".to_owned(),
        other => numbered(other, peer).unwrap_or_else(|| format!("{other} on the leg to {towards}")),
    }
}

/// The events that carry a number.
fn numbered(what: &str, peer: &str) -> Option<String> {
    if let Some(code) = what.strip_prefix("close") {
        let code: u16 = code.parse().ok()?;
        let name = close_code(code).map_or_else(String::new, |name| format!(", {name}"));
        return Some(format!("{peer} said goodbye (close frame {code}{name})"));
    }
    if let Some(signal) = what.strip_prefix("peer_sig") {
        return Some(format!("serve's process got the fatal {}", signal_name(signal.parse().ok()?)));
    }
    let status: i32 = what.strip_prefix("peer_exit")?.parse().ok()?;
    Some(format!("serve's process exited with status {status}"))
}

/// A distance in time with its sign.
#[must_use]
pub fn moment(ms: i64) -> String {
    let sign = if ms < 0 { '-' } else { '+' };
    let distance = ms.unsigned_abs();
    match distance {
        0..10_000 => format!("{sign}{distance} ms"),
        _ => format!("{sign}{}.{} s", distance / 1000, distance % 1000 / 100),
    }
}

/// A signal by its name and number: `SIGKILL (9)`; without a name `signal 35`.
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

/// What RFC 6455 and its registry call a close code.
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

    fn told(text: &str) -> Vec<(String, String)> {
        tell(&text.parse().unwrap()).into_iter().map(|told| (told.at, told.what)).collect()
    }

    #[test]
    fn a_kill_reads_as_a_story() {
        let story = told("up:peer_sig9@-2,up:rst_in@0,down:close1011@0,down:fin_out@1,up:peer_exit3@60000");
        let story: Vec<_> = story.iter().map(|(at, what)| format!("{at} {what}")).collect();
        assert_eq!(
            story,
            [
                "-2 ms serve's process got the fatal SIGKILL (9)",
                "+0 ms serve reset the connection (RST)",
                "+0 ms the browser's side said goodbye (close frame 1011, internal error)",
                "+1 ms the proxy ended its stream to the browser's side (FIN)",
                "+60.0 s serve's process exited with status 3",
            ]
        );
    }

    #[test]
    fn every_end_of_a_leg_has_words_of_its_own_on_each_side() {
        let mut seen = HashSet::new();
        for side in [Side::Down, Side::Up] {
            let ends = LegEnd::ALL.iter().filter(|end| **end != LegEnd::None);
            for what in ends.map(|end| end.as_str()).chain(["close", "close1000", "close4711"]) {
                let words = sentence(&Event { side, what: what.to_owned(), at_ms: 0 });
                assert!(!words.contains('_') && !words.contains(" on the leg "), "{words}");
                assert!(seen.insert(words), "{side}:{what}");
            }
        }
    }

    #[test]
    fn what_a_newer_program_may_write_is_shown_as_it_is() {
        for (text, words) in [
            ("up:peer_paused@0", "peer_paused on the leg to serve"),
            ("down:close99999@0", "close99999 on the leg to the browser's side"),
            ("up:peer_sig35@0", "serve's process got the fatal signal 35"),
            ("up:peer_sigx@0", "peer_sigx on the leg to serve"),
        ] {
            assert_eq!(told(text), [("+0 ms".to_owned(), words.to_owned())]);
        }
        assert!(told(&format!("up:fin_in@{}", i64::MIN))[0].0.starts_with("-9223372036854775.8 s"));
    }
}
