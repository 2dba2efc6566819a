//! Result of `once` as a JSON document, for scripts. An unknown value is omitted.

use serde::Serialize;
use t3_record::probe::{Phase, Reason, State, Way, attribution::Place};
use tokio::time::Duration;

use crate::once::{self, Row};

/// Version of the document's form. A new key does not change it; a key that is removed or changes
/// its kind or meaning does.
pub const SCHEMA: u32 = 1;

/// The document.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    /// Version of t3-probe.
    version: &'static str,
    legs: Vec<LegReport>,
    result: Place,
    text: String,
    next: String,
}

#[derive(Debug, Serialize)]
struct LegReport {
    leg: String,
    way: Way,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Completed phases.
    phases: Vec<PhaseReport>,
    #[serde(flatten)]
    failure: Option<FailureReport>,
}

#[derive(Debug, Serialize)]
struct PhaseReport {
    phase: Phase,
    ms: f64,
}

#[derive(Debug, Serialize)]
struct FailureReport {
    /// Phase that failed.
    phase: Phase,
    reason: Reason,
    detail: String,
}

impl Report {
    /// Report of these rows.
    #[must_use]
    pub fn new(rows: &[Row]) -> Self {
        let attribution = once::attribution(rows);
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            legs: rows.iter().map(leg).collect(),
            result: attribution.place,
            text: attribution.sentence,
            next: attribution.next,
        }
    }
}

fn leg(row: &Row) -> LegReport {
    LegReport {
        leg: row.leg.name.clone(),
        way: row.leg.way,
        state: row.state,
        answer_ms: row.outcome.as_ref().ok().copied().map(ms),
        address: row.address.clone(),
        phases: row.phases.iter().map(|(phase, time)| PhaseReport { phase: *phase, ms: ms(*time) }).collect(),
        failure: row.outcome.as_ref().err().map(|(phase, failure)| FailureReport {
            phase: *phase,
            reason: failure.reason,
            detail: failure.detail.clone(),
        }),
    }
}

/// Milliseconds with three decimals.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        leg::{Address, Leg},
        progress::Failure,
    };

    fn row(way: Way, state: State, outcome: Result<Duration, (Phase, Failure)>) -> Row {
        let leg = Leg {
            name: way.to_string(),
            way,
            url: "wss://t3.example.org/probe/ws".parse().unwrap(),
            address: Address::System,
            authorization: None,
        };
        let address = outcome.is_ok().then(|| "10.0.20.203:443".to_owned());
        let phases = if outcome.is_ok() {
            vec![(Phase::Dns, Duration::ZERO), (Phase::Tcp, Duration::from_nanos(412_345))]
        } else {
            Vec::new()
        };
        Row { leg, phases, address, outcome, state }
    }

    #[test]
    fn values_are_typed_and_unknown_ones_are_omitted() {
        let failure = Failure { reason: Reason::Http(502), detail: "502 Bad Gateway".to_owned() };
        let rows = [
            row(Way::Cloudflare, State::Down, Err((Phase::Upgrade, failure))),
            row(Way::Internal, State::Clean, Ok(Duration::from_micros(1_250))),
        ];
        let text = "Cloudflare or WAN: the leg cloudflare is down (http_502 in upgrade: 502 Bad Gateway), \
                    internal is clean.";
        assert_eq!(
            serde_json::to_value(Report::new(&rows)).unwrap(),
            serde_json::json!({
                "schema": 1,
                "version": env!("CARGO_PKG_VERSION"),
                "legs": [
                    {"leg": "cloudflare", "way": "cloudflare", "state": "down", "phases": [],
                     "phase": "upgrade", "reason": "http_502", "detail": "502 Bad Gateway"},
                    {"leg": "internal", "way": "internal", "state": "clean", "answer_ms": 1.25,
                     "address": "10.0.20.203:443",
                     "phases": [{"phase": "dns", "ms": 0.0}, {"phase": "tcp", "ms": 0.412}]},
                ],
                "result": "cloudflare",
                "text": text,
                "next": "check the WAN and cloudflared, then the status page of Cloudflare.",
            })
        );
    }
}
