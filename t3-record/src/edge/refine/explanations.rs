//! Explanations of each queried layer for a close, without conclusions.

use super::{Join, Layers, indicators::Indicators};
use crate::edge::{Ended, traefik::AccessLine};

pub(super) fn reasons(ended: &Ended<'_>, layers: &Layers, indicators: &Indicators<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if let (Some(reading), Some(join)) = (&layers.traefik, &indicators.join) {
        out.push(format!("Traefik's log: {}", traefik(ended, join)));
        out.extend(unread("Traefik's log", reading.unread, reading.cut));
    }
    if let Some(reading) = &layers.cloudflared {
        out.push(format!("cloudflared's log: {}", tunnel(ended, indicators)));
        out.extend(unread("cloudflared's log", reading.unread, reading.cut));
    }
    out.extend(layers.probe.as_ref().map(|probe| format!("probe: {}", probe.sentence)));
    out
}

fn traefik(ended: &Ended<'_>, join: &Join<'_>) -> String {
    let (line, by) = match join {
        Join::ByRay(line) => (line, "by its Cf-Ray"),
        Join::ByTime(line) => (line, "by address, start and duration"),
        Join::Ambiguous(lines) => return format!("{lines} lines match this session equally"),
        Join::Nothing => {
            return "no line matches this session; Traefik writes a line at the end of a request".to_owned();
        }
    };
    let apart = ended.record.dur_ms.abs_diff(line.duration_ms);
    let apart = if apart > 2_000 {
        format!("; its duration differs from dispatch's by {}", seconds(apart))
    } else {
        String::new()
    };
    format!("line of the session, found {by}: duration {}{}{apart}", seconds(line.duration_ms), status(line))
}

/// Traefik's status of a WebSocket shows neither who ended it nor how: 0 also means a reset, and an
/// end by Traefik itself.
fn status(line: &AccessLine) -> String {
    match line.status {
        None | Some(0 | 101) => String::new(),
        Some(status) => format!(", status {status}: one of its two connections ended with an error"),
    }
}

fn tunnel(ended: &Ended<'_>, indicators: &Indicators<'_>) -> String {
    if let Some(line) = indicators.lost.first() {
        let index = line.conn_index.map_or_else(String::new, |index| format!(" of connection {index}"));
        let apart = ended.at_ms.abs_diff(line.at_ms);
        let when = if line.at_ms <= ended.at_ms { "before" } else { "after" };
        return format!("\"{}\"{index}, {} {when} the record", line.message, seconds(apart));
    }
    match indicators.tunnel_moved {
        0 => "no line of a tunnel connection around the close; single WebSockets are not logged".to_owned(),
        count => format!("{count} lines of tunnel connections around the close, none at its time"),
    }
}

pub(super) fn unread(log: &str, lines: u64, cut: bool) -> Vec<String> {
    let unread = (lines > 0).then(|| format!("{log}: {lines} lines cannot be parsed"));
    let cut = cut.then(|| format!("{log}: incomplete, too many lines"));
    unread.into_iter().chain(cut).collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
