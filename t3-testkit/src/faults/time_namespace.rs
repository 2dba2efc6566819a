//! dispatch in a time namespace, whose CLOCK_MONOTONIC is not that of the kernel's events.

use t3_record::{
    Cause::{Graceful, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Need, upstream::own_names};

/// A day ahead of the host.
const AHEAD: [&str; 6] = ["unshare", "--time", "--monotonic", "86400", "--boottime", "86400"];

pub(super) fn faults() -> Vec<Fault> {
    let names = own_names();
    let senders: Vec<_> = names.iter().map(String::as_str).collect();
    let needs: &'static [Need] = &[Need::Root, Need::Kernel, Need::TimeNamespace];
    let closed = ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        Graceful,
        "ws_close:1000",
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .close_frame("down", "1000", "")
    .ends(LegEnd::FinOut, LegEnd::FinIn)
    .key("chain", Expect::Begins("down:close1000@0".to_owned()));
    let killed = ExpectedRecord::opened(
        Verdict::ServeKilled,
        Segment::Serve,
        UpstreamClosed,
        "signal:9",
        ClosedBy::Upstream,
    )
    .is("peer_exit", "sig:9")
    .one_of("killed_by", &senders)
    .ends(LegEnd::FinOut, LegEnd::FinIn);
    vec![
        Fault::new("time_namespace_client_close", closed, |fx| {
            fx.session()?;
            fx.client().close(Some(1000), "");
            fx.wait_end()
        })
        .needs(needs)
        .prefix(&AHEAD),
        Fault::new("time_namespace_serve_killed", killed, |fx| {
            fx.session()?;
            fx.stop_heartbeat()?;
            fx.last_serve().process.signal(libc::SIGKILL)?;
            fx.wait_end()
        })
        .needs(needs)
        .prefix(&AHEAD),
    ]
}
