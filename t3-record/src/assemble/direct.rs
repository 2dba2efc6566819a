//! Record of a connection that dispatch did not carry.

use std::net::SocketAddr;

use super::{chain, kernel, ms};
use crate::{
    evidence::{
        CloseFrames, Counters, DirectConnection, Evidence, KernelFacts, Nanos, PairFacts, SocketFacts,
        UpstreamConnection,
    },
    record::{CloseRecord, TcpCloseRecord},
    verdict::{
        Judgement,
        direct::{self, PairJudgement},
        leg_end, outgoing,
    },
    vocabulary::{Actor, Confidence, Side, Verdict, Via},
};

/// Creates the record of a connection that dispatch did not carry; `facts.serve` is its socket.
#[must_use]
pub fn assemble_direct(connection: &DirectConnection, facts: &KernelFacts) -> TcpCloseRecord {
    let frames = connection.close_frames.as_ref();
    let (mut judgement, evidence) = if connection.is_outgoing {
        (outgoing::judge_outgoing(facts), outgoing::as_legs(facts))
    } else {
        (direct::judge_direct(facts, frames), direct::as_legs(facts, frames))
    };
    if connection.is_proxy && judgement.verdict == Verdict::ServeClosed {
        judgement.confidence = Confidence::Likely;
    }
    let socket = connection.counters.as_ref();
    let (down, up) = if connection.is_outgoing { (None, socket) } else { (socket, None) };
    let mut record = record(connection, (&judgement, &evidence), facts, facts.serve.as_ref(), (down, up));
    if connection.is_outgoing {
        record.outgoing = Some(true);
        // Of the process that connected: there is none behind the port on this host.
        record.client_pid = record.peer_pid.take();
        record.client_comm = record.peer_comm.take();
        record.client_exit = record.peer_exit.take();
        record.client_unit = record.peer_unit.take();
        if let Some(counters) = socket {
            record.down_bytes = Some(counters.acked);
            record.up_bytes = Some(counters.received);
        }
        record.down_undelivered = None;
    }
    record
}

/// Creates the record of a session of a proxy: of the connection that it accepted and the one that
/// it opened.
#[must_use]
pub fn assemble_pair(
    connection: &DirectConnection,
    upstream: &UpstreamConnection,
    pair: &PairFacts,
) -> TcpCloseRecord {
    let PairJudgement { judgement, actor, evidence } =
        direct::judge_pair(pair, connection.close_frames.as_ref());
    let mut record = record(
        connection,
        (&judgement, &evidence),
        &evidence.kernel,
        Some(&pair.down),
        (connection.counters.as_ref(), upstream.counters.as_ref()),
    );
    record.actor = actor;
    let text = |at: SocketAddr| Some(SocketAddr::new(at.ip().to_canonical(), at.port()).to_string());
    record.up_addr = text(upstream.address);
    record.up_from = text(upstream.from);
    if let Some(proxy) = &upstream.proxy {
        record.proxy_pid = Some(proxy.pid);
        record.proxy_comm = Some(proxy.comm.clone());
    }
    record.proxy_unit.clone_from(&upstream.proxy_unit);
    if actor != Some(Actor::Proxy) {
        record.peer_unit.clone_from(&upstream.unit);
    }
    record
}

