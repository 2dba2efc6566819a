//! What the layers show around one close, before anything is concluded from it.

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

/// Closes within this of each other are one moment, in milliseconds: a second, and what their
/// records wait for.
const MOMENT: i64 = 1_500;
/// A tunnel line is near a close when it is at most this much older, in milliseconds: cut to whole
/// seconds, and the record written up to a second after the end.
const OLDER: i64 = 3_000;
/// Or at most this much younger.
const YOUNGER: i64 = 1_000;
/// cloudflared finds Traefik gone when the browsers come back, within this, in milliseconds.
const COMING_BACK: i64 = 5_000;

/// The indicators.
#[derive(Debug)]
pub(super) struct Indicators<'a> {
    pub record: &'a CloseRecord,
    /// The session's line of Traefik's log, if that was read.
    pub join: Option<Join<'a>>,
    /// The browser's close frame came through: every layer carried it at that moment.
    pub close_frame_seen: bool,
    /// The TCP connection to Traefik's node itself failed.
    pub node: bool,
    /// Sessions of other people, or from elsewhere, that were cut in the same moment.
    pub others: usize,
    /// Tunnel connections that were lost near the close.
    pub lost: Vec<&'a TunnelLine>,
    /// Any tunnel-level line of the whole window.
    pub tunnel_moved: usize,
    /// cloudflared's log was read, whole.
    pub tunnel_known: bool,
    /// cloudflared was refused by Traefik when the browsers came back.
    pub refused: bool,
    /// cloudflared was refused by Traefik at any time of the window.
    pub refused_in_window: bool,
    /// Traefik counts its requests anew since the close.
    pub restarted: bool,
    /// Some request since the close has a smaller number than this session's: another process,
    /// perhaps a new one.
    pub count_restarted: bool,
    /// Where the probe saw the path break.
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
            probe: layers.probe.as_ref().map(|attribution| attribution.place),
        }
    }
}

/// Silence of a log counts only when all of it was read.
fn whole<T>(reading: &Reading<T>) -> bool {
    reading.unread == 0 && !reading.cut
}

/// Another person, or the same one from another place: what cut both is shared.
fn elsewhere(record: &CloseRecord, other: &CloseRecord) -> bool {
    other.conn != record.conn && (other.user != record.user || other.ip != record.ip)
}

/// dispatch itself has counted: so many other users were cut within the same second.
fn in_burst(record: &CloseRecord) -> usize {
    let users = record.burst.filter(|_| record.verdict == Verdict::EdgeBurst).map_or(0, |burst| burst.users);
    usize::try_from(users.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// Ended from in front without a word of the browser's.
fn was_cut(record: &CloseRecord) -> bool {
    use Verdict::{ClientLeft, ClientReset, ClientVanished, EdgeBurst};
    record.segment == Segment::Downstream
        && record.ws_from != Some(Side::Down)
        && matches!(record.verdict, ClientLeft | ClientReset | ClientVanished | EdgeBurst)
}

/// The other end of our TCP connection is Traefik's node: when it stops answering, nothing behind
/// it is to blame. A window that stays shut is answered, and is the reader's.
fn node_failed(record: &CloseRecord) -> bool {
    match record.verdict {
        Verdict::ClientVanished => {
            record.down_end == Some(LegEnd::Timeout) && record.how != Some(How::ZeroWindow)
        }
        Verdict::PathStalled => record.how == Some(How::Loss),
        _ => false,
    }
}

/// What rode on the connection died with this.
fn lost(line: &TunnelLine) -> bool {
    use TunnelKind::{ConnectionLost, Terminated, Unregistered};
    matches!(line.kind, ConnectionLost | Terminated | Unregistered)
}

/// The tunnel was not at rest.
fn moved(line: &TunnelLine) -> bool {
    lost(line)
        || matches!(line.kind, TunnelKind::Registered | TunnelKind::Retrying)
        || line.level == Level::Fatal
}

/// Nobody listened where Traefik should: a WebSocket of t3's could not be passed on.
fn refused(line: &TunnelLine) -> bool {
    let dest = |dest: &str| dest.ends_with("/ws");
    let error = line.error.as_deref().unwrap_or_default();
    matches!(&line.kind, TunnelKind::RequestFailed { ws: true, dest: Some(to) } if dest(to))
        && error.contains("Unable to reach the origin service")
        && error.contains("connection refused")
}

/// Every request that began after the close has a smaller number than every one before it. One of
/// each kind is chance.
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
