//! `closes --via`: sessions, connections that t3-dispatch did not carry, and both.

use t3_record::{Segment, TcpCloseRecord, Verdict, journal::datagram};

use super::{tests::record, *};
use crate::journal::export_format::Entries;

const LINE: &str = "tcp close ip=203.0.113.7 dur_ms=61873 cause=upstream_closed verdict=serve_killed \
                    segment=serve conn=d4k3v9q0a1b2c port=8080 via=direct kernel=tracepoint how=signal:9";

/// What `closes` prints of a session of alice, and of two connections: of ann, and of another
/// writer.
fn shown(args: &ClosesArgs) -> String {
    let direct = TcpCloseRecord::from_line(&format!("{LINE} user=ann client_comm=nginx")).unwrap();
    let session = record("alice", Verdict::ServeOom, Segment::Serve, 5000);
    let mut bytes = Vec::new();
    for (fields, uid) in
        [(session.to_fields(), "991"), (direct.to_fields(), "0"), (direct.to_fields(), "1000")]
    {
        let fields = fields.iter().map(|(name, value)| (name.as_ref(), value.as_str()));
        let trusted = [("_UID", uid), ("__REALTIME_TIMESTAMP", "1700000042123456")];
        bytes.extend(datagram(fields.chain(trusted)));
        bytes.push(b'\n');
    }
    let (paint, trust) = (Paint { colour: false }, Trust { dispatch: Some(991) });
    let mut printer = ClosesPrinter::new(args, Vec::new(), paint, None, trust);
    let mut summary = Summary::default();
    printer.heading().unwrap();
    let query = entry::query(args);
    let mut entries = Entries::new(&bytes[..]);
    while let Some(found) = entries.read().unwrap() {
        // As the store selects them.
        if query.wanted.iter().any(|want| want.holds(found)) {
            printer.entry(found, &mut summary).unwrap();
        }
    }
    printer.foot(summary).unwrap();
    String::from_utf8(printer.out).unwrap()
}

fn via(via: ViaFilter) -> ClosesArgs {
    ClosesArgs { via, no_summary: true, ..ClosesArgs::default() }
}

#[test]
fn connections_are_listed_only_on_request() {
    let lines = |args: &ClosesArgs| {
        let text = shown(args);
        (text.contains("serve_oom"), text.matches(":8080 from 203.0.113.7 (nginx)").count())
    };
    assert_eq!(lines(&ClosesArgs { no_summary: true, ..ClosesArgs::default() }), (true, 0));
    assert_eq!(lines(&via(ViaFilter::Dispatch)), (true, 0));
    assert_eq!(lines(&via(ViaFilter::Direct)), (false, 1), "one is of another writer");
    assert_eq!(lines(&via(ViaFilter::All)), (true, 1));
}

#[test]
fn filters_and_the_summary_apply_to_connections() {
    let of = |user: &str| ClosesArgs { user: Some(user.to_owned()), ..via(ViaFilter::All) };
    assert!(shown(&of("ann")).contains("d4k3v9q0a1b2c") && !shown(&of("ann")).contains("serve_oom"));
    assert!(!shown(&of("alice")).contains("d4k3v9q0a1b2c"));
    let short = ClosesArgs { short: Some(std::time::Duration::from_secs(60)), ..via(ViaFilter::All) };
    assert!(!shown(&short).contains("d4k3v9q0a1b2c"), "it lasted longer");
    let verdict = ClosesArgs { verdict: vec![Verdict::ServeKilled], ..via(ViaFilter::All) };
    assert!(shown(&verdict).contains("d4k3v9q0a1b2c") && !shown(&verdict).contains("serve_oom"));
    let summary = |via| shown(&ClosesArgs { via, summary: true, ..ClosesArgs::default() });
    let text = summary(ViaFilter::Dispatch);
    assert!(text.starts_with("1 closes\n") && !text.contains("direct"), "{text}");
    // Neither kind is counted as the other.
    let text = summary(ViaFilter::All);
    assert!(text.starts_with("1 closes\n         1  serve_oom ") && !text.contains("2 closes"), "{text}");
    let direct = "1 direct connection\n         1  serve_killed        serve\n";
    assert!(text.contains(direct) && text.contains("1  :8080 (of 1 closes)"), "{text}");
    let text = summary(ViaFilter::Direct);
    assert!(text.starts_with(direct) && !text.contains("sessions"), "{text}");
}

#[test]
fn json_and_csv_have_the_keys_of_the_record() {
    let json = shown(&ClosesArgs { json: true, ..via(ViaFilter::Direct) });
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&object["via"], &object["port"]), (&"direct".into(), &8080.into()));
    assert_eq!(object["time"], "2023-11-14T22:14:02.123456Z");
    let csv = shown(&ClosesArgs { csv: true, ..via(ViaFilter::Direct) });
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), rows[0].len()), (2, rows[1].len()));
    let at = |key: &str| rows[1][rows[0].iter().position(|name| *name == key).unwrap()];
    assert_eq!((at("port"), at("via"), at("user"), at("rst_reason")), ("8080", "direct", "ann", ""));
}