fn record(
    connection: &DirectConnection,
    (judgement, evidence): (&Judgement, &Evidence),
    facts: &KernelFacts,
    socket: Option<&SocketFacts>,
    (down, up): (Option<&Counters>, Option<&Counters>),
) -> TcpCloseRecord {
    let ended_at = judgement.at.or_else(|| socket?.closed);
    let ip = connection.client.ip().to_canonical().to_string();
    let dur_ms = ended_at.map_or(0, |ended| ms(ended.saturating_sub(connection.opened_at)));
    let mut record = TcpCloseRecord::new(
        ip.clone(),
        dur_ms,
        judgement.cause,
        judgement.verdict,
        judgement.segment,
        connection.conn.clone(),
        connection.port,
        Via::Direct,
        facts.source,
    );
    let mut shared = CloseRecord::new(
        String::new(),
        ip,
        dur_ms,
        judgement.cause,
        judgement.verdict,
        judgement.segment,
        connection.conn.clone(),
        facts.source,
    );
    shared.how = judgement.how;
    shared.closed_by = judgement.closed_by;
    shared.confidence = Some(judgement.confidence);
    shared.down_end = leg_end(evidence, Side::Down);
    shared.up_end = leg_end(evidence, Side::Up);
    shared.chain = chain(evidence);
    kernel(&mut shared, facts, ended_at.unwrap_or(Nanos::MAX));
    counters(&mut shared, down, up);
    if let Some((side, (_, code))) = connection.close_frames.as_ref().and_then(CloseFrames::first) {
        shared.ws_from = Some(side);
        shared.ws_code = code;
    }
    record.take_shared(shared);
    record.user.clone_from(&connection.user);
    record.peer_unit.clone_from(&connection.unit);
    record.dur_min = connection.is_older.then_some(true);
    if let Some(client) = &connection.client_process {
        record.client_pid = Some(client.pid);
        record.client_comm = Some(client.comm.clone());
    }
    record
}

