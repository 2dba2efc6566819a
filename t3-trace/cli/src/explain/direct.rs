//! Page of a connection that t3-dispatch did not carry. Pure: a record in, text out.
//!
//! Its conclusion is that of the record. The texts of a session's verdict do not fit: they rest on
//! frames, of which nothing is known here.

use std::fmt::Write as _;

use t3_record::{
    Confidence, TcpCloseRecord, Verdict,
    value::Percent,
    vocabulary::{Actor, Side},
};

use super::{outgoing, page::heading};
use crate::present::{
    chain_text,
    text::{Paint, folded, lasted, safe},
    verdict_text::{self, Tone, tone},
};

/// PSI values from here on are listed, in percent.
const NOTABLE: f32 = 1.0;

/// Returns the page. `at` is the local time of the record.
#[must_use]
pub fn page(record: &TcpCloseRecord, host: Option<&str>, at: &str, paint: Paint, width: usize) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{}", folded(text, Some(width)));
    };
    let at_least = if record.dur_min == Some(true) { "at least " } else { "" };
    let lasted = lasted(record.dur_ms);
    let on_host = host.map_or_else(String::new, |host| format!("  on host {}", safe(host)));
    let (title, owner) = if record.is_outgoing() {
        (outgoing::title(record), outgoing::owner(record))
    } else {
        (title(record), owner(record))
    };
    line(&format!("{at}  {title}  lasted {at_least}{lasted}{on_host}"));
    line(&format!("{owner}, not carried by t3-dispatch"));
    heading(&mut out, paint, "ANSWER");
    let code = match tone(record.verdict, record.segment) {
        Tone::Fine => "32",
        Tone::Warning => "33",
        Tone::Bad => "1;31",
    };
    let _ = writeln!(out, "{}", paint.with(code, &indented(&meaning(record), width)));
    let how = record.how.map_or_else(String::new, |how| format!("  how={how}"));
    let _ = writeln!(out, "  verdict={}  segment={}{how}", record.verdict, record.segment);
    heading(&mut out, paint, "CONFIDENCE");
    let _ = writeln!(out, "{}", indented(&confidence(record), width));
    heading(&mut out, paint, "TIMELINE");
    for event in record.chain.iter().flat_map(chain_text::texts) {
        let _ = writeln!(out, "{}", indented(&format!("{:>10}  {}", event.at, event.what), width));
    }
    heading(&mut out, paint, "FACTS");
    for fact in facts(record) {
        let _ = writeln!(out, "{}", indented(&fact, width));
    }
    heading(&mut out, paint, "NEXT");
    for step in next(record) {
        let _ = writeln!(out, "{}", indented(&step, width));
    }
    out
}

fn indented(text: &str, width: usize) -> String {
    folded(&format!("  {text}"), Some(width))
}

fn title(record: &TcpCloseRecord) -> String {
    format!("connection {}  to port {}  from {}", safe(&record.conn), record.port, safe(&record.ip))
}

/// The process behind the port, as far as it is known.
fn owner(record: &TcpCloseRecord) -> String {
    let mut parts = Vec::new();
    if let Some((comm, pid)) = record.peer_comm.as_ref().zip(record.peer_pid) {
        parts.push(format!("process {}[{pid}]", safe(comm)));
    }
    parts.extend(record.peer_unit.as_ref().map(|unit| format!("unit {}", safe(unit))));
    parts.extend(record.user.as_ref().map(|user| format!("user {}", safe(user))));
    let process = if parts.is_empty() { format!("{} unknown", subject(record)) } else { parts.join(", ") };
    match (through(record), record.actor) {
        (Some(proxy), Some(Actor::Proxy)) => format!("{process}; {proxy}"),
        (Some(proxy), _) => format!("{proxy}; there {process}"),
        (None, _) => process,
    }
}

/// The process that the verdict calls serve.
const fn subject(record: &TcpCloseRecord) -> &'static str {
    match record.actor {
        Some(Actor::Proxy) => "proxy",
        Some(_) => "upstream of the proxy",
        None => "process behind the port",
    }
}

/// The proxy and its upstream, in the record of a session of a proxy.
fn through(record: &TcpCloseRecord) -> Option<String> {
    let upstream = safe(record.up_addr.as_ref()?);
    let proxy = record.proxy_comm.as_ref().zip(record.proxy_pid);
    let proxy = proxy.map_or_else(String::new, |(comm, pid)| format!(" {}[{pid}]", safe(comm)));
    Some(format!("through proxy{proxy} to {upstream}"))
}

