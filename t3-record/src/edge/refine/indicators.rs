//! Observations of the layers around a close, before any conclusion.

use super::{Join, Layers, join};
use crate::{
    edge::{
        Ended, Reading,
        cloudflared::{Level, TunnelKind, TunnelLine},
        traefik::AccessLine,
    },
    how::How,
    probe::attribution::Place,
    record::CloseRecord,
    vocabulary::{LegEnd, Segment, Side, Verdict},
};

/// Maximum distance of simultaneous closes in milliseconds: a second, plus the wait of their
/// records.
const MOMENT: i64 = 1_500;
/// Maximum age of a tunnel line near a close, in milliseconds: it is truncated to seconds, and the
/// record is written up to a second after the end.
const OLDER: i64 = 3_000;
/// Maximum time of a tunnel line after a close.
const YOUNGER: i64 = 1_000;
/// Time within which reconnecting browsers show a missing Traefik, in milliseconds.
const COMING_BACK: i64 = 5_000;

/// Indicators of a close.
#[derive(Debug)]
pub(super) struct Indicators<'a> {
    pub record: &'a CloseRecord,
    /// Line of the session in Traefik's log, if that was read.
    pub join: Option<Join<'a>>,
    /// The client's Close frame arrived: every hop forwarded it at that time.
    pub close_frame_seen: bool,
    /// The TCP connection to Traefik's node itself failed.
    pub node: bool,
    /// Sessions of other users or addresses that were cut at the same time.
    pub others: usize,
    /// Tunnel connections that were lost near the close.
    pub lost: Vec<&'a TunnelLine>,
    /// Tunnel lines of the whole window.
    pub tunnel_moved: usize,
    /// cloudflared's log was read completely.
    pub tunnel_known: bool,
    /// Traefik refused cloudflared when the browsers reconnected.
    pub refused: bool,
    /// cloudflared was refused by Traefik at any time of the window.
    pub refused_in_window: bool,
    /// Traefik's request numbers restarted after the close.
    pub restarted: bool,
    /// A request after the close has a smaller number than this session's: another process.
    pub count_restarted: bool,
    /// Envoy or HAProxy, in place of Traefik, states that a hop in front of it ended the session.
    pub proxy_clear: bool,
    /// Attribution of the probe.
    pub probe: Option<Place>,
}

impl<'a> Indicators<'a> {
    pub(super) fn of(ended: &Ended<'a>, layers: &'a Layers) -> Self {
        let record = ended.record;
        let tunnel = layers.cloudflared.as_ref().map_or(&[][..], |reading| &reading.lines);
        let near =
            |line: &&TunnelLine, younger: i64| (-younger..=OLDER).contains(&(ended.at_ms - line.at_ms));
        let cut = |(other, at): &&(CloseRecord, i64)| {
            at.abs_diff(ended.at_ms) <= MOMENT.unsigned_abs() && elsewhere(record, other) && was_cut(other)
        };
        let join = layers.traefik.as_ref().map(|reading| join::find(ended, &reading.lines));
        let number = join.as_ref().and_then(Join::line).and_then(|line| line.request_count);
        let mut later = layers
            .traefik
            .iter()
            .flat_map(|reading| &reading.lines)
            .filter(|line| line.start_ms >= ended.at_ms);
        let smaller =
            |line: &AccessLine| line.request_count.zip(number).is_some_and(|(later, ours)| later < ours);
        Self {
            record,
            count_restarted: later.any(smaller),
            join,
            close_frame_seen: record.ws_from == Some(Side::Down),
            node: node_failed(record),
            others: layers.neighbours.iter().filter(cut).count().max(in_burst(record)),
            lost: tunnel.iter().filter(|line| lost(line) && near(line, YOUNGER)).collect(),
            tunnel_moved: tunnel.iter().filter(|line| moved(line)).count(),
            tunnel_known: layers.cloudflared.as_ref().is_some_and(whole),
            refused: tunnel.iter().any(|line| refused(line) && near(&line, COMING_BACK)),
            refused_in_window: tunnel.iter().any(refused),
            restarted: layers.traefik.as_ref().is_some_and(|reading| restarted(ended, &reading.lines)),
            proxy_clear: false,
            probe: layers.probe.as_ref().map(|attribution| attribution.place),
        }
    }
}

/// A missing line counts only if the log was read completely.
fn whole<T>(reading: &Reading<T>) -> bool {
    reading.unread == 0 && !reading.cut
}

/// Another user, or the same user from another address: the cause is shared.
fn elsewhere(record: &CloseRecord, other: &CloseRecord) -> bool {
    other.conn != record.conn && (other.user != record.user || other.ip != record.ip)
}

/// Number of other users cut within the same second, counted by dispatch.
fn in_burst(record: &CloseRecord) -> usize {
    let users = record.burst.filter(|_| record.verdict == Verdict::EdgeBurst).map_or(0, |burst| burst.users);
    usize::try_from(users.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// Ended downstream without a Close frame of the client.
fn was_cut(record: &CloseRecord) -> bool {
    use Verdict::{ClientLeft, ClientReset, ClientVanished, EdgeBurst};
    record.segment == Segment::Downstream
        && record.ws_from != Some(Side::Down)
        && matches!(record.verdict, ClientLeft | ClientReset | ClientVanished | EdgeBurst)
}

/// The peer of dispatch's TCP connection is Traefik's node: if it stops responding, no hop beyond
/// it is the cause. A zero window is answered, and caused by the reader.
fn node_failed(record: &CloseRecord) -> bool {
    match record.verdict {
        Verdict::ClientVanished => {
            record.down_end == Some(LegEnd::Timeout) && record.how != Some(How::ZeroWindow)
        }
        Verdict::PathStalled => record.how == Some(How::Loss),
        _ => false,
    }
}

/// Ends all sessions on the tunnel connection.
fn lost(line: &TunnelLine) -> bool {
    use TunnelKind::{ConnectionLost, Terminated, Unregistered};
    matches!(line.kind, ConnectionLost | Terminated | Unregistered)
}

/// Any change of the tunnel.
fn moved(line: &TunnelLine) -> bool {
    lost(line)
        || matches!(line.kind, TunnelKind::Registered | TunnelKind::Retrying)
        || line.level == Level::Fatal
}

/// Traefik was not listening: a WebSocket of t3 was not forwarded.
fn refused(line: &TunnelLine) -> bool {
    let dest = |dest: &str| dest.ends_with("/ws");
    let error = line.error.as_deref().unwrap_or_default();
    matches!(&line.kind, TunnelKind::RequestFailed { ws: true, dest: Some(to) } if dest(to))
        && error.contains("Unable to reach the origin service")
        && error.contains("connection refused")
}

/// Every request after the close has a smaller number than every one before it; at least two of
/// each, to exclude coincidence.
fn restarted(ended: &Ended<'_>, lines: &[AccessLine]) -> bool {
    let mut before =
        lines.iter().filter(|line| line.start_ms < ended.at_ms).filter_map(|line| line.request_count);
    let mut after =
        lines.iter().filter(|line| line.start_ms >= ended.at_ms).filter_map(|line| line.request_count);
    match (before.next(), before.next(), after.next(), after.next()) {
        (Some(b0), Some(b1), Some(a0), Some(a1)) => {
            let least = before.fold(b0.min(b1), u64::min);
            after.fold(a0.max(a1), u64::max) < least
        }
        _ => false,
    }
}
