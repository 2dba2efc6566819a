//! Cloudflare's `websocket_analytics` (Logpush): one JSON object per WebSocket, written at its end.
//!
//! Zone and account data sets spell the same fields differently (`ConnectionCloseSource`,
//! `connectionCloseSource`); names are compared without case. Format: Cloudflare's documentation,
//! `logs/logpush/logpush-job/datasets/{zone,account}/websocket_analytics`.

use serde_json::{Map, Value};

use super::{
    BadLine, LONGEST,
    statement::{Closer, Statement, Witness, shown},
    text::unframed,
    time,
    traefik::path_of,
};

/// Fields that only these records have.
const OURS: [&str; 2] = ["connectionclosesource", "connectionclosereason"];

/// Parses a line.
///
/// # Errors
/// [`BadLine::Other`] for a line of another log, [`BadLine::Unreadable`] for a broken one.
pub fn parse(line: &str) -> Result<Statement, BadLine> {
    let line = unframed(line);
    if line.len() > LONGEST {
        return Err(BadLine::Unreadable("longer than 64 KiB"));
    }
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(line) else {
        let lower = line.to_ascii_lowercase();
        let ours = OURS.iter().any(|key| lower.contains(key));
        return Err(if ours { BadLine::Unreadable("broken JSON") } else { BadLine::Other });
    };
    let get =
        |name: &str| object.iter().find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value));
    if !OURS.iter().any(|key| get(key).is_some()) {
        return Err(BadLine::Other);
    }
    let text = |name: &str| get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let at = |names: [&str; 2]| names.into_iter().find_map(|name| get(name).and_then(moment));
    let end_ms =
        at(["EdgeEndTimestamp", "timestampEndNanos"]).ok_or(BadLine::Unreadable("no time of the end"))?;
    let ray = text("RayID").and_then(super::ray).ok_or(BadLine::Unreadable("no RayID"))?;
    let (source, reason) = (text("ConnectionCloseSource"), text("ConnectionCloseReason"));
    Ok(Statement {
        witness: Witness::Cloudflare,
        start_ms: at(["EdgeStartTimestamp", "timestampStartNanos"]),
        end_ms,
        address: text("ClientIP").and_then(|ip| ip.parse().ok()),
        path: text("ClientRequestPath").map(path_of),
        ray: Some(ray),
        status: None,
        closer: closer(source, reason),
        values: values(source, reason),
    })
}

/// Side that ended the connection. `downstream` is the browser, `upstream` the tunnel and
/// everything behind it, `me` the edge.
fn closer(source: Option<&str>, reason: Option<&str>) -> Closer {
    match (source, reason) {
        (Some("downstream"), _) => Closer::Downstream,
        (Some("upstream"), _) => Closer::Upstream,
        (Some("me"), Some("timedOut")) => Closer::TimedOut,
        (Some("me"), _) => Closer::Itself,
        (Some("both"), _) => Closer::Both,
        _ => Closer::Unstated,
    }
}

fn values(source: Option<&str>, reason: Option<&str>) -> String {
    let named = [("ConnectionCloseSource", source), ("ConnectionCloseReason", reason)];
    let named = named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", shown(value?))));
    named.collect::<Vec<_>>().join(", ")
}

