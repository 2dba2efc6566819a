//! The rules, in their order: the first that fits decides. Each is a row of docs/EDGE-LOGS.md.

use super::{Join, Part, indicators::Indicators};
use crate::{
    probe::attribution::Place,
    vocabulary::{Segment, Verdict},
};

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuleOutcome {
    /// This part, likely. Never proven: no line ties one session to one tunnel connection or to one
    /// fault of a node.
    Part(Part, String),
    /// None can be named, and why.
    Cannot(String),
}

use RuleOutcome::{Cannot, Part as Is};

/// A rule: its name, and what follows where it fits.
pub(super) type Rule = (&'static str, fn(&Indicators<'_>) -> Option<RuleOutcome>);

/// All of them.
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
        .then(|| Cannot("the cause does not lie in front of this machine".to_owned()))
}

fn close_frame_seen(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    match indicators.record.verdict {
        Verdict::ClientClosed => Some("the browser closed it itself, and its word came through every layer"),
        Verdict::ClientProtocol => {
            Some("the browser's side broke the WebSocket protocol: no layer lost anything")
        }
        _ => None,
    }
    .map(|why| Cannot(why.to_owned()))
}

fn node(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    indicators.node.then(|| {
        let why = "the other end of dispatch's own TCP connection did not acknowledge: that is Traefik's node, or the network between it \
                   and this machine; nothing beyond Traefik can do that";
        Is(Part::Traefik, why.to_owned())
    })
}

/// Someone else was cut in the same moment, and no close frame came.
fn cut_together(indicators: &Indicators<'_>) -> bool {
    indicators.others > 0 && !indicators.close_frame_seen
}

fn contradiction(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let traefik = indicators.refused || indicators.restarted;
    (!indicators.lost.is_empty() && traefik && !indicators.close_frame_seen).then(|| {
        Cannot(
            "a tunnel connection was lost and Traefik was gone at the same moment: either would explain it"
                .to_owned(),
        )
    })
}

fn tunnel_lost(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (!indicators.lost.is_empty() && cut_together(indicators)).then(|| {
        let why = format!(
            "cloudflared lost {} when this session and {} of others were cut: what rides on a tunnel connection dies with it",
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
        "but this session's close frame came through, so it did not ride on it"
    } else {
        "but no session of others ended with this one, and no line says which sessions rode on it"
    };
    Some(Cannot(format!("cloudflared lost {} near the close, {why}", connections(indicators))))
}

fn traefik_refused(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (indicators.refused && !indicators.close_frame_seen).then(|| {
        let why = "cloudflared was refused by Traefik within seconds of the close: Traefik did not run";
        Is(Part::Traefik, why.to_owned())
    })
}

fn traefik_restarted(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (indicators.restarted && indicators.tunnel_known && cut_together(indicators)).then(|| {
        let why = format!(
            "Traefik counts its requests anew since this session and {} of others were cut, and cloudflared lost no tunnel connection",
            sessions(indicators.others)
        );
        Is(Part::Traefik, why)
    })
}

fn probe_broke(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let (part, what) = match indicators.probe? {
        Place::Cloudflare => {
            (Part::Tunnel, "its way through Cloudflare broke and its way to Traefik did not")
        }
        Place::Edge => (
            Part::Traefik,
            "both its ways broke while serve answered, and dispatch ran: it wrote this record",
        ),
        _ => return None,
    };
    cut_together(indicators).then(|| {
        let others = sessions(indicators.others);
        Is(
            part,
            format!(
                "the probe broke around the close, too: {what}; {others} of others were cut with this one"
            ),
        )
    })
}

fn shared(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    (cut_together(indicators) || indicators.record.verdict == Verdict::EdgeBurst).then(|| {
        Cannot("others were cut in the same moment, so it is something that they share, but no layer that was asked says which".to_owned())
    })
}

fn probe_broke_alone(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let place = indicators.probe?;
    (!matches!(place, Place::LastMile | Place::Unknown)).then(|| {
        Cannot(format!(
            "the probe broke around the close, too ({place}), but it is exact to the minute only, and nothing ties it to this close"
        ))
    })
}

fn last_mile(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    missing(indicators).is_empty().then(|| {
        let why = "Traefik logged this session's end as usual, cloudflared's tunnel was at rest and the probe's own WebSockets lived on: what is \
                   left is the way between the person and Cloudflare, and the browser itself";
        Is(Part::LastMile, why.to_owned())
    })
}

fn open(indicators: &Indicators<'_>) -> Option<RuleOutcome> {
    let missing = missing(indicators);
    let nothing = indicators.join.is_none()
        && !indicators.tunnel_known
        && indicators.tunnel_moved == 0
        && indicators.probe.is_none();
    let why = if nothing { "no other layer was asked".to_owned() } else { missing.join("; ") };
    Some(Cannot(why))
}

/// What keeps the last mile from being what is left. Only what was seen to be well is well.
fn missing(indicators: &Indicators<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    match &indicators.join {
        None => missing.push("Traefik's log was not read".to_owned()),
        Some(Join::Nothing) => missing.push("Traefik's log has no line that fits this session".to_owned()),
        Some(Join::Ambiguous(lines)) => {
            missing.push(format!("{lines} lines of Traefik's log fit this session equally well"));
        }
        Some(Join::ByRay(line) | Join::ByTime(line)) => match line.status {
            None | Some(0 | 101) => {}
            Some(status) => missing.push(format!(
                "Traefik logged status {status} for this session: one of its two connections broke, and the line does not say which"
            )),
        },
    }
    if indicators.others > 0 {
        missing.push(format!("{} of others were cut in the same moment", sessions(indicators.others)));
    }
    if indicators.restarted || indicators.count_restarted {
        missing.push("Traefik may have been restarted at that moment".to_owned());
    }
    if !indicators.tunnel_known {
        missing.push("cloudflared's log was not read, or not all of it".to_owned());
    } else if indicators.tunnel_moved > 0 {
        missing.push("cloudflared's tunnel was not at rest around the close".to_owned());
    }
    if indicators.refused_in_window {
        missing.push("Traefik refused connections of cloudflared around the close".to_owned());
    }
    match indicators.probe {
        Some(Place::LastMile) => {}
        Some(place) => missing.push(format!("the probe does not clear the path ({place})")),
        None => missing.push("the probe was not asked".to_owned()),
    }
    missing
}

/// `tunnel connection 2`, `tunnel connections 0, 2`, or just one that the lines do not name.
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
