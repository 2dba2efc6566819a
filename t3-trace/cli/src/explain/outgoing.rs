//! Texts of a connection that a process of this host opened, for the page of `direct`. Pure.

use t3_record::{TcpCloseRecord, Verdict, how::How};

use crate::present::text::safe;

/// What the connection was.
pub(super) fn title(record: &TcpCloseRecord) -> String {
    format!("connection {}  from this host to {} port {}", safe(&record.conn), safe(&record.ip), record.port)
}

/// The process that opened it, as far as it is known.
pub(super) fn owner(record: &TcpCloseRecord) -> String {
    let mut parts = Vec::new();
    if let Some((comm, pid)) = record.client_comm.as_ref().zip(record.client_pid) {
        parts.push(format!("process {}[{pid}]", safe(comm)));
    }
    parts.extend(record.client_unit.as_ref().map(|unit| format!("unit {}", safe(unit))));
    if parts.is_empty() { "process unknown".to_owned() } else { parts.join(", ") }
}

/// Sentence for the verdict.
pub(super) fn meaning(record: &TcpCloseRecord) -> &'static str {
    match (record.verdict, record.how) {
        (Verdict::ServeLeft, _) => "The server sent FIN first.",
        (Verdict::ServeReset, _) => "An RST arrived from the server, or from a hop before it.",
        (Verdict::ServeTimeout, _) => "The server no longer answered: the network lost it, or it was gone.",
        (_, Some(How::Signal(_))) => "A signal terminated the process of this host that opened it.",
        (_, Some(How::Oom)) => "The OOM killer of the kernel terminated the process that opened it.",
        (_, Some(How::Exit(_))) => "The process of this host that opened it exited.",
        (Verdict::ClientLeft, _) => "The process of this host sent FIN first.",
        (Verdict::ClientReset, _) => "The process of this host sent RST.",
        (Verdict::AdminKilled, _) => "The socket was destroyed on this host (`ss -K` or similar).",
        _ => "No rule matched.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{explain::direct::page, present::text::Paint};

    fn shown(rest: &str) -> String {
        let line = format!(
            "tcp close ip=198.51.100.7 dur_ms=61873 cause=upstream_closed segment=serve conn=d4k3 port=7844 \
             via=direct kernel=tracepoint outgoing=true confidence=likely {rest}"
        );
        let record = TcpCloseRecord::from_line(&line).unwrap();
        page(&record, None, "2026-11-25 14:10:07", Paint { colour: false }, 100)
    }

    #[test]
    fn the_page_names_the_process_as_the_client() {
        let text = shown(
            "verdict=serve_reset how=rst up_bytes=20114 down_bytes=918 up_rtt_us=1412 up_retrans=2 \
             client_pid=881 client_comm=cloudflared client_exit=alive client_unit=cloudflared.service \
             chain=up:rst_in@0",
        );
        let expected = "\
2026-11-25 14:10:07  connection d4k3  from this host to 198.51.100.7 port 7844  lasted 1m01s
process cloudflared[881], unit cloudflared.service, not carried by t3-dispatch

ANSWER
  An RST arrived from the server, or from a hop before it.
  verdict=serve_reset  segment=serve  how=rst

CONFIDENCE
  Likely. No frame is known: the other end may have sent a Close frame, or been silent, before.

TIMELINE
       +0 ms  serve sent RST

FACTS
  918 bytes delivered to the server; 20114 received
  RTT to the server's TCP peer 1.4 ms; 2 segments retransmitted
  process of this host: alive

NEXT
  Log of the process: journalctl -u cloudflared.service
  Other closes of these connections: journalctl T3_VIA=direct T3_CLIENT_UNIT=cloudflared.service
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_death_of_the_process_is_the_answer() {
        let text = shown("verdict=client_left how=signal:9 client_exit=sig:9 killed_by=bash[77]");
        assert!(
            text.contains(
                "A signal terminated the process of this host that opened it. Signal sent by bash[77]."
            ),
            "{text}"
        );
        let left = shown("verdict=client_left how=fin client_exit=exit:0");
        assert!(left.contains("The process of this host sent FIN first."), "{left}");
    }
}
