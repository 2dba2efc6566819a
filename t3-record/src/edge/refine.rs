//! Refinement of a close with a downstream cause: the hop that failed, or that it cannot be
//! determined. It never changes a verdict and never concludes from a missing line.

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
    /// Hop between the browser and this host.
    Part {
        /// Traefik or its node.
        Traefik = "traefik",
        /// The tunnel between Cloudflare and cloudflared.
        Tunnel = "tunnel",
        /// Between the user and Cloudflare.
        LastMile = "last_mile",
    }
}

/// Collected layers. `None`: not queried or not available, which never means "nothing happened".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// Traefik's access log around the close.
    pub traefik: Option<Reading<AccessLine>>,
    /// cloudflared's log around the close.
    pub cloudflared: Option<Reading<TunnelLine>>,
    /// Attribution from the probe legs over that time.
    pub probe: Option<Attribution>,
    /// Closes of other sessions near it, with the times of their records in milliseconds since the
    /// epoch.
    pub neighbours: Vec<(CloseRecord, i64)>,
}

/// Result of the refinement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refinement {
    /// The hop that failed.
    pub part: Option<Part>,
    /// Certainty; never above the evidence of the lines.
    pub confidence: Option<Confidence>,
    /// Line of this session in Traefik's log.
    pub line: Option<AccessLine>,
    /// Reasons, each with its source.
    pub reasons: Vec<String>,
    /// Cause for an undetermined hop.
    pub unresolved: Option<String>,
}

/// Refines a close with the layers.
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
        None => Refinement {
            line,
            reasons,
            unresolved: Some("no rule matches".to_owned()),
            ..Refinement::default()
        },
    }
}

#[cfg(test)]
mod tests;
