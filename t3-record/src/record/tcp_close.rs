//! `tcp close`: the record of a connection that t3-dispatch did not carry.
//!
//! Its keys are those of a `ws close` with the same meaning, as far as the kernel alone can tell
//! them: heartbeats and requests are unknown, and of frames only Close frames on configured ports
//! are known. It is a separate kind of record with its own prefix and `MESSAGE_ID`, so that counts
//! and queries of WebSockets stay as they are.

use super::{BadRecord, CloseRecord, Key, read};
use crate::{
    chain::Chain,
    evidence::Fate,
    how::How,
    value::{Percent, Typed, Value},
    vocabulary::{Actor, Cause, ClosedBy, Confidence, KernelSource, LegEnd, Segment, Side, Verdict, Via},
};

record! {
    /// `tcp close`: one per watched connection that t3-dispatch did not carry.
    TcpCloseRecord
    required {
        /// Address of the client: the peer of the connection. Of the server if `outgoing`.
        ["t3-trace: kernel events", "203.0.113.7"] ip: String,
        /// Milliseconds from the establishment of the connection to its end, the first event of
        /// `chain`.
        ["t3-trace: kernel events", "61873"] dur_ms: u64,
        /// Coarse cause, as in `ws close`.
        ["verdict", "upstream_closed"] cause: Cause,
        /// Classification of the close (docs/VERDICTS.md), from kernel evidence alone; serve is
        /// the process behind the port.
        ["verdict", "serve_oom"] verdict: Verdict,
        /// Location of the cause.
        ["verdict", "serve"] segment: Segment,
        /// Connection id.
        ["t3-trace", "d4k3v9q0a1b2c"] conn: String,
        /// Listening port, also of the server if `outgoing`.
        ["t3-trace: kernel events", "8080"] port: u16,
        /// Carrier of the connection.
        ["t3-trace", "direct"] via: Via,
        /// Source of the kernel evidence.
        ["t3-trace", "tracepoint"] kernel: KernelSource,
    }
    optional {
        // First, so that no line has the words `ws close` after a text that ends in `ws`.
        /// Mechanism that decided the verdict.
        ["verdict", "oom"] how: How,
        /// End that acted first; not the cause.
        ["verdict", "upstream"] closed_by: ClosedBy,
        /// Confidence of the verdict: `proven` by events, or `likely`.
        ["verdict", "proven"] confidence: Confidence,
        /// OS user that the port belongs to: of the routing table, or of the process behind it.
        ["t3-trace: owner of the port", "wizard"] user: String,
        /// systemd unit of the process behind the port.
        ["cgroup v2", "jupyterhub.service"] peer_unit: String,
        /// Which process acted first. Only in the record of a proxy's session, with both of its
        /// connections: `down` is the one that it accepted, `up` the one that it opened, and the
        /// process behind the port is the proxy if it acted, else the one behind `up_addr`.
        ["verdict", "upstream"] actor: Actor,
        /// Address of the proxy's upstream.
        ["t3-trace: kernel events", "127.0.0.1:3773"] up_addr: String,
        /// Address of the proxy on that connection: the client in a log of the upstream.
        ["t3-trace: kernel events", "127.0.0.1:51000"] up_from: String,
        /// PID of the proxy.
        ["t3-trace: kernel events", "881"] proxy_pid: u32,
        /// comm of the proxy.
        ["t3-trace: kernel events", "nginx"] proxy_comm: String,
        /// systemd unit of the proxy.
        ["cgroup v2", "nginx.service"] proxy_unit: String,
        /// The connection is older than the watch: it lasted at least `dur_ms`. Omitted in others.
        ["t3-trace", "true"] dur_min: bool,
        /// A process of this host opened the connection; nothing of the process behind the port
        /// is known. Omitted for connections to a watched port.
        ["t3-trace", "true"] outgoing: bool,
        /// First act of the client on the connection.
        ["kernel events", "fin_in"] down_end: LegEnd,
        /// First act of the process behind the port on the connection, as its peer sees it; with
        /// `actor`, the first act on the proxy's upstream connection.
        ["kernel events", "rst_in"] up_end: LegEnd,
        /// Status code of the first Close frame, on a port with `websocket`.
        ["tcp_sendmsg, tcp_recvmsg", "1000"] ws_code: u16,
        /// End that sent the first Close frame; omitted unless it is certain that none was before
        /// it.
        ["tcp_sendmsg, tcp_recvmsg", "down"] ws_from: Side,
        /// Bytes from the process behind the port that the client acknowledged.
        ["tcp_sock", "918231"] up_bytes: u64,
        /// Bytes received from the client.
        ["tcp_sock", "20114"] down_bytes: u64,
        /// Bytes from the process behind the port that the client had not acknowledged at the end;
        /// omitted when 0.
        ["tcp_sock", "24571"] up_undelivered: u64,
        /// Bytes from the client that the upstream of the proxy had not acknowledged at the end;
        /// omitted when 0.
        ["tcp_sock", "34478"] down_undelivered: u64,
        /// Smoothed RTT to the client's TCP peer in microseconds.
        ["tcp_sock", "412"] down_rtt_us: u32,
        /// Segments retransmitted to the client.
        ["tcp_sock", "2"] down_retrans: u32,
        /// Segments sent to the client and not acknowledged at the close.
        ["tcp_sock", "1"] down_unacked: u32,
        /// Segments considered lost at the close.
        ["tcp_sock", "0"] down_lost: u32,
        /// Smoothed RTT to the server's TCP peer in microseconds, if `outgoing` or with `actor`.
        ["tcp_sock", "412"] up_rtt_us: u32,
        /// Segments retransmitted to the server, if `outgoing` or with `actor`.
        ["tcp_sock", "2"] up_retrans: u32,
        /// Segments sent to the server and not acknowledged at the close, if `outgoing` or with
        /// `actor`.
        ["tcp_sock", "1"] up_unacked: u32,
        /// Segments considered lost at the close, if `outgoing` or with `actor`.
        ["tcp_sock", "0"] up_lost: u32,
        /// The kernel's reason for an RST (6.10 and newer).
        ["tcp_send_reset", "TCP_ABORT_ON_CLOSE"] rst_reason: String,
        /// PID of the process behind the port.
        ["closing task, else procfs", "4242"] peer_pid: u32,
        /// comm of that process.
        ["closing task, else procfs", "node"] peer_comm: String,
        /// State of that process: alive, or the way it ended.
        ["sched_process_exit, oom:mark_victim", "sig:9"] peer_exit: Fate,
        /// Sender of the fatal signal, or of the signal after which the process exited by itself:
        /// comm, and PID in brackets.
        ["signal_generate", "bash[77]"] killed_by: String,
        /// argv of the OOM victim.
        ["oom:mark_victim, procfs", "node server.js"] oom_victim: String,
        /// PID of the process on this host that held the client's end.
        ["procfs", "881"] client_pid: u32,
        /// comm of that process.
        ["procfs", "nginx"] client_comm: String,
        /// State of that process, if `outgoing`: alive, or the way it ended.
        ["sched_process_exit, oom:mark_victim", "sig:9"] client_exit: Fate,
        /// systemd unit of that process, if `outgoing`.
        ["cgroup v2", "cloudflared.service"] client_unit: String,
        /// PSI of the process's cgroup: percent of the last 10 s in which some task waited for
        /// memory.
        ["PSI of the cgroup", "3.1"] psi_mem: Percent,
        /// The same for IO.
        ["PSI of the cgroup", "3.1"] psi_io: Percent,
        /// The same for CPU.
        ["PSI of the cgroup", "3.1"] psi_cpu: Percent,
        /// PSI of the process's cgroup: percent of the last 10 s in which all tasks waited for
        /// memory.
        ["PSI of the cgroup", "3.1"] psi_mem_full: Percent,
        /// The same for IO.
        ["PSI of the cgroup", "3.1"] psi_io_full: Percent,
        /// PSI of the process's cgroup: worst second of the last 30 s, memory (some).
        ["PSI of the cgroup", "3.1"] psi_mem_peak: Percent,
        /// The same for IO.
        ["PSI of the cgroup", "3.1"] psi_io_peak: Percent,
        /// The same for CPU.
        ["PSI of the cgroup", "3.1"] psi_cpu_peak: Percent,
        /// PSI of the host: percent of the last 10 s in which some task waited for memory.
        ["PSI of the host", "3.1"] host_psi_mem: Percent,
        /// The same for IO.
        ["PSI of the host", "3.1"] host_psi_io: Percent,
        /// The same for CPU.
        ["PSI of the host", "3.1"] host_psi_cpu: Percent,
        /// memory.current of the cgroup in bytes.
        ["cgroup v2", "25769803776"] mem_current: u64,
        /// memory.max of the cgroup in bytes; omitted when unlimited.
        ["cgroup v2", "25769803776"] mem_max: u64,
        /// OOM kills in the cgroup in the last 60 s.
        ["cgroup v2", "1"] oom_kills: u64,
        /// The first events of both ends in kernel order; `down` are those of the client.
        ["kernel events", "up:peer_oom@-3,up:rst_in@0"] chain: Chain,
        /// Kernel events lost since the last record; omitted when 0.
        ["t3-trace", "3"] lost: u64,
    }
}

