//! Lines of every kind that docs/EDGE-LOGS.md names, in both forms, and hostile ones.

use proptest::prelude::*;

use super::*;
use crate::edge::Reading;

const AT: &str = "2026-08-22T10:01:02Z";
const AT_MS: i64 = 1_787_392_862_000;

fn ws(dest: Option<&str>) -> TunnelKind {
    TunnelKind::RequestFailed { ws: dest.is_some(), dest: dest.map(str::to_owned) }
}

#[test]
fn each_kind_of_line_is_known() {
    let ended = "Incoming request ended abruptly: context canceled";
    let stopped = "accept stream listener encountered a failure while serving";
    let (info, warn, error, debug) = (Level::Info, Level::Warn, Level::Error, Level::Debug);
    for (text, level, kind, index, message, said) in [
        (
            "INF Registered tunnel connection connIndex=2 connection=7f0c0000-0000-4000-8000-000000000000 event=0 ip=198.51.100.77 location=lhr08 protocol=quic",
            info,
            TunnelKind::Registered,
            Some(2),
            "Registered tunnel connection",
            None,
        ),
        (
            "INF Connection 7f0c0000-0000-4000-8000-000000000000 registered connIndex=1",
            info,
            TunnelKind::Registered,
            Some(1),
            "Connection 7f0c0000-0000-4000-8000-000000000000 registered",
            None,
        ),
        (
            "INF Unregistered tunnel connection connIndex=0 event=0",
            info,
            TunnelKind::Unregistered,
            Some(0),
            "Unregistered tunnel connection",
            None,
        ),
        (
            "INF Lost connection with the edge connIndex=3",
            info,
            TunnelKind::ConnectionLost,
            Some(3),
            "Lost connection with the edge",
            None,
        ),
        (
            r#"ERR failed to accept incoming stream requests error="failed to accept QUIC stream: timeout: no recent network activity" connIndex=2 event=0 ip=198.51.100.77"#,
            error,
            TunnelKind::ConnectionLost,
            Some(2),
            "failed to accept incoming stream requests",
            Some("failed to accept QUIC stream: timeout: no recent network activity"),
        ),
        (
            r#"ERR failed to run the datagram handler error="timeout: no recent network activity" connIndex=2 event=0 ip=198.51.100.77"#,
            error,
            TunnelKind::ConnectionLost,
            Some(2),
            "failed to run the datagram handler",
            Some("timeout: no recent network activity"),
        ),
        (
            r#"ERR failed to serve tunnel connection error="accept stream listener encountered a failure while serving" connIndex=2 event=0 ip=198.51.100.77"#,
            error,
            TunnelKind::ConnectionLost,
            Some(2),
            "failed to serve tunnel connection",
            Some(stopped),
        ),
        (
            r#"ERR Serve tunnel error error="accept stream listener encountered a failure while serving" connIndex=2 event=0 ip=198.51.100.77"#,
            error,
            TunnelKind::ConnectionLost,
            Some(2),
            "Serve tunnel error",
            Some(stopped),
        ),
        (
            r"ERR Failed to serve quic connection error=EOF connIndex=2",
            error,
            TunnelKind::ConnectionLost,
            Some(2),
            "Failed to serve quic connection",
            Some("EOF"),
        ),
        (
            r"ERR failed to serve the control stream error=EOF connIndex=2",
            error,
            TunnelKind::ConnectionLost,
            Some(2),
            "failed to serve the control stream",
            Some("EOF"),
        ),
        (
            "INF Restarting connection due to reconnect signal in 5s connIndex=0",
            info,
            TunnelKind::ConnectionLost,
            Some(0),
            "Restarting connection due to reconnect signal in 5s",
            None,
        ),
        (
            "INF Retrying connection in up to 1s connIndex=2 event=0 ip=198.51.100.77",
            info,
            TunnelKind::Retrying,
            Some(2),
            "Retrying connection in up to 1s",
            None,
        ),
        (
            r#"ERR Failed to dial a quic connection error="failed to dial to edge with quic: timeout: no recent network activity" connIndex=2 event=0"#,
            error,
            TunnelKind::Retrying,
            Some(2),
            "Failed to dial a quic connection",
            Some("failed to dial to edge with quic: timeout: no recent network activity"),
        ),
        (
            "INF Switching to fallback protocol http2 connIndex=2",
            info,
            TunnelKind::Retrying,
            Some(2),
            "Switching to fallback protocol http2",
            None,
        ),
        (
            r#"WRN Connection terminated error="accept stream listener encountered a failure while serving" connIndex=2"#,
            warn,
            TunnelKind::Terminated,
            Some(2),
            "Connection terminated",
            Some(stopped),
        ),
        (
            r#"ERR Connection terminated error="accept stream listener encountered a failure while serving" connIndex=2"#,
            error,
            TunnelKind::Terminated,
            Some(2),
            "Connection terminated",
            Some(stopped),
        ),
        (
            "FTL no more connections active and exiting",
            Level::Fatal,
            TunnelKind::Terminated,
            None,
            "no more connections active and exiting",
            None,
        ),
        (
            r#"ERR  error="Incoming request ended abruptly: context canceled" connIndex=2 event=1 ingressRule=0 originService=https://traefik.example.internal"#,
            error,
            ws(None),
            Some(2),
            "",
            Some(ended),
        ),
        (
            r#"ERR Request failed error="Incoming request ended abruptly: context canceled" connIndex=2 dest=https://t3.example.org/ws event=0 ip=198.51.100.77 type=ws"#,
            error,
            ws(Some("https://t3.example.org/ws")),
            Some(2),
            "Request failed",
            Some(ended),
        ),
        (
            r#"ERR failed to serve incoming request error="Failed to proxy HTTP: unexpected EOF""#,
            error,
            ws(None),
            None,
            "failed to serve incoming request",
            Some("Failed to proxy HTTP: unexpected EOF"),
        ),
        (
            "DBG upstream->downstream copy: read tcp 10.244.3.9:51344->192.0.2.20:443: read: connection reset by peer connIndex=2 event=1",
            debug,
            TunnelKind::CopyError,
            Some(2),
            "upstream->downstream copy: read tcp 10.244.3.9:51344->192.0.2.20:443: read: connection reset by peer",
            None,
        ),
        (
            "DBG downstream->upstream copy: stream 41 canceled by remote with error code 0 connIndex=2 event=1",
            debug,
            TunnelKind::CopyError,
            Some(2),
            "downstream->upstream copy: stream 41 canceled by remote with error code 0",
            None,
        ),
        (
            "DBG tunnel->origin copy: Read on stream 41 canceled with error code 0",
            debug,
            TunnelKind::CopyError,
            None,
            "tunnel->origin copy: Read on stream 41 canceled with error code 0",
            None,
        ),
        (
            "DBG origin->tunnel copy: EOF",
            debug,
            TunnelKind::CopyError,
            None,
            "origin->tunnel copy: EOF",
            None,
        ),
        (
            "ERR Closing quic stream due to timeout while writing connIndex=1",
            error,
            TunnelKind::CopyError,
            Some(1),
            "Closing quic stream due to timeout while writing",
            None,
        ),
        (
            "INF Starting tunnel tunnelID=7f0c0000-0000-4000-8000-000000000000",
            info,
            TunnelKind::Other,
            None,
            "Starting tunnel",
            None,
        ),
        (
            "DBG GET https://t3.example.org/ws HTTP/1.1 connIndex=2 headers={\"Cookie\":[\"s=1\"]}",
            debug,
            TunnelKind::Other,
            Some(2),
            "",
            None,
        ),
    ] {
        let expected = TunnelLine {
            at_ms: AT_MS,
            level,
            message: message.to_owned(),
            error: said.map(str::to_owned),
            conn_index: index,
            kind,
            ray: None,
        };
        assert_eq!(parse(&format!("{AT} {text}")), Ok(expected), "{text}");
    }
}

