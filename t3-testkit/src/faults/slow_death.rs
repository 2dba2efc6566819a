//! Ends of serve that take time: a core dump, a socket that a child keeps open, and a stop by
//! request.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{
    Expect, ExpectedRecord, Fault, Fixture, Need,
    upstream::{closed, own_names},
};
use crate::error::Result;

/// Longer than a watchdog timeout at the heartbeat period of these tests.
const STALL: Duration = Duration::from_secs(4);
/// Order with which serve closes on request.
const CLOSE: &str = "close 1012 restart";
/// Time after which a user leaves a session whose serve has just died.
const SOON: Duration = Duration::from_millis(700);

/// Record of a client that gave up on a dead serve whose socket was still open.
fn dead(signal: i32) -> ExpectedRecord {
    let long = || Expect::Range(3_000, 60_000);
    ExpectedRecord::opened(
        Verdict::ServeKilled,
        Segment::Serve,
        DownstreamClosed,
        &format!("signal:{signal}"),
        ClosedBy::Downstream,
    )
    .is("peer_exit", &format!("sig:{signal}"))
    .close_frame("down", "1000", "")
    .ends(LegEnd::FinIn, LegEnd::FinOut)
    .key("hb_wait_ms", long())
    .key("up_idle_ms", long())
}

/// Record of a user who leaves meanwhile.
fn left(signal: i32) -> ExpectedRecord {
    ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        DownstreamClosed,
        "ws_close:1001",
        ClosedBy::Downstream,
    )
    .is("peer_exit", &format!("sig:{signal}"))
    .close_frame("down", "1001", "")
    .ends(LegEnd::FinIn, LegEnd::FinOut)
}

pub(super) fn faults() -> Vec<Fault> {
    let names = own_names();
    let senders: Vec<_> = names.iter().map(String::as_str).collect();
    let itself = || Expect::Begins("t3-serve-standi".to_owned());
    let by_request = |expected: ExpectedRecord| expected.one_of("killed_by", &senders);
    let dump: &'static [Need] = &[Need::Root, Need::Kernel, Need::CoreDump, Need::RealCpus];
    let child: &'static [Need] = &[Need::Kernel, Need::ServeChild];
    let faults = vec![
        Fault::new("serve_core_dump", dead(6).key("killed_by", itself()), |fx| {
            dumps_core(fx)?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            Ok(())
        })
        .needs(dump),
        Fault::new("serve_core_dump_left", left(6).key("killed_by", itself()), |fx| {
            dumps_core(fx)?;
            leave(fx)
        })
        .needs(dump),
        Fault::new("serve_sigkill_inherited", by_request(dead(9)), |fx| {
            killed_with_child(fx)?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            Ok(())
        })
        .needs(child),
        Fault::new("serve_sigkill_inherited_left", by_request(left(9)), |fx| {
            killed_with_child(fx)?;
            leave(fx)
        })
        .needs(child),
    ];
    // The close is an act of its own, however soon serve exits; the record names who requested it.
    let left = || {
        ExpectedRecord::opened(Verdict::ServeLeft, Segment::Serve, UpstreamClosed, "fin", ClosedBy::Upstream)
            .is("peer_exit", "alive")
            .ends(LegEnd::FinOut, LegEnd::FinIn)
    };
    let with = |expected: ExpectedRecord, signal: i32| {
        // Whether serve has exited when the record is written depends on the client.
        by_request(expected)
            .one_of("peer_exit", &["alive", "exit:0"])
            .key("chain", Expect::Begins(format!("up:peer_sig{signal}@")))
    };
    // serve reacts to the signal first; its last frame answered the client's last message.
    let closed = || closed("1012", "restart").key("up_silent_ms", Expect::Near("down_idle_ms", 50));
    let requested = [
        Fault::new("serve_sigterm_close_1012", with(closed(), 15), |fx| stops(fx, 15, 4_000, CLOSE)),
        Fault::new("serve_sigterm_close_1012_exit", with(closed(), 15), |fx| stops(fx, 15, 500, CLOSE)),
        Fault::new("serve_sigterm_fin", with(left(), 15), |fx| stops(fx, 15, 4_000, "fin")),
        Fault::new("serve_sigterm_fin_exit", with(left(), 15), |fx| stops(fx, 15, 500, "fin")),
        Fault::new("serve_sigint_close_1012", with(closed(), 2), |fx| stops(fx, 2, 500, CLOSE)),
        Fault::new("serve_sighup_fin", with(left(), 1), |fx| stops(fx, 1, 500, "fin")),
        // Control: it exits at the request, and its sockets end with it.
        Fault::new(
            "serve_sigterm_exits",
            by_request(left()).is("verdict", "serve_exited").is("how", "exit:0").is("peer_exit", "exit:0"),
            |fx| {
                fx.session()?;
                fx.order("graceful 0 mute")?;
                fx.stop_heartbeat()?;
                fx.last_serve().process.signal(libc::SIGTERM)?;
                fx.wait_end()
            },
        ),
    ];
    let faults = faults.into_iter().chain(requested.map(|fault| fault.needs(&[Need::Kernel])));
    faults.map(|fault| fault.lane(4)).collect()
}

/// serve gets SIGABRT, and its core dump takes longer than the fault.
fn dumps_core(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session()?;
    fx.order("dump")
}

/// serve is killed while a child holds the session's socket.
fn killed_with_child(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session()?;
    fx.order("inherit 20")?;
    fx.last_serve().process.signal(libc::SIGKILL)
}

/// The user closes the tab.
fn leave(fx: &Fixture<'_>) -> Result<()> {
    std::thread::sleep(SOON);
    fx.client().close(Some(1001), "");
    fx.client().drop_socket();
    Ok(())
}

/// serve ends the session on a signal, and exits so many milliseconds later.
fn stops(fx: &mut Fixture<'_>, signal: i32, exit_after: u64, order: &str) -> Result<()> {
    fx.session()?;
    fx.order(&format!("graceful {exit_after} {order}"))?;
    fx.stop_heartbeat()?;
    fx.last_serve().process.signal(signal)?;
    fx.wait_end()
}
