//! Rules in their order: the first match decides. Each is a row of docs/EDGE-LOGS.md.

use super::{Join, Part, indicators::Indicators};
use crate::{
    probe::attribution::Place,
    vocabulary::{Segment, Verdict},
};

/// Result of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuleOutcome {
    /// This hop, likely. Never proven: no line connects a session to a tunnel connection or to a
    /// fault of a node.
    Part(Part, String),
    /// No hop can be named, with the cause.
    Cannot(String),
}

use RuleOutcome::{Cannot, Part as Is};

/// A rule: its name, and its result if it matches.
pub(super) type Rule = (&'static str, fn(&Indicators<'_>) -> Option<RuleOutcome>);

/// All rules.
pub(super) const RULES: &[Rule] = &[
    ("elsewhere", elsewhere),
    ("close_frame_seen", close_frame_seen),
    ("node", node),
    ("contradiction", contradiction),
    ("tunnel_lost", tunnel_lost),
    ("tunnel_lost_alone", tunnel_lost_alone),
    ("traefik_refused", traefik_refused),
    ("traefik_restarted", traefik_restarted),
    ("probe_broke", probe_broke),
    ("shared", shared),
    ("probe_broke_alone", probe_broke_alone),
    ("last_mile", last_mile),
    ("open", open),
];

fn elsewhere(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (indicators.record.segment != Segment::Downstream)
        .then(|| Cannot("the cause is not downstream of this host".to_owned()))
}

fn close_frame_seen(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    match indicators.record.verdict {
        Verdict::ClientClosed => {
            Some("the client closed the session itself; its Close frame passed through every hop")
        }
        Verdict::ClientProtocol => Some("the client violated the WebSocket protocol: no hop lost data"),
        _ => None,
    }
    .map(|why| Cannot(why.to_owned()))
}

fn node(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    indicators.node.then(|| {
        let why = "the peer of dispatch's own TCP connection sent no ACK: Traefik's node, or the network between it and \
                   this host; no hop beyond Traefik can cause that";
        Is(Part::Traefik, why.to_owned())
    })
}

/// Other sessions were cut at the same time, and no Close frame arrived.
fn cut_together(indicators: &Indicators<'_>) -> bool {
    indicators.others > 0 && !indicators.close_frame_seen
}

fn contradiction(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let traefik = indicators.refused || indicators.restarted;
    (!indicators.lost.is_empty() && traefik && !indicators.close_frame_seen).then(|| {
        Cannot(
            "a tunnel connection was lost and Traefik was down at the same time: either explains the close"
                .to_owned(),
        )
    })
}

fn tunnel_lost(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (!indicators.lost.is_empty() && cut_together(indicators)).then(|| {
        let why = format!(
            "cloudflared lost {} when this session and {} of others were cut: all sessions on a tunnel connection end with it",
            connections(indicators),
            sessions(indicators.others)
        );
        Is(Part::Tunnel, why)
    })
}

fn tunnel_lost_alone(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    if indicators.lost.is_empty() {
        return None;
    }
    let why = if indicators.close_frame_seen {
        "but this session's Close frame arrived, so it did not use that connection"
    } else {
        "but no other session ended with this one, and no line shows which sessions used it"
    };
    Some(Cannot(format!("cloudflared lost {} near the close, {why}", connections(indicators))))
}

fn traefik_refused(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (indicators.refused && !indicators.close_frame_seen).then(|| {
        let why = "Traefik refused cloudflared within seconds of the close: Traefik was not running";
        Is(Part::Traefik, why.to_owned())
    })
}

fn traefik_restarted(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (indicators.restarted && indicators.tunnel_known && cut_together(indicators)).then(|| {
        let why = format!(
            "Traefik's request numbers restarted when this session and {} of others were cut, and cloudflared lost no tunnel connection",
            sessions(indicators.others)
        );
        Is(Part::Traefik, why)
    })
}

