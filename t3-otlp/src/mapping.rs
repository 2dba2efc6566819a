//! A record as a log record and as a span (docs/OTLP.md). Pure.
//!
//! Names of attributes: OpenTelemetry semantic conventions 1.37 where one fits, else `t3.KEY`. All
//! keys of the record are there as `t3.KEY`, so that no value is lost.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use serde::Serialize;
use serde_json::Value;
use t3_record::{CloseRecord, Verdict};

use crate::{entry::Entry, ids};

/// Name of the event, and of the span.
pub const EVENT: &str = "t3.websocket.close";
const SPAN: &str = "websocket";
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
/// Nanoseconds per millisecond.
const MILLI: u64 = 1_000_000;

/// Key of the record, and its attribute in the semantic conventions.
const CONVENTIONS: [(&str, &str); 3] =
    [("user", "user.name"), ("ip", "client.address"), ("conn", "session.id")];

/// All entries as one request for the logs.
#[must_use]
pub fn logs(entries: &[Entry]) -> ExportLogsServiceRequest {
    let resource_logs = by_host(entries)
        .into_iter()
        .map(|(resource, entries)| ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records: entries.into_iter().map(log).collect(),
                schema_url: SCHEMA.to_owned(),
            }],
            schema_url: SCHEMA.to_owned(),
        })
        .collect();
    ExportLogsServiceRequest { resource_logs }
}

/// All entries as one request for the traces.
#[must_use]
pub fn spans(entries: &[Entry]) -> ExportTraceServiceRequest {
    let resource_spans = by_host(entries)
        .into_iter()
        .map(|(resource, entries)| ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: entries.into_iter().map(span).collect(),
                schema_url: SCHEMA.to_owned(),
            }],
            schema_url: SCHEMA.to_owned(),
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }
}

fn by_host(entries: &[Entry]) -> Vec<(Resource, Vec<&Entry>)> {
    let mut hosts: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        hosts.entry((&entry.host, &entry.machine)).or_default().push(entry);
    }
    let resource = |host: &Option<String>, machine: &Option<String>| {
        let mut attributes = vec![attribute("service.name", text("t3-dispatch"))];
        attributes.extend(host.as_ref().map(|host| attribute("host.name", text(host))));
        attributes.extend(machine.as_ref().map(|machine| attribute("host.id", text(machine))));
        Resource { attributes, ..Resource::default() }
    };
    hosts.into_iter().map(|((host, machine), entries)| (resource(host, machine), entries)).collect()
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// The log record of an entry.
#[must_use]
pub fn log(entry: &Entry) -> LogRecord {
    let mut attributes = attributes(&entry.record);
    attributes.push(attribute("log.record.uid", text(&entry.record.conn)));
    LogRecord {
        time_unix_nano: entry.closed,
        observed_time_unix_nano: entry.written,
        // As the priority of the entry in the journal.
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(text(&entry.line)),
        attributes,
        trace_id: ids::trace(&entry.record.conn).to_vec(),
        span_id: ids::span(&entry.record.conn).to_vec(),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

/// The session of an entry as a span, from its 101 to its end.
#[must_use]
pub fn span(entry: &Entry) -> Span {
    let record = &entry.record;
    let mut attributes = attributes(record);
    let status = if is_error(record.verdict) {
        attributes.push(attribute("error.type", text(record.verdict.as_str())));
        Status { code: StatusCode::Error.into(), message: record.verdict.as_str().to_owned() }
    } else {
        Status::default()
    };
    Span {
        trace_id: ids::trace(&record.conn).to_vec(),
        span_id: ids::span(&record.conn).to_vec(),
        name: SPAN.to_owned(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: entry.closed.saturating_sub(record.dur_ms.saturating_mul(MILLI)),
        end_time_unix_nano: entry.closed,
        attributes,
        status: Some(status),
        ..Span::default()
    }
}

/// Not a planned end by one of the peers or by the operator. `unknown` is not called an error:
/// nothing is known.
fn is_error(verdict: Verdict) -> bool {
    !matches!(
        verdict,
        Verdict::ClientClosed
            | Verdict::ClientLeft
            | Verdict::ServeClosed
            | Verdict::DispatchShutdown
            | Verdict::AdminKilled
            | Verdict::Unknown
    )
}

fn attributes(record: &CloseRecord) -> Vec<KeyValue> {
    let mut attributes = vec![attribute("network.protocol.name", text("websocket"))];
    if let Some(ray) = &record.ray {
        let values = ArrayValue { values: vec![text(ray)] };
        let values = AnyValue { value: Some(Any::ArrayValue(values)) };
        attributes.push(attribute("http.request.header.cf-ray", values));
    }
    let typed = serde_json::to_value(Typed(record)).unwrap_or_default();
    for (key, value) in typed.as_object().into_iter().flatten() {
        let value = any(value);
        if let Some((_, name)) = CONVENTIONS.iter().find(|(found, _)| found == key) {
            attributes.push(attribute(name, value.clone()));
        }
        attributes.push(attribute(&format!("t3.{key}"), value));
    }
    attributes
}

/// The record as an object: numbers as numbers.
struct Typed<'a>(&'a CloseRecord);

impl Serialize for Typed<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        self.0.serialize_into(&mut map)?;
        map.end()
    }
}

