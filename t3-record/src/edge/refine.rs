//! What the other layers add to a close whose cause lies downstream: which part of the way it was, or that it cannot be said. Never
//! changes a verdict, never concludes from a line that is missing.

use super::{Ended, Reading, cloudflared::TunnelLine, traefik::AccessLine};
use crate::{
    probe::Attribution,
    record::CloseRecord,
    words::{Confidence, Segment, vocabulary},
};

vocabulary! {
    /// The part of the way between the browser and this machine.
    Part {
        /// Traefik or its node.
        Traefik = "traefik",
        /// The tunnel between Cloudflare and cloudflared.
        Tunnel = "tunnel",
        /// Between the person and Cloudflare.
        LastMile = "last_mile",
    }
}

/// What was gathered. `None`: not asked for, or not to be had; that is never taken for "nothing happened".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// Traefik's access log around the close.
    pub traefik: Option<Reading<AccessLine>>,
    /// cloudflared's log around the close.
    pub cloudflared: Option<Reading<TunnelLine>>,
    /// What the probe's legs said over that time.
    pub probe: Option<Attribution>,
    /// Closes of other sessions near it, with the times of their records in milliseconds since the epoch.
    pub neighbours: Vec<(CloseRecord, i64)>,
}

/// What the layers add.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refinement {
    /// Which part it was.
    pub part: Option<Part>,
    /// How sure; never more than the lines bear.
    pub confidence: Option<Confidence>,
    /// Traefik's line of this session.
    pub line: Option<AccessLine>,
    /// The reasons in the operator's words, each naming its source.
    pub said: Vec<String>,
    /// Why no part can be named.
    pub cannot: Option<String>,
}

/// Judges the layers for one close.
#[must_use]
pub fn refine(ended: &Ended<'_>, layers: &Layers) -> Refinement {
    let _ = layers;
    let cannot = if ended.record.segment == Segment::Downstream {
        "no other layer was asked"
    } else {
        "the cause does not lie in front of this machine"
    };
    Refinement { cannot: Some(cannot.to_owned()), ..Refinement::default() }
}