fn counters(record: &mut CloseRecord, down: Option<&Counters>, up: Option<&Counters>) {
    // 0: no segment was ever measured.
    let rtt = |counters: &Counters| Some(counters.rtt_us).filter(|rtt| *rtt > 0);
    let undelivered = |counters: &Counters| Some(counters.unacked_bytes).filter(|bytes| *bytes > 0);
    if let Some(down) = down {
        record.up_bytes = Some(down.acked);
        record.down_bytes = Some(down.received);
        record.up_undelivered = undelivered(down);
        record.down_rtt_us = rtt(down);
        record.down_retrans = Some(down.total_retrans);
        record.down_unacked = Some(down.unacked);
        record.down_lost = Some(down.lost);
    }
    if let Some(up) = up {
        record.down_undelivered = undelivered(up);
        record.up_rtt_us = rtt(up);
        record.up_retrans = Some(up.total_retrans);
        record.up_unacked = Some(up.unacked);
        record.up_lost = Some(up.lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::{Counters, Fate, Pressure, Process, SocketFacts, Stall, Task},
        verdict::evidence_builder::{END, MS, OPENED},
        vocabulary::KernelSource,
    };

    fn connection() -> DirectConnection {
        DirectConnection {
            conn: "d4k3v9q0a1b2c".into(),
            user: None,
            unit: None,
            client: "[::ffff:203.0.113.7]:51000".parse().unwrap(),
            port: 8080,
            opened_at: OPENED,
            is_older: false,
            client_process: None,
            counters: None,
            is_outgoing: false,
            is_proxy: false,
            close_frames: None,
        }
    }

    fn killed() -> KernelFacts {
        let node = Task { pid: 4242, comm: "node".into() };
        let process = Process {
            ended_at: Some(END - MS),
            signalled_at: Some(END - 2 * MS),
            killer: Some(Task { pid: 77, comm: "bash".into() }),
            ..Process::new(node.clone(), Fate::Signal(9))
        };
        let stall = Stall { some: 3.04, full: Some(1.0), peak: 12.0, some30: 1.0 };
        KernelFacts {
            serve: Some(SocketFacts {
                rst_out: Some(END),
                closed: Some(END),
                closer: Some(node),
                rst_reason: Some("tcp_abort_on_close".into()),
                ..SocketFacts::default()
            }),
            peer: Some(process),
            pressure: Some(Pressure { mem: Some(stall), io: None, cpu: None }),
            ..KernelFacts::absent(KernelSource::Tracepoint)
        }
    }

    #[test]
    fn a_killed_server_with_all_that_is_known() {
        let counters = Counters {
            acked: 918_231,
            unacked_bytes: 12,
            received: 20_114,
            rtt_us: 412,
            total_retrans: 2,
            unacked: 1,
            lost: 0,
        };
        let known = DirectConnection {
            user: Some("wizard".into()),
            unit: Some("t3-serve@wizard.service".into()),
            client_process: Some(Task { pid: 881, comm: "nginx".into() }),
            counters: Some(counters),
            ..connection()
        };
        assert_eq!(
            assemble_direct(&known, &killed()).to_line(),
            "tcp close ip=203.0.113.7 dur_ms=60000 cause=upstream_closed verdict=serve_killed segment=serve \
             conn=d4k3v9q0a1b2c port=8080 via=direct kernel=tracepoint how=signal:9 closed_by=upstream \
             confidence=proven user=wizard peer_unit=t3-serve@wizard.service up_end=rst_in up_bytes=918231 \
             down_bytes=20114 up_undelivered=12 down_rtt_us=412 down_retrans=2 down_unacked=1 down_lost=0 \
             rst_reason=tcp_abort_on_close peer_pid=4242 peer_comm=node peer_exit=sig:9 killed_by=bash[77] \
             client_pid=881 client_comm=nginx psi_mem=3.0 psi_mem_full=1.0 psi_mem_peak=12.0 \
             chain=up:peer_sig9@-2,up:rst_in@0"
        );
    }

    #[test]
    fn a_pair_has_both_legs_and_the_proxy() {
        let counters = |acked, received, unacked_bytes| Counters {
            acked,
            received,
            unacked_bytes,
            rtt_us: 9,
            ..Counters::default()
        };
        let nginx = Task { pid: 881, comm: "nginx".into() };
        let connection = DirectConnection {
            unit: Some("nginx.service".into()),
            counters: Some(counters(918_231, 20_114, 0)),
            ..connection()
        };
        let upstream = UpstreamConnection {
            address: "[::ffff:127.0.0.1]:3773".parse().unwrap(),
            from: "127.0.0.1:51001".parse().unwrap(),
            proxy: Some(nginx.clone()),
            proxy_unit: Some("nginx.service".into()),
            unit: Some("serve.service".into()),
            counters: Some(counters(20_400, 918_200, 3)),
        };
        let upstream_facts = killed();
        let mut pair = PairFacts {
            down: SocketFacts {
                fin_in: Some(END + 4 * MS),
                fin_out: Some(END + 2 * MS),
                closer: Some(nginx.clone()),
                ..SocketFacts::default()
            },
            up: SocketFacts { rst_in: Some(END + MS), ..SocketFacts::default() },
            proxy: KernelFacts {
                peer: Some(Process::new(nginx, Fate::Alive)),
                ..KernelFacts::absent(KernelSource::Tracepoint)
            },
            upstream: Some(upstream_facts),
        };
        assert_eq!(
            assemble_pair(&connection, &upstream, &pair).to_line(),
            "tcp close ip=203.0.113.7 dur_ms=60001 cause=upstream_closed verdict=serve_killed segment=serve \
             conn=d4k3v9q0a1b2c port=8080 via=direct kernel=tracepoint how=signal:9 closed_by=upstream \
             confidence=proven peer_unit=serve.service actor=upstream up_addr=127.0.0.1:3773 \
             up_from=127.0.0.1:51001 proxy_pid=881 proxy_comm=nginx proxy_unit=nginx.service down_end=fin_out up_end=rst_in up_bytes=918231 \
             down_bytes=20114 down_undelivered=3 down_rtt_us=9 down_retrans=0 down_unacked=0 down_lost=0 \
             up_rtt_us=9 up_retrans=0 up_unacked=0 up_lost=0 rst_reason=tcp_abort_on_close peer_pid=4242 \
             peer_comm=node peer_exit=sig:9 killed_by=bash[77] psi_mem=3.0 psi_mem_full=1.0 \
             psi_mem_peak=12.0 chain=up:peer_sig9@-3,up:rst_in@0,down:fin_out@1,down:fin_in@3"
        );
        // The proxy acted: it is the process behind the port.
        pair.up =
            SocketFacts { fin_out: Some(END + 2 * MS), fin_in: Some(END + 3 * MS), ..SocketFacts::default() };
        let line = assemble_pair(&connection, &upstream, &pair).to_line();
        for part in [
            "verdict=serve_left",
            "actor=proxy",
            "peer_unit=nginx.service",
            "peer_comm=nginx",
            "up_end=fin_out",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("closed_by"), "{line}");
    }

    #[test]
    fn an_outgoing_connection_has_its_process_as_the_client() {
        let counters =
            Counters { acked: 918, received: 20_114, rtt_us: 412, total_retrans: 2, ..Counters::default() };
        let tunnel = DirectConnection {
            unit: Some("cloudflared.service".into()),
            client: "198.51.100.7:7844".parse().unwrap(),
            port: 7844,
            counters: Some(counters),
            is_outgoing: true,
            ..connection()
        };
        let task = Task { pid: 881, comm: "cloudflared".into() };
        let facts = KernelFacts {
            serve: Some(SocketFacts { rst_in: Some(END), ..SocketFacts::default() }),
            peer: Some(Process::new(task, Fate::Alive)),
            ..KernelFacts::absent(KernelSource::Tracepoint)
        };
        assert_eq!(
            assemble_direct(&tunnel, &facts).to_line(),
            "tcp close ip=198.51.100.7 dur_ms=60000 cause=upstream_closed verdict=serve_reset segment=serve \
             conn=d4k3v9q0a1b2c port=7844 via=direct kernel=tracepoint how=rst closed_by=upstream \
             confidence=likely outgoing=true up_end=rst_in up_bytes=20114 down_bytes=918 up_rtt_us=412 \
             up_retrans=2 up_unacked=0 up_lost=0 client_pid=881 client_comm=cloudflared client_exit=alive \
             client_unit=cloudflared.service chain=up:rst_in@0"
        );
    }

    #[test]
    fn a_close_frame_that_a_proxy_sent_can_be_of_its_upstream() {
        let frames = CloseFrames {
            sent: Some((END - MS, Some(1012))),
            is_read_complete: true,
            is_sent_complete: true,
            ..CloseFrames::default()
        };
        let facts = KernelFacts {
            serve: Some(SocketFacts { fin_out: Some(END), ..SocketFacts::default() }),
            peer: Some(Process::new(Task { pid: 881, comm: "nginx".into() }, Fate::Alive)),
            ..KernelFacts::absent(KernelSource::Kprobe)
        };
        let serve = DirectConnection { close_frames: Some(frames), ..connection() };
        let proxy = DirectConnection { is_proxy: true, ..serve.clone() };
        let judged = |connection| {
            let record = assemble_direct(connection, &facts);
            (record.verdict, record.ws_code, record.confidence)
        };
        assert_eq!(judged(&serve), (Verdict::ServeClosed, Some(1012), Some(Confidence::Proven)));
        assert_eq!(judged(&proxy), (Verdict::ServeClosed, Some(1012), Some(Confidence::Likely)));
    }

    #[test]
    fn unknown_values_are_omitted() {
        let facts = KernelFacts {
            serve: Some(SocketFacts {
                fin_in: Some(END),
                fin_out: Some(END + 3 * MS),
                ..SocketFacts::default()
            }),
            ..KernelFacts::absent(KernelSource::Tracepoint)
        };
        let older = DirectConnection { is_older: true, ..connection() };
        assert_eq!(
            assemble_direct(&older, &facts).to_line(),
            "tcp close ip=203.0.113.7 dur_ms=60000 cause=downstream_closed verdict=client_left \
             segment=downstream conn=d4k3v9q0a1b2c port=8080 via=direct kernel=tracepoint how=fin \
             closed_by=downstream confidence=likely dur_min=true down_end=fin_in up_end=fin_in \
             chain=down:fin_in@0,up:fin_in@3"
        );
    }
}
