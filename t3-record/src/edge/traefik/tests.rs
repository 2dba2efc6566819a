//! Lines of every kind that docs/EDGE-LOGS.md names, and hostile ones.

use proptest::prelude::*;

use super::*;
use crate::edge::Reading;

const HEAD: &str = "203.0.113.7 - - [22/Aug/2026:10:00:01 +0000]";
const END: &str = r#"4711 "websecure-t3@kubernetes" "http://192.0.2.10:3780" 61873ms"#;
const START_MS: i64 = 1_787_392_801_000;

const JSON: &str = r#"{"ClientAddr":"10.244.3.9:51344","ClientHost":"203.0.113.7","ClientPort":"51344","ClientUsername":"-","DownstreamContentSize":0,"DownstreamStatus":0,"Duration":61873204411,"OriginContentSize":0,"OriginDuration":61871990003,"OriginStatus":0,"Overhead":1214408,"RequestAddr":"t3.example.org","RequestContentSize":0,"RequestCount":4711,"RequestHost":"t3.example.org","RequestMethod":"GET","RequestPath":"/ws","RequestPort":"-","RequestProtocol":"HTTP/1.1","RequestScheme":"https","RetryAttempts":0,"RouterName":"websecure-t3-t3-example-org@kubernetes","ServiceAddr":"192.0.2.10:3780","ServiceName":"t3-t3-3780@kubernetes","ServiceURL":"http://192.0.2.10:3780","StartLocal":"2026-08-22T10:00:01.100200300Z","StartUTC":"2026-08-22T10:00:01.100200300Z","entryPointName":"websecure","level":"info","msg":"","request_Cf-Ray":"8c1f0000abcd1234-LHR","time":"2026-08-22T10:01:02Z"}"#;

fn expected() -> AccessLine {
    AccessLine {
        first_address: Some("203.0.113.7".parse().unwrap()),
        client_host: "203.0.113.7".to_owned(),
        start_ms: START_MS,
        start_exact: false,
        duration_ms: 61_873,
        status: Some(0),
        method: "GET".to_owned(),
        path: "/ws".to_owned(),
        router: Some("websecure-t3@kubernetes".to_owned()),
        service_url: Some("http://192.0.2.10:3780".to_owned()),
        request_count: Some(4711),
        ray: None,
    }
}