fn probe_broke(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let (part, what) = match indicators.probe? {
        Place::Cloudflare => {
            (Part::Tunnel, "its leg through Cloudflare disconnected and its leg to Traefik did not")
        }
        Place::Edge => (
            Part::Traefik,
            "both WebSocket legs disconnected while serve answered, and dispatch wrote this record",
        ),
        _ => return None,
    };
    cut_together(indicators).then(|| {
        let others = sessions(indicators.others);
        Is(
            part,
            format!(
                "the probe disconnected around the close, too: {what}; {others} of others were cut with this one"
            ),
        )
    })
}

fn shared(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (cut_together(indicators) || indicators.record.verdict == Verdict::EdgeBurst).then(|| {
        Cannot(
            "others were cut at the same time, so the cause is shared, but no queried layer shows which hop"
                .to_owned(),
        )
    })
}

fn probe_broke_alone(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let place = indicators.probe?;
    (!matches!(place, Place::LastMile | Place::Unknown)).then(|| {
        Cannot(format!(
            "the probe disconnected around the close, too ({place}), but its data is exact to the minute only and not connected to this close"
        ))
    })
}

fn last_mile(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    missing(indicators).is_empty().then(|| {
        let proxy = if indicators.proxy_clear {
            "a hop in front of the proxy ended the session"
        } else {
            "Traefik logged a normal end of this session"
        };
        let why = "cloudflared's tunnel did not change and the probe's WebSockets stayed up: \
                   what remains is the path between the user and Cloudflare, and the browser";
        Is(Part::LastMile, format!("{proxy}, {why}"))
    })
}

fn open(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let missing = missing(indicators);
    let nothing = indicators.join.is_none()
        && !indicators.proxy_clear
        && !indicators.tunnel_known
        && indicators.tunnel_moved == 0
        && indicators.probe.is_none();
    let why = if nothing { "the edge logs were not queried".to_owned() } else { missing.join("; ") };
    Some(Cannot(why))
}

/// Missing observations for the last mile. Only an observed hop counts as healthy.
fn missing(indicators: &Indicators<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    match &indicators.join {
        None | Some(Join::Nothing) if indicators.proxy_clear => {}
        None => missing.push("Traefik's log was not read".to_owned()),
        Some(Join::Nothing) => missing.push("Traefik's log has no line that matches this session".to_owned()),
        Some(Join::Ambiguous(lines)) => {
            missing.push(format!("{lines} lines of Traefik's log match this session equally"));
        }
        Some(Join::ByRay(line) | Join::ByTime(line)) => match line.status {
            None | Some(0 | 101) => {}
            Some(status) => missing.push(format!(
                "Traefik logged status {status} for this session: one of its two connections failed, and the line does not show which"
            )),
        },
    }
    if indicators.others > 0 {
        missing.push(format!("{} of others were cut at the same time", sessions(indicators.others)));
    }
    if indicators.restarted || indicators.count_restarted {
        missing.push("Traefik may have restarted at that time".to_owned());
    }
    if !indicators.tunnel_known {
        missing.push("cloudflared's log was not read completely".to_owned());
    } else if indicators.tunnel_moved > 0 {
        missing.push("cloudflared's tunnel changed around the close".to_owned());
    }
    if indicators.refused_in_window {
        missing.push("Traefik refused connections of cloudflared around the close".to_owned());
    }
    match indicators.probe {
        Some(Place::LastMile) => {}
        Some(place) => missing.push(format!("the probe does not clear the path ({place})")),
        None => missing.push("the probe was not queried".to_owned()),
    }
    missing
}

/// `tunnel connection 2`, `tunnel connections 0, 2`, or one without an index.
fn connections(indicators: &Indicators<'_>) -> String {
    let mut indices: Vec<u8> = indicators.lost.iter().filter_map(|line| line.conn_index).collect();
    indices.sort_unstable();
    indices.dedup();
    let named: Vec<_> = indices.iter().map(u8::to_string).collect();
    match named.as_slice() {
        [] => "a tunnel connection".to_owned(),
        [one] => format!("tunnel connection {one}"),
        more => format!("tunnel connections {}", more.join(", ")),
    }
}

fn sessions(count: usize) -> String {
    if count == 1 { "one session".to_owned() } else { format!("{count} sessions") }
}
