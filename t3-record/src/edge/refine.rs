//! Refinement of a close with a downstream cause: the hop that failed, or that it cannot be
//! determined. It never changes a verdict and never concludes from a missing line.

mod explanations;
mod indicators;
mod join;
mod rules;
mod statements;

pub use join::{Join, find};

use super::{Ended, Reading, Statement, Witness, cloudflared::TunnelLine, traefik::AccessLine};
use crate::{
    probe::Attribution,
    record::CloseRecord,
    vocabulary::{Confidence, vocabulary},
};
use indicators::Indicators;
use rules::RuleOutcome;
use statements::Statements;

vocabulary! {
    /// Hop between the browser and this host.
    Part {
        /// Traefik or its node.
        Traefik = "traefik",
        /// The tunnel between Cloudflare and cloudflared.
        Tunnel = "tunnel",
        /// Between the user and Cloudflare.
        LastMile = "last_mile",
        /// Cloudflare's edge.
        Edge = "edge",
        /// Envoy or HAProxy in place of Traefik, or its node.
        Proxy = "proxy",
        /// The tunnel, cloudflared or Traefik: one of the hops between Cloudflare and this host.
        BehindEdge = "behind_edge",
        /// The user's side, Cloudflare or the tunnel: one of the hops in front of the proxy.
        BeforeProxy = "before_proxy",
    }
}

/// Collected layers. `None`: not queried or not available, which never means "nothing happened".
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// Traefik's access log around the close.
    pub traefik: Option<Reading<AccessLine>>,
    /// cloudflared's log around the close.
    pub cloudflared: Option<Reading<TunnelLine>>,
    /// Cloudflare's `websocket_analytics` around the close.
    pub logpush: Option<Reading<Statement>>,
    /// Envoy's access log around the close.
    pub envoy: Option<Reading<Statement>>,
    /// HAProxy's log around the close.
    pub haproxy: Option<Reading<Statement>>,
    /// Attribution from the probe legs over that time.
    pub probe: Option<Attribution>,
    /// Closes of other sessions near it, with the times of their records in milliseconds since the
    /// epoch.
    pub neighbours: Vec<(CloseRecord, i64)>,
}

impl Layers {
    /// Logs with statements about the end of a session.
    fn statements(&self) -> impl Iterator<Item = (Witness, &Reading<Statement>)> {
        let logs = [
            (Witness::Cloudflare, &self.logpush),
            (Witness::Envoy, &self.envoy),
            (Witness::Haproxy, &self.haproxy),
        ];
        logs.into_iter().filter_map(|(witness, reading)| Some((witness, reading.as_ref()?)))
    }
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
    /// Statements of the edge about this session.
    pub statements: Vec<Statement>,
    /// A statement of the edge and the record exclude each other: the verdict is not proven.
    pub contradiction: Option<String>,
}

/// Refines a close with the layers.
#[must_use]
pub fn refine(ended: &Ended<'_>, layers: &Layers) -> Refinement {
    let statements = Statements::of(ended, layers.statements());
    let indicators = Indicators { proxy_clear: statements.proxy_clear, ..Indicators::of(ended, layers) };
    let mut reasons = explanations::reasons(ended, layers, &indicators);
    let line = indicators.join.as_ref().and_then(Join::line).cloned();
    let answer = rules::RULES.iter().find_map(|(_, rule)| rule(&indicators));
    let answer = answer.unwrap_or_else(|| RuleOutcome::Cannot("no rule matches".to_owned()));
    let (part, unresolved) = match statements.narrowed(answer) {
        RuleOutcome::Part(part, why) => {
            reasons.insert(0, why);
            (Some(part), None)
        }
        RuleOutcome::Cannot(why) => (None, Some(why)),
    };
    reasons.extend(statements.reasons);
    Refinement {
        part,
        confidence: part.map(|_| Confidence::Likely),
        line,
        reasons,
        unresolved,
        statements: statements.found,
        contradiction: statements.contradiction,
    }
}

#[cfg(test)]
mod tests;