fn any(value: &Value) -> AnyValue {
    let any = match value {
        Value::Bool(value) => Any::BoolValue(*value),
        // A larger number than the type of OTLP is a text.
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Any::IntValue(value),
            (None, Some(value)) if number.is_f64() => Any::DoubleValue(value),
            _ => Any::StringValue(number.to_string()),
        },
        Value::String(value) => Any::StringValue(value.clone()),
        other => Any::StringValue(other.to_string()),
    };
    AnyValue { value: Some(any) }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(text.to_owned())) }
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(verdict: Verdict) -> Entry {
        let line = "ws close user=alice ip=203.0.113.7 dur_ms=1500 cause=graceful verdict=client_closed \
                    segment=downstream conn=c1 kernel=off ray=r1 psi_cpu=7";
        let mut record = CloseRecord::from_line(line).unwrap();
        record.verdict = verdict;
        let closed = 1_772_331_225_000_000_000;
        Entry {
            line: record.to_line(),
            record,
            closed,
            written: closed + 5,
            host: None,
            machine: None,
            cursor: None,
        }
    }

    fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
        let found = attributes.iter().find(|attribute| attribute.key == key)?;
        found.value.as_ref()?.value.as_ref()
    }

    #[test]
    fn every_key_is_an_attribute_with_its_type() {
        let entry = entry(Verdict::ClientClosed);
        let log = log(&entry);
        for (key, expected) in entry.record.pairs() {
            let found = value(&log.attributes, &format!("t3.{key}")).unwrap();
            let found = match found {
                Any::IntValue(number) => number.to_string(),
                Any::DoubleValue(number) => format!("{number:?}"),
                Any::StringValue(text) => text.clone(),
                other => panic!("{key}: {other:?}"),
            };
            assert_eq!(found, expected, "{key}");
        }
        assert_eq!(value(&log.attributes, "t3.dur_ms"), Some(&Any::IntValue(1500)));
        assert_eq!(value(&log.attributes, "t3.psi_cpu"), Some(&Any::DoubleValue(7.0)));
        assert_eq!(value(&log.attributes, "user.name"), Some(&Any::StringValue("alice".to_owned())));
        assert_eq!(log.body.unwrap(), text(&entry.line));
        let mut keys: Vec<_> = log.attributes.iter().map(|attribute| &attribute.key).collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "a key occurs twice");
    }

    #[test]
    fn the_span_covers_the_session_and_belongs_to_the_log_record() {
        let entry = entry(Verdict::ClientClosed);
        let (span, log) = (span(&entry), log(&entry));
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_500_000_000);
        assert_eq!((&span.trace_id, &span.span_id), (&log.trace_id, &log.span_id));
        assert_eq!(span.status, Some(Status::default()));
    }

    #[test]
    fn only_a_failure_is_an_error() {
        for (verdict, is_error) in [
            (Verdict::ServeOom, true),
            (Verdict::PathStalled, true),
            (Verdict::ClientLeft, false),
            (Verdict::Unknown, false),
            (Verdict::DispatchShutdown, false),
        ] {
            let span = span(&entry(verdict));
            assert_eq!(span.status.unwrap().code == i32::from(StatusCode::Error), is_error, "{verdict:?}");
            assert_eq!(value(&span.attributes, "error.type").is_some(), is_error, "{verdict:?}");
        }
    }

    #[test]
    fn records_are_grouped_by_host() {
        let on = |host: &str| Entry { host: Some(host.to_owned()), ..entry(Verdict::ClientClosed) };
        let request = logs(&[on("a"), on("b"), on("a")]);
        let counts: Vec<_> =
            request.resource_logs.iter().map(|one| one.scope_logs[0].log_records.len()).collect();
        assert_eq!(counts, [2, 1]);
        let host = &request.resource_logs[1].resource.as_ref().unwrap().attributes;
        assert_eq!(value(host, "host.name"), Some(&Any::StringValue("b".to_owned())));
    }
}