/// The optional keys that both kinds of close have.
macro_rules! shared {
    ($($key:ident)+) => {
        impl TcpCloseRecord {
            /// Takes the values of the optional keys that a `ws close` has, too.
            pub fn take_shared(&mut self, close: CloseRecord) {
                $(self.$key = close.$key;)+
            }

            fn write_shared(&self, close: &mut CloseRecord) {
                $(close.$key.clone_from(&self.$key);)+
            }
        }
    };
}

shared! {
    how closed_by confidence down_end up_end ws_code ws_from up_bytes down_bytes up_undelivered down_undelivered
    down_rtt_us down_retrans down_unacked down_lost up_rtt_us up_retrans up_unacked up_lost rst_reason
    peer_pid peer_comm peer_exit killed_by oom_victim psi_mem psi_io psi_cpu psi_mem_full psi_io_full
    psi_mem_peak psi_io_peak psi_cpu_peak host_psi_mem host_psi_io host_psi_cpu mem_current mem_max
    oom_kills chain lost
}

impl TcpCloseRecord {
    /// Owner of the connection for a list: the user, else the unit, the process or the port.
    #[must_use]
    pub fn owner(&self) -> String {
        let unit = self.peer_unit.as_ref().or(self.client_unit.as_ref());
        let comm = self.peer_comm.as_ref().or(self.client_comm.as_ref().filter(|_| self.is_outgoing()));
        let name = self.user.as_ref().or(unit).or(comm);
        name.cloned().unwrap_or_else(|| format!("port {}", self.port))
    }