/// RFC 3339, or Unix seconds, milliseconds or nanoseconds; the unit follows from the magnitude.
fn moment(value: &Value) -> Option<i64> {
    let number = match value {
        Value::String(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return time::rfc3339(text),
        },
        number => number.as_i64()?,
    };
    Some(match number {
        ..=0 => return None,
        1..100_000_000_000 => number.saturating_mul(1_000),
        100_000_000_000..100_000_000_000_000 => number,
        _ => number / 1_000_000,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edge::Reading;

    const ZONE: &str = r#"{"ClientIP":"203.0.113.7","ClientRequestHost":"t3.example.org","ClientRequestPath":"/ws?wsTicket=QqSecretQq","ColoCode":"LHR","ConnectionCloseReason":"timedOut","ConnectionCloseSource":"downstream","ConnectionID":"5f0c00000000abcd","ConnectionTransportCloseCode":0,"EdgeEndTimestamp":"2026-08-22T10:01:02Z","EdgeStartTimestamp":"2026-08-22T10:00:01Z","RayID":"8c1f0000abcd1234"}"#;
    const ACCOUNT: &str = r#"{"clientIP":"203.0.113.7","clientRequestPath":"/ws","connectionCloseReason":"timedOut","connectionCloseSource":"downstream","rayId":"8c1f0000abcd1234","timestampEndNanos":1787392862000000000,"timestampStartNanos":1787392801000000000}"#;

    #[test]
    fn both_spellings_are_the_same_statement() {
        let zone = parse(ZONE).unwrap();
        assert_eq!(zone, parse(ACCOUNT).unwrap());
        assert_eq!(
            (zone.start_ms, zone.end_ms, zone.duration_ms()),
            (Some(1_787_392_801_000), 1_787_392_862_000, Some(61_000))
        );
        assert_eq!((zone.ray.as_deref(), zone.path.as_deref()), (Some("8c1f0000abcd1234"), Some("/ws")));
        assert_eq!(zone.closer, Closer::Downstream);
        assert_eq!(zone.values, "ConnectionCloseSource downstream, ConnectionCloseReason timedOut");
        assert!(!format!("{zone:?}").contains("QqSecretQq"));
    }

    #[test]
    fn each_source_has_its_side() {
        for (source, reason, closer) in [
            ("downstream", "peerReset", Closer::Downstream),
            ("upstream", "upstreamReset", Closer::Upstream),
            ("upstream", "timedOut", Closer::Upstream),
            ("me", "none", Closer::Itself),
            ("me", "timedOut", Closer::TimedOut),
            ("both", "peerNoError", Closer::Both),
            ("Raw(7)", "unspecifiedError", Closer::Unstated),
            ("", "none", Closer::Unstated),
        ] {
            let line = ZONE.replace("\"downstream\"", &format!("\"{source}\"")).replace("timedOut", reason);
            assert_eq!(parse(&line).unwrap().closer, closer, "{source} {reason}");
        }
    }

    #[test]
    fn each_format_of_a_time_is_read() {
        for (written, ms) in [
            ("\"2026-08-22T10:01:02Z\"", 1_787_392_862_000),
            ("\"2026-08-22T10:01:02.5+00:00\"", 1_787_392_862_500),
            ("1787392862", 1_787_392_862_000),
            ("1787392862500", 1_787_392_862_500),
            ("1787392862500000000", 1_787_392_862_500),
            ("\"1787392862500000000\"", 1_787_392_862_500),
        ] {
            let line = ZONE.replace("\"2026-08-22T10:01:02Z\"", written);
            assert_eq!(parse(&line).unwrap().end_ms, ms, "{written}");
        }
    }

    #[test]
    fn other_and_broken_lines_are_refused() {
        for (line, bad) in [
            ("{}", BadLine::Other),
            ("", BadLine::Other),
            (r#"{"RayID":"8c1f","EdgeEndTimestamp":1}"#, BadLine::Other),
            (&ZONE[..100], BadLine::Other),
            (&ZONE[..300], BadLine::Unreadable("broken JSON")),
            (&ZONE.replace("RayID", "Ray"), BadLine::Unreadable("no RayID")),
            (&ZONE.replace("EdgeEnd", "End"), BadLine::Unreadable("no time of the end")),
        ] {
            assert_eq!(parse(line), Err(bad), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in "\\PC{0,200}", value in "[ -~]{0,20}") {
            let _ = parse(&line);
            let value = serde_json::to_string(&value).unwrap();
            for old in ["\"downstream\"", "\"timedOut\"", "\"2026-08-22T10:01:02Z\"", "\"8c1f0000abcd1234\""] {
                let line = ZONE.replace(old, &value);
                let mut reading = Reading::default();
                reading.take(&line, parse(&line));
                prop_assert!(!format!("{reading:?}").contains("QqSecretQq"), "{reading:?}");
            }
        }
    }
}
