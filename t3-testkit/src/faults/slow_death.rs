//! Ends of serve that take time: a core dump, a socket that a child keeps open, and a stop by
//! request.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{
    Expect, ExpectedRecord, Fault, Fixture, Need,
    upstream::{closed, own_names},
};
use crate::error::Result;

/// Longer than a watchdog timeout at the heartbeat period of these tests.
const STALL: Duration = Duration::from_secs(4);
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
        // The record is written before serve exits, and names who requested it.
        Fault::new("serve_sigterm_close_1012", by_request(closed("1012", "restart")), |fx| stops(fx, 4_000))
            .needs(&[Need::Kernel]),
        Fault::new(
            "serve_sigterm_close_1012_exit",
            by_request(closed("1012", "restart"))
                .one_of("verdict", &["serve_closed", "serve_exited"])
                .one_of("how", &["ws_close:1012", "exit:0"])
                .one_of("peer_exit", &["alive", "exit:0"])
                .is("cause", Graceful.as_str()),
            |fx| stops(fx, 500),
        )
        .needs(&[Need::Kernel]),
    ];
    faults.into_iter().map(|fault| fault.lane(4)).collect()
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

/// serve sends Close 1012 on SIGTERM, and exits so many milliseconds later.
fn stops(fx: &mut Fixture<'_>, exit_after: u64) -> Result<()> {
    fx.session()?;
    fx.order(&format!("graceful {exit_after}"))?;
    fx.stop_heartbeat()?;
    fx.last_serve().process.signal(libc::SIGTERM)?;
    fx.wait_end()
}
