//! A real forwarder between dispatch and serve: its process is behind the socket, and says little
//! about serve.

use t3_record::{Cause::UpstreamClosed, ClosedBy, LegEnd, Segment, Verdict};

use super::{
    Expect, ExpectedRecord, Fault, Fixture, Need,
    upstream::{killed, own_names},
};
use crate::{
    error::Result,
    harness::{self, FORWARDER_COMM},
};

/// The forwarder is the process behind the socket; its cgroup is sampled since the first close.
fn forwarded(expected: ExpectedRecord) -> ExpectedRecord {
    ["psi_mem", "psi_io", "psi_cpu"]
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::AbsentOr(0, 100)))
        .is("peer_comm", FORWARDER_COMM)
        .key("peer_pid", Expect::Present)
}

pub(super) fn faults() -> Vec<Fault> {
    let names = own_names();
    let senders: Vec<_> = names.iter().map(String::as_str).collect();
    let left =
        ExpectedRecord::opened(Verdict::ServeLeft, Segment::Serve, UpstreamClosed, "fin", ClosedBy::Upstream)
            .ends(LegEnd::FinOut, LegEnd::FinIn)
            .is("peer_exit", "alive")
            .is("confidence", "likely");
    let faults = vec![
        // The forwarder lives and closes in its place.
        Fault::new("serve_sigkill_behind_forwarder", forwarded(left), |fx| {
            session(fx)?;
            fx.last_serve().process.signal(libc::SIGKILL)?;
            fx.wait_end()
        }),
        // Control: the forwarder itself is killed.
        Fault::new("forwarder_sigkill", forwarded(killed(9)).one_of("killed_by", &senders), |fx| {
            session(fx)?;
            fx.kill_forwarder()?;
            fx.wait_end()
        }),
    ];
    let needs: &'static [Need] = &[Need::Root, Need::Kernel, Need::Forwarder];
    faults.into_iter().map(|fault| fault.needs(needs)).collect()
}

/// A session through a forwarder, with nothing in flight.
fn session(fx: &mut Fixture<'_>) -> Result<()> {
    let port = harness::free_port()?;
    fx.serve_on(port, &[])?;
    fx.forward_to(port)?;
    fx.open(fx.config())?;
    fx.stop_heartbeat()
}
