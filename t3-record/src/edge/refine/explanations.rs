//! What each layer that was asked has to say about a close, in the operator's words. Concludes
//! nothing.

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
    out.extend(layers.probe.as_ref().map(|probe| format!("the probe: {}", probe.sentence)));
    out
}

fn traefik(ended: &Ended<'_>, join: &Join<'_>) -> String {
    let (line, by) = match join {
        Join::ByRay(line) => (line, "by its Cf-Ray"),
        Join::ByTime(line) => (line, "by address, start and length"),
        Join::Ambiguous(lines) => return format!("{lines} lines fit this session equally well"),
        Join::Nothing => {
            return "no line fits this session; it writes a line when the request is over".to_owned();
        }
    };
    let apart = ended.record.dur_ms.abs_diff(line.duration_ms);
    let apart = if apart > 2_000 {
        format!("; its length differs from dispatch's by {}", seconds(apart))
    } else {
        String::new()
    };
    format!(
        "the session's line, found {by}, says that it ended after {}{}{apart}",
        seconds(line.duration_ms),
        status(line)
    )
}

/// Traefik's status of a WebSocket tells neither who ended it nor how: 0 stands also for a reset,
/// and for Traefik's own end.
fn status(line: &AccessLine) -> String {
    match line.status {
        None | Some(0 | 101) => String::new(),
        Some(status) => format!(", with status {status}: one of its two connections ended with an error"),
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
        0 => "no line of a tunnel connection around the close; of one WebSocket it never writes anything"
            .to_owned(),
        count => format!("{count} lines of tunnel connections around the close, none at its moment"),
    }
}

fn unread(log: &str, lines: u64, cut: bool) -> Vec<String> {
    let unread = (lines > 0).then(|| format!("{log}: {lines} lines could not be read"));
    let cut = cut.then(|| format!("{log}: not all of it was read, there is too much"));
    unread.into_iter().chain(cut).collect()
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}
