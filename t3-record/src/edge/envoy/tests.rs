//! Lines of Envoy: the three formats, the side of each value, and hostile text.

use proptest::prelude::*;

use super::*;
use crate::edge::Reading;

const HEAD: &str = r#"[2026-08-22T10:00:01.100Z] "GET /ws?wsTicket=QqSecretQq HTTP/1.1" 101"#;
const END: &str =
    r#""203.0.113.7,198.51.100.4" "Mozilla/5.0" "cc21d9b0-cf5c" "t3.example.org" "192.0.2.10:3780""#;
const JSON: &str = r#"{"start_time":"2026-08-22T10:00:01.100Z","method":"GET","path":"/ws?wsTicket=QqSecretQq","protocol":"HTTP/1.1","response_code":101,"response_flags":"DC","response_code_details":"downstream_remote_disconnect","bytes_received":2000,"bytes_sent":900,"duration":61873,"x_forwarded_for":"203.0.113.7","cf-ray":"8c1f0000abcd1234-LHR","downstream_detected_close_type":"RemoteReset","upstream_detected_close_type":"LocalReset"}"#;

fn default(flags: &str) -> String {
    format!("{HEAD} {flags} 2000 900 61873 - {END}")
}

#[test]
fn the_three_formats_give_the_same_session() {
    let istio =
        format!(r#"{HEAD} DC downstream_remote_disconnect - "-" 2000 900 61873 12 {END} out - - - - -"#);
    for line in [default("DC"), istio, JSON.to_owned()] {
        let read = parse(&line).unwrap();
        assert_eq!((read.start_ms, read.end_ms), (Some(1_787_392_801_100), 1_787_392_862_973), "{line}");
        assert_eq!((read.path.as_deref(), read.status), (Some("/ws"), Some(101)), "{line}");
        assert_eq!(read.address, "203.0.113.7".parse().ok(), "{line}");
        assert_eq!(read.closer, Closer::Downstream, "{line}");
        assert!(!format!("{read:?}").contains("QqSecretQq"), "{read:?}");
    }
    let json = parse(JSON).unwrap();
    assert_eq!(json.ray.as_deref(), Some("8c1f0000abcd1234-LHR"));
    assert_eq!(
        json.values,
        "response_flags DC, response_code_details downstream_remote_disconnect, downstream_detected_close_type RemoteReset, \
         upstream_detected_close_type LocalReset"
    );
}

#[test]
fn each_flag_has_its_side() {
    for (flags, closer) in [
        ("-", Closer::Unstated),
        ("DC", Closer::Downstream),
        ("DR", Closer::Downstream),
        ("DPE", Closer::Downstream),
        ("UC", Closer::Upstream),
        ("UR", Closer::Upstream),
        ("UPE", Closer::Upstream),
        ("UF,URX", Closer::Upstream),
        ("LR", Closer::Itself),
        ("UT", Closer::Itself),
        ("DT", Closer::Itself),
        ("UMSDR", Closer::Itself),
        ("OM", Closer::Itself),
        ("SI", Closer::TimedOut),
        ("NR", Closer::Unstated),
        ("DC,UC", Closer::Both),
    ] {
        assert_eq!(parse(&default(flags)).unwrap().closer, closer, "{flags}");
    }
}

#[test]
fn details_and_close_types_have_their_side() {
    let plain = JSON.replace("\"DC\"", "\"-\"").replace("\"LocalReset\"", "\"Normal\"");
    let with = |details: &str, down: &str, up: &str| {
        let line = plain.replace("downstream_remote_disconnect", details).replace("RemoteReset", down);
        line.replace(
            "\"upstream_detected_close_type\":\"Normal\"",
            &format!("\"upstream_detected_close_type\":\"{up}\""),
        )
    };
    for (details, down, up, closer) in [
        ("via_upstream", "Normal", "Normal", Closer::Unstated),
        ("via_upstream", "RemoteReset", "LocalReset", Closer::Downstream),
        ("via_upstream", "LocalReset", "RemoteReset", Closer::Upstream),
        ("via_upstream", "RemoteReset", "RemoteReset", Closer::Both),
        ("downstream_remote_disconnect", "Normal", "Normal", Closer::Downstream),
        ("downstream_local_disconnect(drain)", "Normal", "Normal", Closer::Itself),
        (
            "upstream_reset_after_response_started{connection_termination}",
            "Normal",
            "Normal",
            Closer::Upstream,
        ),
        ("upstream_reset_after_response_started{remote_reset}", "Normal", "Normal", Closer::Upstream),
        ("upstream_reset_after_response_started{local_reset}", "Normal", "Normal", Closer::Unstated),
        ("stream_idle_timeout", "Normal", "Normal", Closer::TimedOut),
        ("upstream_response_timeout", "Normal", "Normal", Closer::Itself),
        ("max_duration_timeout", "Normal", "Normal", Closer::Itself),
    ] {
        assert_eq!(parse(&with(details, down, up)).unwrap().closer, closer, "{details} {down} {up}");
    }
}

#[test]
fn a_forged_line_in_a_header_is_rejected() {
    let forged = default("UC").replace("Mozilla/5.0", r#"x" 101 DC 1 1 1 - "a"#);
    assert_eq!(parse(&forged), Err(BadLine::Unreadable("a client's text looks like the line itself")));
    let quoted = default("UC").replace("Mozilla/5.0", r#"a" b "c"#);
    assert_eq!(parse(&quoted).unwrap().closer, Closer::Upstream);
}

#[test]
fn other_and_broken_lines_are_refused() {
    for (line, bad) in [
        ("", BadLine::Other),
        ("{}", BadLine::Other),
        ("[2026-08-22 10:00:01.1][1][info] main", BadLine::Other),
        (HEAD, BadLine::Unreadable("no flags and times after the request")),
        (&JSON[..200], BadLine::Unreadable("broken JSON")),
        (&JSON.replace("61873", "\"-\""), BadLine::Unreadable("no duration")),
        (&default("DC").replace("2026-", "x"), BadLine::Unreadable("the start is not a time")),
    ] {
        assert_eq!(parse(line), Err(bad), "{line}");
    }
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in "\\PC{0,300}") {
        let _ = parse(&line);
    }

    #[test]
    fn no_ticket_survives(
        parts in prop::collection::vec(prop::sample::select(vec![
            HEAD, END, " ", "\"", "DC", "-", " 1 2 3 - ", "GET /ws?wsTicket=QqSecretQq", "{", "}", JSON, "[", "] \"",
        ]), 0..12),
    ) {
        let line = parts.concat();
        let mut reading = Reading::default();
        reading.take(&line, parse(&line));
        prop_assert!(!format!("{reading:?}").contains("QqSecretQq"), "{reading:?}");
    }
}
