//! Lines of HAProxy: real ones, the side of each state, and hostile text.

use proptest::prelude::*;

use super::*;
use crate::edge::Reading;

const FRONT: &str = "198.51.100.9:52722 [22/Aug/2026:10:00:01.100] fe be/s1 0/0/0/0/61873 101 105 - -";
const BACK: &str = "1/1/0/0/0 0/0 {203.0.113.7, 198.51.100.4|8c1f0000abcd1234-LHR}";
const REQUEST: &str = r#""GET /ws?wsTicket=QqSecretQq HTTP/1.1""#;

fn line(state: &str) -> String {
    format!("{FRONT} {state} {BACK} {REQUEST}")
}

/// Lines of HAProxy 2.6.12 in front of a WebSocket that ended in each way.
#[test]
fn lines_of_a_real_haproxy_are_read() {
    for (end, line, closer) in [
        (
            "FIN of the client",
            r#"127.0.0.1:52722 [30/Nov/2026:18:33:15.254] fe be/s1 0/0/0/0/300 101 105 - - ---- 1/1/0/0/0 0/0 {203.0.113.7, 198.51.100.4|8c1f0000abcd1234-LHR} "GET /ws?wsTicket=secret%22 HTTP/1.1""#,
            Closer::Unstated,
        ),
        (
            "RST of the client",
            r#"127.0.0.1:52738 [30/Nov/2026:18:33:15.855] fe be/s1 0/0/0/0/0 101 105 - - CD-- 1/1/0/0/0 0/0 {203.0.113.7, 198.51.100.4|8c1f0000abcd1234-LHR} "GET /ws?wsTicket=secret%22 HTTP/1.1""#,
            Closer::Downstream,
        ),
        (
            "RST of the server",
            r#"127.0.0.1:52748 [30/Nov/2026:18:33:17.358] fe be/s1 0/0/0/0/300 101 105 - - SD-- 1/1/0/0/0 0/0 {203.0.113.7, 198.51.100.4|8c1f0000abcd1234-LHR} "GET /ws?wsTicket=secret%22 HTTP/1.1""#,
            Closer::Upstream,
        ),
        (
            "timeout tunnel, both sides silent",
            r#"127.0.0.1:52758 [30/Nov/2026:18:33:18.259] fe be/s1 0/0/0/0/3002 101 105 - - cD-- 1/1/0/0/0 0/0 {203.0.113.7, 198.51.100.4|8c1f0000abcd1234-LHR} "GET /ws?wsTicket=secret%22 HTTP/1.1""#,
            Closer::TimedOut,
        ),
    ] {
        let read = parse(line).unwrap();
        assert_eq!(read.closer, closer, "{end}");
        assert_eq!(read.address, "203.0.113.7".parse().ok(), "{end}");
        assert_eq!((read.ray.as_deref(), read.path.as_deref()), (Some("8c1f0000abcd1234-LHR"), Some("/ws")));
        assert_eq!(read.status, Some(101));
    }
}

#[test]
fn each_termination_state_has_its_side() {
    for (state, closer) in [
        ("----", Closer::Unstated),
        ("CD--", Closer::Downstream),
        ("CL--", Closer::Downstream),
        ("SD--", Closer::Upstream),
        ("SL--", Closer::Upstream),
        ("PD--", Closer::Itself),
        ("LR--", Closer::Itself),
        ("RC--", Closer::Itself),
        ("ID--", Closer::Itself),
        ("DD--", Closer::Itself),
        ("UD--", Closer::Itself),
        ("KD--", Closer::Itself),
        ("cD--", Closer::TimedOut),
        ("sD--", Closer::TimedOut),
        ("SDVN", Closer::Upstream),
    ] {
        let read = parse(&line(state)).unwrap();
        assert_eq!((read.closer, read.values), (closer, format!("termination state {state}")));
    }
}

#[test]
fn term_events_decide_and_a_contradiction_states_nothing() {
    let first = "{f2,m2,e2,s2S1,E1,M1,F1}";
    for (state, events, closer) in [
        ("----", format!("term_events={first}"), Closer::Downstream),
        ("----", format!("\"{first}\""), Closer::Downstream),
        ("CD--", format!("term_events={first}"), Closer::Downstream),
        ("SD--", format!("term_events={first}"), Closer::Both),
        ("SD--", "term_events={bad}".to_owned(), Closer::Upstream),
    ] {
        let read = parse(&format!("{} {events}", line(state))).unwrap();
        assert_eq!(read.closer, closer, "{state} {events}");
    }
    let read = parse(&format!("{} term_events={first}", line("----"))).unwrap();
    let expected = format!("termination state ----, term_events={first} (client first: end of stream, FIN)");
    assert_eq!(read.values, expected);
}

#[test]
fn a_captured_header_cannot_forge_the_line() {
    let forged = "CD-- 1/1/0/0/0 0/0 term_events=#7Bf2,m2,e2,s2S1,E1,M1,F1#7D";
    let read = parse(&line("SD--").replace("203.0.113.7,", forged)).unwrap();
    assert_eq!((read.closer, read.address), (Closer::Upstream, None));
}

#[test]
fn dates_and_prefixes_are_read() {
    let gmt = line("CD--").replace("10:00:01.100", "12:00:01 +0200");
    for (line, start) in [
        (format!("Aug 22 10:01:03 edge1 haproxy[14389]: {}", line("CD--")), 1_787_392_801_100),
        (format!("<134>1 2026-08-22T10:01:03Z edge1 haproxy 14389 - - {}", line("CD--")), 1_787_392_801_100),
        (gmt, 1_787_392_801_000),
        (line("CD--").replace("198.51.100.9", "2001:db8::9"), 1_787_392_801_100),
    ] {
        let read = parse(&line).unwrap();
        assert_eq!((read.start_ms, read.duration_ms()), (Some(start), Some(61_873)), "{line}");
    }
}

#[test]
fn other_and_broken_lines_are_refused() {
    let tcp = "198.51.100.9:52722 [22/Aug/2026:10:00:01.100] fe be/s1 0/0/61873 105 CD 1/1/0/0/0 0/0";
    let unknown = BadLine::Unreadable("not in the format of option httplog");
    for (line, bad) in [
        ("", BadLine::Other),
        ("Proxy fe started.", BadLine::Other),
        (tcp, unknown.clone()),
        (&line("CD--").replace("0/61873", "0/+61873"), unknown.clone()),
        (&line("CD--").replace("61873", "-1"), unknown),
        (
            line("CD--").trim_end_matches('"'),
            BadLine::Unreadable("no complete request at the end: see len of the log option"),
        ),
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
            FRONT, BACK, REQUEST, " ", "CD--", " {", "}", "\"", "|", "{f2,m2,e2,s2S1,E1,M1,F1}", " term_events=", "wsTicket=QqSecretQq",
        ]), 0..12),
    ) {
        let line = parts.concat();
        let mut reading = Reading::default();
        reading.take(&line, parse(&line));
        prop_assert!(!format!("{reading:?}").contains("QqSecretQq"), "{reading:?}");
    }
}