#[test]
fn a_common_line_is_read_whole() {
    let line = format!(r#"{HEAD} "GET /ws HTTP/1.1" 0 0 "-" "Mozilla/5.0 (X11)" {END}"#);
    assert_eq!(parse(&line), Ok(expected()));
    assert_eq!(parse(&line).unwrap().end_ms(), START_MS + 61_873);
    let framed = format!("2026-08-22T10:01:02.9Z stdout F {line}\n");
    assert_eq!(parse(&framed), Ok(expected()));
}

#[test]
fn the_first_field_may_hold_commas_and_blanks() {
    for (host, first) in [
        ("203.0.113.7, 198.51.100.4", Some("203.0.113.7")),
        ("2001:db8::7, 198.51.100.4, 10.0.0.1", Some("2001:db8::7")),
        ("::ffff:203.0.113.7", Some("203.0.113.7")),
        ("203.0.113.7:4711", Some("203.0.113.7")),
        ("[2001:db8::7]:4711", Some("2001:db8::7")),
        ("[2001:db8::7]", Some("2001:db8::7")),
        ("unknown, 203.0.113.7", None),
        ("a - b, 203.0.113.7", None),
    ] {
        let line =
            format!(r#"{host} - ann [22/Aug/2026:10:00:01 +0000] "GET /ws HTTP/1.1" 0 0 "-" "-" {END}"#);
        let read = parse(&line).unwrap();
        assert_eq!(read.client_host, host);
        assert_eq!(read.first_address, first.map(|first| first.parse().unwrap()), "{host}");
    }
}

#[test]
fn each_status_is_taken_as_it_is() {
    for (written, status) in [
        ("0", Some(0)),
        ("101", Some(101)),
        ("-", None),
        ("499", Some(499)),
        ("500", Some(500)),
        ("502", Some(502)),
    ] {
        let line = format!(r#"{HEAD} "GET /ws HTTP/1.1" {written} - "-" "-" {END}"#);
        assert_eq!(parse(&line).unwrap().status, status);
    }
    let line = format!(r#"{HEAD} "GET /ws HTTP/1.1" 0 0 "-" "-" - "-" "-" 5ms"#);
    let read = parse(&line).unwrap();
    assert_eq!((read.request_count, read.router, read.service_url), (None, None, None));
}

#[test]
fn hostile_queries_agents_and_referers_change_nothing() {
    for query in [
        "wsTicket=secret",
        r#"a=" 200 5 "-" "x" 1 "r" "s" 9ms"#,
        r#"a=" 200 5 "secret" "#,
        r#"a="b c" HTTP/1.1"#,
        r#"""#,
        r"\",
        "secret [x] - - [",
    ] {
        for (referer, agent) in [
            ("-", "-"),
            (r"https://t3.example.org/?wsTicket=secret", "Mozilla/5.0 (X11)"),
            (r#"\" 0 0 \""#, r#"a\" \"b"#),
            (r"ends with \", r"ends with \"),
            (" ", ""),
        ] {
            let line = format!(r#"{HEAD} "GET /ws?{query} HTTP/1.1" 499 21 "{referer}" "{agent}" {END}"#);
            let read = parse(&line).map_err(|bad| format!("{bad}: {line}")).unwrap();
            assert_eq!(read, AccessLine { status: Some(499), ..expected() }, "{line}");
        }
    }
}

#[test]
fn a_text_that_looks_like_the_line_itself_is_refused_not_believed() {
    let forged = r#"198.51.100.9 - - [22/Aug/2026:09:00:00 +0000] "GET /ws HTTP/1.1" 0 0 "-" "x"#;
    let by_header = format!(r#"{forged}, {HEAD} "GET /ws HTTP/1.1" 0 0 "-" "-" {END}"#);
    let by_query =
        format!(r#"{HEAD} "GET /?" - - [22/Aug/2026:09:00:00 +0000] "GET /ws HTTP/1.1" 0 0 "-" "-" {END}"#);
    for line in [by_header, by_query] {
        assert!(matches!(parse(&line), Err(BadLine::Unreadable(_))), "{line}");
    }
}

#[test]
fn a_broken_line_differs_from_a_line_of_another_log() {
    for line in [
        format!(r#"{HEAD} "GET /ws HTTP/1.1" 0 0 "-" "-""#),
        format!(r#"{HEAD} "GET /ws HTT"#),
        "203.0.113.7 - - [22/Aug/20".to_owned(),
        format!(r#"{HEAD} "GET /ws HTTP/1.1" x 0 "-" "-" {END}"#),
        format!(r#"{HEAD} "GET" 0 0 "-" "-" {END}"#),
        JSON[..400].to_owned(),
        JSON.replace("\"Duration\"", "\"Dur\""),
        JSON.replace("\"RequestMethod\"", "\"x\""),
        JSON.replace("2026-08-22T10:00:01.100200300Z", "yesterday"),
        JSON.replace("61873204411", "-5"),
        "x".repeat(LONGEST + 1),
    ] {
        assert!(matches!(parse(&line), Err(BadLine::Unreadable(_))), "{line}");
    }
    for line in [
        "",
        "2026-08-22T10:00:01Z INF Traefik version 3.1.2",
        r#"time="2026-08-22T10:00:01Z" level=info msg="Configuration loaded""#,
        r#"{"level":"info","msg":"Starting provider","time":"2026-08-22T10:00:01Z"}"#,
        "{broken",
        "[1]",
    ] {
        assert_eq!(parse(line), Err(BadLine::Other), "{line}");
    }
}

#[test]
fn a_json_line_is_read_whole() {
    let line = parse(JSON).unwrap();
    assert_eq!(
        line,
        AccessLine {
            start_ms: START_MS + 100,
            start_exact: true,
            router: Some("websecure-t3-t3-example-org@kubernetes".to_owned()),
            ray: Some("8c1f0000abcd1234-LHR".to_owned()),
            ..expected()
        }
    );
}

#[test]
fn older_and_trimmed_json_lines_are_read_too() {
    let object = r#"{"Scheme":"http","Opaque":"","User":null,"Host":"192.0.2.10:3780","Path":"/x","RawQuery":"wsTicket=s"}"#;
    let older =
        JSON.replace(r#""ServiceURL":"http://192.0.2.10:3780""#, &format!(r#""ServiceURL":{object}"#));
    assert_eq!(parse(&older).unwrap().service_url.as_deref(), Some("http://192.0.2.10:3780/x"));
    let local = JSON.replace("StartUTC", "Other");
    assert_eq!(parse(&local).unwrap().start_ms, START_MS + 100);
    let query = JSON.replace(r#""RequestPath":"/ws""#, r#""RequestPath":"/ws?wsTicket=secret""#);
    assert_eq!(parse(&query).unwrap().path, "/ws");
    for (written, ray) in
        [("REDACTED", None), ("-", None), ("", None), ("x\\ny", None), ("a-B9", Some("a-B9"))]
    {
        let line = JSON.replace("8c1f0000abcd1234-LHR", written);
        assert_eq!(parse(&line).unwrap().ray.as_deref(), ray, "{written}");
    }
    let bare =
        r#"{"Duration":5000000,"RequestMethod":"GET","RequestPath":"/ws","StartUTC":"2026-08-22T10:00:01Z"}"#;
    let read = parse(bare).unwrap();
    assert_eq!((read.status, read.first_address, read.duration_ms), (None, None, 5));
    let strange = JSON.replace(r#""DownstreamStatus":0"#, r#""DownstreamStatus":99999999"#);
    assert_eq!(parse(&strange).unwrap().status, None);
}

#[test]
fn what_could_not_be_read_is_counted_and_shown_without_secrets() {
    let mut reading = Reading::default();
    for line in [
        JSON.to_owned(),
        "2026-08-22T10:00:01Z INF Traefik".to_owned(),
        format!(r#"{HEAD} "GET /ws?wsTicket=secret HTTP/1.1" 0"#),
        "203.0.113.7 - - [cut".to_owned(),
    ] {
        reading.take(&line, parse(&line));
    }
    assert_eq!((reading.lines.len(), reading.unread), (1, 2));
    assert_eq!(reading.sample.as_deref(), Some(&*format!(r#"{HEAD} "GET /ws?… HTTP/1.1" 0"#)));
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in "\\PC{0,300}") {
        let _ = parse(&line);
    }

    #[test]
    fn any_line_made_of_a_line_s_parts_is_read_or_refused(
        parts in prop::collection::vec(prop::sample::select(vec![
            HEAD, END, " ", "\"", "\\", "\" 0 0 \"", "GET /ws?", " HTTP/1.1", " - - [", "{", "}", JSON, "5ms", "wsTicket=x",
        ]), 0..12),
    ) {
        let _ = parse(&parts.concat());
    }

    #[test]
    fn no_ticket_ever_survives(
        host in "[0-9., a\"\\[?-]{0,20}", query in "[a-z=&\" \\\\\\[\\]-]{0,30}", agent in "[ -~]{0,20}", at in 0_usize..4,
    ) {
        let ticket = "wsTicket=QqSecretQq";
        let put = |here: usize, text: &str| if at == here { format!("{text}{ticket}") } else { text.to_owned() };
        let line = format!(
            r#"1.2.3.4{} - - [22/Aug/2026:10:00:01 +0000] "GET /ws?{} HTTP/1.1" 0 0 "-" "{}" 1 "{}" "-" 5ms"#,
            put(0, &host), put(1, &query), put(2, &agent), put(3, "r"),
        );
        let mut reading = Reading::default();
        reading.take(&line, parse(&line));
        let cut: String = line.chars().take(90).collect();
        reading.take(&cut, parse(&cut));
        let json = JSON.replace("203.0.113.7", &put(0, "203.0.113.7")).replace("\"/ws\"", &format!("\"/ws?{}\"", put(1, "a")));
        reading.take(&json, parse(&json));
        prop_assert!(!format!("{reading:?}").contains("QqSecretQq"), "{reading:?}");
    }
}