fn meaning(record: &TcpCloseRecord) -> String {
    let text = match record.verdict {
        _ if record.is_outgoing() => outgoing::meaning(record),
        Verdict::ClientLeft => "The client sent FIN first.",
        Verdict::ClientReset => "An RST arrived from the client, or from a hop before it.",
        Verdict::ServeLeft => "The process behind the port sent FIN first.",
        Verdict::ServeReset => "The process behind the port sent RST.",
        Verdict::ServeExited => "The process behind the port exited, and its socket with it.",
        Verdict::ServeKilled => "A signal terminated the process behind the port.",
        Verdict::ServeOom => "The OOM killer of the kernel terminated the process behind the port.",
        Verdict::AdminKilled => "The socket was destroyed on this host (`ss -K` or similar).",
        Verdict::ClientClosed => "The client sent a Close frame first.",
        Verdict::ServeClosed => "The process behind the port sent a Close frame first.",
        verdict => verdict_text::text(verdict).meaning,
    };
    let text = text.replace("process behind the port", subject(record));
    match &record.killed_by {
        Some(by) => format!("{text} Signal sent by {}.", safe(by)),
        None => text,
    }
}

fn confidence(record: &TcpCloseRecord) -> String {
    if record.confidence == Some(Confidence::Proven) {
        return if matches!(record.verdict, Verdict::ClientClosed | Verdict::ServeClosed) {
            "Proven by the Close frames of both directions and kernel events.".to_owned()
        } else {
            "Proven by kernel events, which no frame could refute.".to_owned()
        };
    }
    let doubt = match record.verdict {
        Verdict::ServeExited | Verdict::ServeKilled | Verdict::ServeOom => {
            "The process ended around the close; that its end closed the connection was not observed."
        }
        Verdict::ClientVanished => {
            "Events were lost, or this host did not run or had no network at that time."
        }
        Verdict::Unknown => "No rule matched.",
        _ if record.ws_from.is_some() => {
            "A Close frame was read; a silence before it, or a frame of the upstream, is not known."
        }
        _ => "No frame is known: the other end may have sent a Close frame, or been silent, before.",
    };
    format!("Likely. {doubt}")
}

fn facts(record: &TcpCloseRecord) -> Vec<String> {
    let mut facts = Vec::new();
    let (is_outgoing, other) = if record.is_outgoing() { (true, "server") } else { (false, "client") };
    let bytes = record.up_bytes.zip(record.down_bytes);
    let bytes = bytes.map(|(up, down)| if is_outgoing { (down, up) } else { (up, down) });
    if let Some((sent, received)) = bytes {
        let lost = record
            .up_undelivered
            .map_or_else(String::new, |bytes| format!(", {bytes} more not acknowledged"));
        facts.push(format!("{sent} bytes delivered to the {other}{lost}; {received} received"));
    }
    if let Some(rtt) = record.down_rtt_us.or(record.up_rtt_us) {
        let again = record.down_retrans.or(record.up_retrans).unwrap_or(0);
        facts.push(format!(
            "RTT to the {other}'s TCP peer {}.{} ms; {again} segments retransmitted",
            rtt / 1000,
            rtt % 1000 / 100
        ));
    }
    if let Some((comm, pid)) = record.client_comm.as_ref().zip(record.client_pid).filter(|_| !is_outgoing) {
        facts.push(format!("client: process {}[{pid}] of this host", safe(comm)));
    }
    if let Some(from) = record.ws_from {
        let end = if from == Side::Down { "client" } else { subject(record) };
        let code = record.ws_code.map_or_else(|| "without a code".to_owned(), |code| code.to_string());
        facts.push(format!("first Close frame: {code}, from the {end}"));
    }
    if let Some(fate) = record.peer_exit {
        facts.push(format!("{}: {}", subject(record), t3_record::value::Value::encode(&fate)));
    }
    if let Some(fate) = record.client_exit {
        facts.push(format!("process of this host: {}", t3_record::value::Value::encode(&fate)));
    }
    let of_cgroup = [("mem", record.psi_mem), ("io", record.psi_io), ("cpu", record.psi_cpu)];
    let of_host = [("mem", record.host_psi_mem), ("io", record.host_psi_io), ("cpu", record.host_psi_cpu)];
    for (whose, values) in [("cgroup of the process", of_cgroup), ("host", of_host)] {
        let high: Vec<String> = values
            .into_iter()
            .filter_map(|(name, value)| value.filter(|Percent(value)| *value >= NOTABLE).map(|v| (name, v)))
            .map(|(name, Percent(value))| format!("{name} {value:.0}%"))
            .collect();
        if !high.is_empty() {
            facts.push(format!("PSI some of the {whose}, 10 s before the close: {}", high.join(" ")));
        }
    }
    if let Some(lost) = record.lost {
        facts.push(format!("{lost} kernel events lost since the record before"));
    }
    facts
}

