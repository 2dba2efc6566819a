//! Faults of the edge proxy, with a real Traefik in front of dispatch.

use t3_record::{Cause::DownstreamClosed, ClosedBy, Segment, Verdict};

use super::{
    ExpectedRecord, Fault, Fixture, Need,
    edge_burst::{self, SESSIONS, USERS},
};
use crate::{client::TIMEOUT, error::Result, harness::Traefik};

/// End of a connection of a killed proxy: FIN if it had read everything, else RST.
const CUT: [&str; 2] = ["fin_in", "rst_in"];
const PASSED_ON: [&str; 2] = ["fin_out", "rst_out"];

pub(super) fn faults() -> Vec<Fault> {
    let all = || edge_burst::burst(SESSIONS, USERS).one_of("down_end", &CUT).one_of("up_end", &PASSED_ON);
    let one = ExpectedRecord::opened(
        Verdict::ClientLeft,
        Segment::Downstream,
        DownstreamClosed,
        "fin",
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .one_of("verdict", &["client_left", "client_reset"])
    .one_of("how", &["fin", "rst"])
    .one_of("down_end", &CUT)
    .one_of("up_end", &PASSED_ON);
    vec![
        Fault::new("traefik_killed", all(), |fx| through_traefik(fx, SESSIONS, USERS, libc::SIGKILL))
            .needs(&[Need::Traefik])
            .many(SESSIONS, USERS)
            .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        Fault::new("traefik_restarted", all(), |fx| through_traefik(fx, SESSIONS, USERS, libc::SIGTERM))
            .needs(&[Need::Traefik])
            .many(SESSIONS, USERS)
            .after(|fx| fx.one_burst(SESSIONS as u64, USERS as u64)),
        // With two sessions the cause is not distinguishable from two clients that closed.
        Fault::new("traefik_killed_for_two", one, |fx| through_traefik(fx, 2, 2, libc::SIGKILL))
            .needs(&[Need::Traefik])
            .many(2, 2)
            .after(|fx| fx.no_burst()),
    ]
}

fn through_traefik(fx: &mut Fixture<'_>, sessions: usize, users: usize, signal: i32) -> Result<()> {
    let mut traefik = Traefik::start(fx.stack.dir(), fx.stack.address)?;
    fx.open_many(sessions, users, traefik.address)?;
    fx.stop_heartbeats()?;
    traefik.process.signal(signal)?;
    traefik.process.wait(TIMEOUT)?;
    for number in 0..sessions {
        fx.nth(number).wait_end()?;
    }
    // Restarts, as systemd would do.
    traefik.start_again()
}