#[test]
fn each_error_of_a_request_is_kept_without_its_query() {
    for (written, kept) in [
        (
            r"Unable to reach the origin service. The service may be down or it may not be responding to traffic from cloudflared: dial tcp 192.0.2.20:443: connect: connection refused",
            "Unable to reach the origin service. The service may be down or it may not be responding to traffic from cloudflared: dial tcp 192.0.2.20:443: connect: connection refused",
        ),
        (r"stream 41 canceled by remote with error code 0", "stream 41 canceled by remote with error code 0"),
        (r"Error writing response header: EOF", "Error writing response header: EOF"),
        (r"timeout: no recent network activity", "timeout: no recent network activity"),
        (r#"Get \"https://t3/ws?wsTicket=secret\": EOF"#, "Get \"https://t3/ws?…\": EOF"),
        (r"a\tb\x1b\u00fc\U0001f600\xff\\", "a\u{fffd}b\u{fffd}ü😀\u{fffd}\\"),
    ] {
        let line = format!(
            r#"{AT} ERR Request failed error="{written}" dest=https://t3/ws?wsTicket=secret type=http"#
        );
        let read = parse(&line).unwrap();
        assert_eq!(read.error.as_deref(), Some(kept));
        assert_eq!(
            read.kind,
            TunnelKind::RequestFailed { ws: false, dest: Some("https://t3/ws".to_owned()) }
        );
    }
}

#[test]
fn json_lines_say_the_same_as_text_lines() {
    let text = r#"ERR Request failed error="context canceled" connIndex=2 dest=https://t3.example.org/ws event=0 ip=198.51.100.77 type=ws"#;
    let json = r#"{"connIndex":2,"dest":"https://t3.example.org/ws","error":"context canceled","event":0,"ip":"198.51.100.77","level":"error","message":"Request failed","time":"2026-08-22T10:01:02Z","type":"ws"}"#;
    assert_eq!(parse(json), parse(&format!("{AT} {text}")));
    let text = r#"ERR  error="x y" connIndex=2 event=1 ingressRule=0"#;
    let json = r#"{"connIndex":2,"error":"x y","event":1,"ingressRule":0,"level":"error","time":"2026-08-22T10:01:02Z"}"#;
    assert_eq!(parse(json), parse(&format!("{AT} {text}")));
    let exact =
        json.replace("10:01:02Z", "10:01:02.25Z").replace("\"level\":\"error\"", "\"level\":\"panic\"");
    let read = parse(&exact).unwrap();
    assert_eq!((read.at_ms, read.level, read.kind), (AT_MS + 250, Level::Fatal, TunnelKind::Terminated));
}

#[test]
fn the_ray_of_older_versions_is_kept() {
    let read =
        parse(&format!("{AT} ERR  error=EOF cfRay=8c1f0000abcd1234-LHR event=1 ingressRule=0")).unwrap();
    assert_eq!(read.ray.as_deref(), Some("8c1f0000abcd1234-LHR"));
    let read = parse(&format!("{AT} ERR  error=EOF cfRay=\"a b\" event=1 ingressRule=0")).unwrap();
    assert_eq!(read.ray, None);
}

#[test]
fn a_message_may_hold_what_looks_like_a_field_and_colours_are_no_part_of_it() {
    let read = parse(&format!("{AT} INF Settings a=1 b=\"x y\" and more connIndex=3")).unwrap();
    assert_eq!((read.message.as_str(), read.conn_index), ("Settings a=1 b=\"x y\" and more", Some(3)));
    let coloured = "\x1b[90m2026-08-22T10:01:02Z\x1b[0m \x1b[32mINF\x1b[0m Lost connection with the edge \x1b[36mconnIndex=\x1b[0m2";
    let read = parse(coloured).unwrap();
    assert_eq!((read.kind, read.conn_index), (TunnelKind::ConnectionLost, Some(2)));
    assert_eq!(parse(&format!("{AT} INF")).unwrap().message, "");
    assert_eq!(parse(&format!("{AT} INF x connIndex=300")).unwrap().conn_index, None);
}

#[test]
fn a_broken_line_differs_from_a_line_of_another_log() {
    for line in [
        format!("{AT} ERR Request failed error=\"Incoming request"),
        r#"{"connIndex":2,"level":"error","message":"Requ"#.to_owned(),
        r#"{"connIndex":2,"level":"error","message":"x"}"#.to_owned(),
        r#"{"level":"error","time":"today"}"#.to_owned(),
        "x".repeat(LONGEST + 1),
    ] {
        assert!(matches!(parse(&line), Err(BadLine::Unreadable(_))), "{line}");
    }
    for line in [
        "",
        AT,
        "2026-08-22T10:01:02Z INFO something of another program",
        "2026-08-22T10:01:02Z hello",
        "INF no time",
        r#"{"level":"info","msg":"Traefik","time":"2026-08-22T10:01:02Z"}"#,
        "{broken",
        "{}",
    ] {
        assert_eq!(parse(line), Err(BadLine::Other), "{line}");
    }
}

#[test]
fn an_escape_that_go_does_not_write_hides_no_ticket() {
    for escape in [r"\x", r"\xc", r"\u12", r"\U0001", r"\q", r"\x+1"] {
        let line = format!(r#"{AT} ERR Request failed error="a {escape}wsTicket=QqSecretQq b" connIndex=1"#);
        let mut reading = crate::edge::Reading::default();
        reading.take(&line, parse(&line));
        let said = format!("{reading:?}");
        assert!(reading.unread == 1 && !said.contains("QqSecretQq"), "{escape}: {said}");
    }
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in "\\PC{0,300}", level in "DBG|INF|WRN|ERR|FTL|PNC|XXX") {
        let _ = parse(&line);
        let _ = parse(&format!("{AT} {level} {line}"));
    }

    #[test]
    fn fields_come_back_as_they_were_written(message in "[a-zA-Z][a-z A-Z]{0,20}[a-z]", error in "\\PC{0,40}", index in 0_u8..=255) {
        prop_assume!(!error.contains('?') && !error.to_ascii_lowercase().contains("wsticket"));
        let quoted = format!("\"{}\"", error.replace('\\', "\\\\").replace('"', "\\\""));
        let read = parse(&format!("{AT} ERR {message} error={quoted} connIndex={index}")).unwrap();
        prop_assert_eq!(read.message, message);
        prop_assert_eq!(read.error, Some(error));
        prop_assert_eq!(read.conn_index, Some(index));
    }

    #[test]
    fn no_ticket_ever_survives(before in "[ -~]{0,30}", after in "[ -~]{0,30}", shape in 0_usize..4) {
        let text = format!("{before}wsTicket=QqSecretQq{after}");
        let quoted = serde_json::to_string(&text).unwrap();
        let line = match shape {
            0 => format!("{AT} ERR {text} connIndex=1"),
            1 => format!("{AT} ERR Request failed error={quoted} dest={quoted} type=ws"),
            2 => format!("{AT} DBG upstream->downstream copy: {text}"),
            _ => format!(r#"{{"level":"error","event":1,"time":"{AT}","message":{quoted},"error":{quoted},"dest":{quoted},"cfRay":{quoted}}}"#),
        };
        let mut reading = Reading::default();
        reading.take(&line, parse(&line));
        let cut: String = line.chars().take(100).collect();
        reading.take(&cut, parse(&cut));
        prop_assert!(!format!("{reading:?}").contains("QqSecretQq"), "{reading:?}");
    }
}
