//! Record of a connection that dispatch did not carry.

use super::{chain, kernel, ms};
use crate::{
    evidence::{DirectConnection, KernelFacts, Nanos},
    record::{CloseRecord, TcpCloseRecord},
    verdict::{direct, leg_end, outgoing},
    vocabulary::{Side, Via},
};

/// Creates the record of a connection that dispatch did not carry; `facts.serve` is its socket.
#[must_use]
pub fn assemble_direct(connection: &DirectConnection, facts: &KernelFacts) -> TcpCloseRecord {
    let (judgement, evidence) = if connection.is_outgoing {
        (outgoing::judge_outgoing(facts), outgoing::as_legs(facts))
    } else {
        (direct::judge_direct(facts), direct::as_legs(facts))
    };
    let ended_at = judgement.at.or_else(|| facts.serve.as_ref()?.closed);
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
    shared.down_end = leg_end(&evidence, Side::Down);
    shared.up_end = leg_end(&evidence, Side::Up);
    shared.chain = chain(&evidence);
    kernel(&mut shared, facts, ended_at.unwrap_or(Nanos::MAX));
    if let Some(counters) = connection.counters.filter(|_| connection.is_outgoing) {
        shared.down_bytes = Some(counters.acked);
        shared.up_bytes = Some(counters.received);
        shared.up_rtt_us = Some(counters.rtt_us).filter(|rtt| *rtt > 0);
        shared.up_retrans = Some(counters.total_retrans);
        shared.up_unacked = Some(counters.unacked);
        shared.up_lost = Some(counters.lost);
    } else if let Some(counters) = connection.counters {
        shared.up_bytes = Some(counters.acked);
        shared.down_bytes = Some(counters.received);
        shared.up_undelivered = Some(counters.unacked_bytes).filter(|bytes| *bytes > 0);
        // 0: no segment was ever measured.
        shared.down_rtt_us = Some(counters.rtt_us).filter(|rtt| *rtt > 0);
        shared.down_retrans = Some(counters.total_retrans);
        shared.down_unacked = Some(counters.unacked);
        shared.down_lost = Some(counters.lost);
    }
    record.outgoing = connection.is_outgoing.then_some(true);
    if connection.is_outgoing {
        // Of the process that connected: there is none behind the port on this host.
        record.client_pid = shared.peer_pid.take();
        record.client_comm = shared.peer_comm.take();
        record.client_exit = shared.peer_exit.take();
        record.client_unit.clone_from(&connection.unit);
    } else {
        record.peer_unit.clone_from(&connection.unit);
    }
    record.take_shared(shared);
    record.user.clone_from(&connection.user);
    record.dur_min = connection.is_older.then_some(true);
    if let Some(client) = &connection.client_process {
        record.client_pid = Some(client.pid);
        record.client_comm = Some(client.comm.clone());
    }
    record
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
