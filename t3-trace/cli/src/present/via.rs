//! Selection of closes by the program that carried the connection, and the line of one that
//! t3-dispatch did not carry. Pure.

use clap::ValueEnum;
use t3_record::TcpCloseRecord;

use super::{
    close_line,
    text::{Paint, safe},
};

/// Value of `--via`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ViaFilter {
    /// Sessions of t3-dispatch: `ws close`
    #[default]
    Dispatch,
    /// Other connections to watched ports: `tcp close`
    Direct,
    /// Both
    All,
}

impl ViaFilter {
    /// Whether sessions of t3-dispatch are selected.
    #[must_use]
    pub const fn has_sessions(self) -> bool {
        matches!(self, Self::Dispatch | Self::All)
    }

    /// Whether other connections are selected.
    #[must_use]
    pub const fn has_direct(self) -> bool {
        matches!(self, Self::Direct | Self::All)
    }
}

/// Returns the line of one `tcp close`: the columns of a `ws close`, then the port and the client.
#[must_use]
pub fn direct_line(record: &TcpCloseRecord, clock: &str, host: Option<&str>, paint: Paint) -> String {
    let line = close_line::close(&record.as_close(), clock, host, paint);
    format!("{line}  {}", ends(record))
}

/// Returns the port and the client of a connection: `:8080 from 192.0.2.7 (nginx)`, and for a
/// session of a proxy ` through nginx to 127.0.0.1:3773`; of an outgoing one the server:
/// `to 192.0.2.7:443 (cloudflared)`.
#[must_use]
pub fn ends(record: &TcpCloseRecord) -> String {
    let client = record.client_comm.as_ref().map_or_else(String::new, |comm| format!(" ({})", safe(comm)));
    let at_least = if record.dur_min == Some(true) { "  older than the watch" } else { "" };
    let (port, ip) = (record.port, safe(&record.ip));
    if record.is_outgoing() {
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
        return format!("to {ip}:{port}{client}{at_least}");
    }
    let through = record.up_addr.as_ref().map_or_else(String::new, |upstream| {
        let proxy = record.proxy_comm.as_ref().map_or_else(|| "a proxy".to_owned(), |comm| safe(comm));
        format!(" through {proxy} to {}", safe(upstream))
    });
    format!(":{port} from {ip}{client}{through}{at_least}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_columns_of_a_ws_close_then_port_and_client() {
        let line = "tcp close ip=203.0.113.7 dur_ms=61873 cause=upstream_closed verdict=serve_killed segment=serve \
                    conn=d4k3v9q0a1b2c port=8080 via=direct kernel=tracepoint how=signal:9 confidence=proven";
        let shown = |rest: &str| {
            let record = TcpCloseRecord::from_line(&format!("{line}{rest}")).unwrap();
            direct_line(&record, "14:10:02", None, Paint { colour: false })
        };
        assert_eq!(
            shown(" user=ann client_comm=nginx killed_by=bash[77]"),
            "14:10:02  d4k3v9q0a1b2c  serve_killed       ann             1m01s  signal:9            by bash[77]  \
             :8080 from 203.0.113.7 (nginx)"
        );
        assert!(shown(" outgoing=true client_comm=node").ends_with("  to 203.0.113.7:8080 (node)"));
        let pair = shown(" up_addr=127.0.0.1:3773 proxy_comm=nginx actor=upstream");
        assert!(pair.ends_with(":8080 from 203.0.113.7 through nginx to 127.0.0.1:3773"), "{pair}");
        assert!(shown(" dur_min=true").ends_with(":8080 from 203.0.113.7  older than the watch"));
        assert!(shown("").contains("  port 8080  "), "{}", shown(""));
        assert!(!shown(" client_comm=\"a\\u001bb\"").contains('\u{1b}'));
    }
}