fn next(record: &TcpCloseRecord) -> Vec<String> {
    let mut steps = Vec::new();
    if let Some(unit) = record.peer_unit.as_ref().or(record.client_unit.as_ref()) {
        let unit = safe(unit);
        steps.push(format!("Log of the process: journalctl -u {unit}"));
    }
    if record.is_outgoing() {
        let of_unit = |unit: &String| format!(" T3_CLIENT_UNIT={}", safe(unit));
        let filter = record.client_unit.as_ref().map_or_else(String::new, of_unit);
        steps.push(format!("Other closes of these connections: journalctl T3_VIA=direct{filter}"));
        return steps;
    }
    steps.push(format!("Other closes on this port: journalctl T3_VIA=direct T3_PORT={}", record.port));
    if record.client_comm.is_some() {
        steps.push(
            "The client is a process of this host, perhaps a proxy: its own client is not known here."
                .to_owned(),
        );
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "tcp close ip=203.0.113.7 dur_ms=61873 cause=upstream_closed";

    fn shown(rest: &str) -> String {
        let record = TcpCloseRecord::from_line(&format!("{HEAD} {rest}")).unwrap();
        page(&record, None, "2026-11-25 14:10:07", Paint { colour: false }, 100)
    }

    #[test]
    fn a_page_has_the_conclusion_its_confidence_and_all_facts() {
        let text = shown(
            "verdict=serve_killed segment=serve conn=d4k3 port=8080 via=direct kernel=tracepoint how=signal:9 \
             confidence=proven user=ann peer_unit=hub.service up_bytes=900 down_bytes=20 up_undelivered=7 \
             down_rtt_us=1412 down_retrans=2 peer_pid=42 peer_comm=node peer_exit=sig:9 killed_by=bash[77] \
             client_pid=8 client_comm=nginx psi_mem=3.1 host_psi_cpu=0.2 chain=up:peer_sig9@-2,up:fin_in@0 lost=3",
        );
        let expected = "\
2026-11-25 14:10:07  connection d4k3  to port 8080  from 203.0.113.7  lasted 1m01s
process node[42], unit hub.service, user ann, not carried by t3-dispatch

ANSWER
  A signal terminated the process behind the port. Signal sent by bash[77].
  verdict=serve_killed  segment=serve  how=signal:9

CONFIDENCE
  Proven by kernel events, which no frame could refute.

TIMELINE
       -2 ms  serve process killed by SIGKILL (9)
       +0 ms  serve sent FIN

FACTS
  900 bytes delivered to the client, 7 more not acknowledged; 20 received
  RTT to the client's TCP peer 1.4 ms; 2 segments retransmitted
  client: process nginx[8] of this host
  process behind the port: sig:9
  PSI some of the cgroup of the process, 10 s before the close: mem 3%
  3 kernel events lost since the record before

NEXT
  Log of the process: journalctl -u hub.service
  Other closes on this port: journalctl T3_VIA=direct T3_PORT=8080
  The client is a process of this host, perhaps a proxy: its own client is not known here.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_session_of_a_proxy_names_the_end_that_acted() {
        let pair = "conn=d port=1 via=direct kernel=kprobe how=fin confidence=likely peer_pid=42 \
                    peer_comm=node up_addr=127.0.0.1:3773 proxy_pid=8 proxy_comm=nginx";
        let by_upstream = shown(&format!("verdict=serve_left segment=serve actor=upstream {pair}"));
        assert!(
            by_upstream.contains(
                "through proxy nginx[8] to 127.0.0.1:3773; there process node[42], not carried by t3-dispatch"
            ) && by_upstream.contains("The upstream of the proxy sent FIN first."),
            "{by_upstream}"
        );
        let by_proxy = pair.replace("peer_pid=42 peer_comm=node", "peer_pid=8 peer_comm=nginx");
        let by_proxy = shown(&format!("verdict=serve_left segment=serve actor=proxy {by_proxy}"));
        assert!(
            by_proxy.contains("process nginx[8]; through proxy nginx[8] to 127.0.0.1:3773")
                && by_proxy.contains("The proxy sent FIN first."),
            "{by_proxy}"
        );
    }

    #[test]
    fn a_close_frame_is_named_with_its_sender() {
        let closed = "conn=d port=1 via=direct kernel=kprobe how=ws_close:1012 ws_code=1012 ws_from=up";
        let proven = shown(&format!("verdict=serve_closed segment=serve confidence=proven {closed}"));
        assert!(
            proven.contains("The process behind the port sent a Close frame first.")
                && proven.contains("Proven by the Close frames of both directions")
                && proven.contains("first Close frame: 1012, from the process behind the port"),
            "{proven}"
        );
        let likely = shown(&format!("verdict=serve_closed segment=serve confidence=likely {closed}"));
        assert!(likely.contains("Likely. A Close frame was read"), "{likely}");
    }

    #[test]
    fn a_likely_verdict_says_what_is_not_known() {
        for (verdict, expected) in [
            ("client_left", "No frame is known"),
            ("serve_killed", "that its end closed the connection was not observed"),
            ("client_vanished", "Events were lost, or this host did not run"),
        ] {
            let text = shown(&format!(
                "verdict={verdict} segment=serve conn=d port=1 via=direct kernel=off confidence=likely dur_min=true"
            ));
            assert!(text.contains("Likely. ") && text.contains(expected), "{text}");
            assert!(
                text.contains("lasted at least 1m01s") && text.contains("process behind the port unknown")
            );
        }
    }

    #[test]
    fn outside_text_cannot_control_the_terminal() {
        let text = shown(
            "verdict=serve_left segment=serve conn=d port=1 via=direct kernel=off peer_pid=1 peer_comm=\"a\\u001bb\" \
             client_pid=2 client_comm=\"c\\u001bd\" killed_by=\"e\\u001bf\"",
        );
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
