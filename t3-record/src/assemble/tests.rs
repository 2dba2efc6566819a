//! Complete records of some ends, as lines.

use crate::{
    assemble,
    evidence::*,
    verdict::evidence_builder::{END, EvidenceBuilder, MS, OPENED},
    vocabulary::{KernelSource, Side},
    wire::Session,
};

fn session() -> Session {
    Session {
        conn: "k3v9q0a1b2c3d".into(),
        user: "alice".into(),
        ip: "203.0.113.7".into(),
        ray: Some("8c1f0000abcd1234-LHR".into()),
        opened_at: Some(OPENED),
        down: None,
        up: None,
        serve_port: 3773,
    }
}

#[track_caller]
fn check(builder: EvidenceBuilder, expected: &str) {
    assert_eq!(assemble(&session(), &builder.0).to_line(), expected);
}

#[test]
fn a_killed_serve_with_everything_known() {
    let killed = EvidenceBuilder::healthy().rst(Side::Up, END).peer(Fate::Signal(9), END - MS).kernel(|k| {
        let peer = k.peer.as_mut().unwrap();
        peer.killer = Some(Task { pid: 77, comm: "bash".into() });
        peer.signalled_at = Some(END - 2 * MS);
        let stall = Stall { some: 3.04, full: Some(1.0), peak: 12.0, some30: 1.0 };
        k.pressure = Some(Pressure { mem: Some(stall), io: Some(stall), cpu: None });
        k.memory = Some(Memory { current: Some(1 << 30), max: None, oom_kills: Some(0), high_events: None });
        k.lost = 2;
    });
    check(
        killed,
        "ws close user=alice ip=203.0.113.7 dur_ms=60000 cause=upstream_closed verdict=serve_killed segment=serve \
         conn=k3v9q0a1b2c3d kernel=tracepoint how=signal:9 closed_by=upstream confidence=proven down_end=rst_out up_end=rst_in \
         up_bytes=1000 down_bytes=1000 up_msgs=10 down_msgs=10 up_idle_ms=100 down_idle_ms=100 hb_n=12 hb_rtt_ms=1 \
         hb_rtt_max_ms=2 hb_gap_ms=2000 hb_period_ms=5000 down_rtt_us=0 down_retrans=0 down_unacked=0 down_lost=0 up_rtt_us=0 \
         up_retrans=0 up_unacked=0 up_lost=0 peer_pid=4242 peer_comm=node peer_exit=sig:9 killed_by=bash[77] psi_mem=3.0 \
         psi_io=3.0 psi_mem_full=1.0 psi_io_full=1.0 psi_mem_peak=12.0 psi_io_peak=12.0 mem_current=1073741824 oom_kills=0 \
         self_lag_ms=1 chain=up:peer_sig9@-2,up:rst_in@0,down:rst_out@1 ray=8c1f0000abcd1234-LHR lost=2",
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut builder = EvidenceBuilder::healthy().no_kernel(KernelSource::Off).close(Side::Down, 1000, END);
    let relay = builder.0.relay.as_mut().unwrap();
    relay.heartbeat = None;
    relay.self_lag_ms = None;
    (relay.down.tcp, relay.up.tcp) = (None, None);
    check(
        builder,
        "ws close user=alice ip=203.0.113.7 dur_ms=60000 cause=downstream_closed verdict=client_closed segment=downstream \
         conn=k3v9q0a1b2c3d kernel=off how=ws_close:1000 closed_by=downstream confidence=proven ws_code=1000 ws_from=down \
         up_bytes=1000 down_bytes=1000 up_msgs=10 down_msgs=10 up_idle_ms=100 down_idle_ms=100 chain=down:close1000@0 \
         ray=8c1f0000abcd1234-LHR",
    );
}

#[test]
fn a_session_that_dispatch_left_behind() {
    let mut builder = EvidenceBuilder::healthy()
        .socket(Side::Down, |t| t.fin_out = Some(END))
        .socket(Side::Up, |t| t.rst_out = Some(END + MS));
    builder.0.relay = None;
    builder.0.dispatch_died = Some(DispatchDeath { fate: Some(Fate::Signal(9)), at: END });
    check(
        builder,
        "ws close user=alice ip=203.0.113.7 dur_ms=60000 cause=dispatch_closed verdict=dispatch_died segment=dispatch \
         conn=k3v9q0a1b2c3d kernel=tracepoint how=proxy_signal:9 closed_by=dispatch confidence=proven down_end=fin_out \
         up_end=rst_out peer_pid=4242 peer_comm=node peer_exit=alive chain=down:fin_out@0,up:rst_out@1 ray=8c1f0000abcd1234-LHR",
    );
}

#[test]
fn the_first_close_frame_is_recorded() {
    let mut builder = EvidenceBuilder::healthy().close(Side::Up, 1001, END).close(Side::Down, 1000, END + MS);
    builder.0.relay.as_mut().unwrap().up.close_frame.as_mut().unwrap().reason = "going \"away\"".into();
    let record = assemble(&session(), &builder.0);
    assert_eq!((record.ws_code, record.ws_from), (Some(1001), Some(Side::Up)));
    assert!(record.to_line().contains(r#" ws_reason="going \"away\"" "#), "{}", record.to_line());
}
