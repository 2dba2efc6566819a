//! What the other layers add to a close whose cause lies downstream: which part of the way it was,
//! or that it cannot be determined. Never changes a verdict, never concludes from a line that is
//! missing.

mod explanations;
mod indicators;
mod join;
mod rules;

pub use join::{Join, find};

use super::{Ended, Reading, cloudflared::TunnelLine, traefik::AccessLine};
use crate::{
    probe::Attribution,
    record::CloseRecord,
    vocabulary::{Confidence, vocabulary},
};
use indicators::Indicators;
use rules::RuleOutcome;

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

/// What was gathered. `None`: not asked for, or not to be had; that is never taken for "nothing
/// happened".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// Traefik's access log around the close.
    pub traefik: Option<Reading<AccessLine>>,
    /// cloudflared's log around the close.
    pub cloudflared: Option<Reading<TunnelLine>>,
    /// What the probe's legs reported over that time.
    pub probe: Option<Attribution>,
    /// Closes of other sessions near it, with the times of their records in milliseconds since the
    /// epoch.
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
    pub reasons: Vec<String>,
    /// Why no part can be named.
    pub unresolved: Option<String>,
}

/// Judges the layers for one close.
#[must_use]
pub fn refine(ended: &Ended<'_>, layers: &Layers) -> Refinement {
    let indicators = Indicators::of(ended, layers);
    let mut reasons = explanations::reasons(ended, layers, &indicators);
    let line = indicators.join.as_ref().and_then(Join::line).cloned();
    let answer = rules::RULES.iter().find_map(|(_, rule)| rule(&indicators));
    match answer {
        Some(RuleOutcome::Part(part, why)) => {
            reasons.insert(0, why);
            Refinement {
                part: Some(part),
                confidence: Some(Confidence::Likely),
                line,
                reasons,
                unresolved: None,
            }
        }
        Some(RuleOutcome::Cannot(why)) => {
            Refinement { line, reasons, unresolved: Some(why), ..Refinement::default() }
        }
        None => {
            Refinement { line, reasons, unresolved: Some("no rule fits".to_owned()), ..Refinement::default() }
        }
    }
}

#[cfg(test)]
mod tests;