    /// Whether a process of this host opened the connection.
    #[must_use]
    pub fn is_outgoing(&self) -> bool {
        self.outgoing == Some(true)
    }

    /// The values that a `ws close` would have, for programs that present both kinds alike.
    #[must_use]
    pub fn as_close(&self) -> CloseRecord {
        let mut close = CloseRecord::new(
            self.owner(),
            self.ip.clone(),
            self.dur_ms,
            self.cause,
            self.verdict,
            self.segment,
            self.conn.clone(),
            self.kernel,
        );
        self.write_shared(&mut close);
        close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys with another meaning than in a `ws close`, or without one there.
    const OWN: [&str; 15] = [
        "port",
        "via",
        "peer_unit",
        "dur_min",
        "client_pid",
        "client_comm",
        "client_exit",
        "client_unit",
        "outgoing",
        "actor",
        "up_addr",
        "up_from",
        "proxy_pid",
        "proxy_comm",
        "proxy_unit",
    ];

    #[test]
    fn every_key_is_that_of_a_ws_close_or_its_own() {
        for key in TcpCloseRecord::KEYS {
            let known = CloseRecord::KEYS.iter().find(|known| known.name == key.name);
            assert_eq!(known.is_none(), OWN.contains(&key.name), "{}", key.name);
            assert!(known.is_none_or(|known| known.value == key.value), "{}", key.name);
        }
    }

    #[test]
    fn every_shared_key_is_copied_both_ways() {
        let pairs = TcpCloseRecord::KEYS.iter().map(|key| (key.name, key.example));
        let find = |wanted: &str| pairs.clone().find(|(key, _)| *key == wanted).map(|(_, text)| text.into());
        let record = TcpCloseRecord::from_pairs(find).unwrap();
        let close = record.as_close();
        let of_close = close.pairs();
        for (key, text) in record.pairs().iter().filter(|(key, _)| !OWN.contains(key)) {
            assert!(of_close.contains(&(key, text.clone())), "{key}");
        }
        let mut again = TcpCloseRecord::from_pairs(|key| {
            let required = TcpCloseRecord::KEYS.iter().any(|known| known.name == key && known.required);
            (required || OWN.contains(&key) || key == "user").then(|| find(key)).flatten()
        })
        .unwrap();
        assert_ne!(again, record);
        again.take_shared(close);
        assert_eq!(again, record);
    }

    #[test]
    fn the_owner_is_the_user_else_the_unit_the_process_or_the_port() {
        let line = "tcp close ip=192.0.2.1 dur_ms=1 cause=upstream_closed verdict=serve_left segment=serve \
                    conn=d1 port=8080 via=direct kernel=tracepoint";
        for (rest, owner) in [
            ("", "port 8080"),
            (" peer_comm=node", "node"),
            (" peer_unit=a.service peer_comm=node", "a.service"),
            (" user=ann peer_unit=a", "ann"),
        ] {
            assert_eq!(TcpCloseRecord::from_line(&format!("{line}{rest}")).unwrap().owner(), owner);
        }
    }
}
