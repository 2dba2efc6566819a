//! Real incidents as faults, with the diagnosis that each record must contain.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, edge_burst::untouched};
use crate::{
    client::{Client, TIMEOUT},
    error::Result,
};

/// One incident, the fault that replays it, and its diagnosis.
#[derive(Debug, Clone, Copy)]
pub struct Incident {
    /// Description for the table.
    pub what: &'static str,
    /// Name of the fault in the catalogue.
    pub fault: &'static str,
    /// `verdict` and `how` of the affected sessions.
    pub diagnosis: (&'static str, &'static str),
    pub segment: &'static str,
}

pub const INCIDENTS: [Incident; 6] = [
    incident(
        "memory and IO storm of the whole host, all watchdogs fire",
        "box_storm",
        ("serve_stalled", "stall"),
        "devvm",
    ),
    incident(
        "memory.high throttles serve until it is unresponsive",
        "memory_high",
        ("serve_stalled", "stall"),
        "devvm",
    ),
    incident("serve runs without its listener", "listener_gone", ("serve_refused", "refused"), "serve"),
    incident(
        "a restart of cloudflared cuts all sessions",
        "edge_restarted",
        ("edge_burst", "burst"),
        "downstream",
    ),
    incident("one of four tunnel connections is lost", "tunnel_lost", ("edge_burst", "burst"), "downstream"),
    incident(
        "a new version of serve rejects the session",
        "new_version_rejects",
        ("serve_rejected", "status:401"),
        "serve",
    ),
];

const fn incident(
    what: &'static str,
    fault: &'static str,
    diagnosis: (&'static str, &'static str),
    segment: &'static str,
) -> Incident {
    Incident { what, fault, diagnosis, segment }
}

/// Number of users and sessions in the storm.
const STORM: (usize, usize) = (3, 6);

/// Most of the 10 s over which PSI is averaged.
const STALL: Duration = Duration::from_secs(9);

fn unopened(verdict: Verdict, how: &str) -> ExpectedRecord {
    ExpectedRecord::unopened(verdict, Segment::Serve, UpstreamClosed, how, ClosedBy::Upstream)
        // The client receives a response, and its connection may stay open.
        .key("down_end", Expect::Free)
}

pub(super) fn faults() -> Vec<Fault> {
    let killed = ExpectedRecord::opened(
        Verdict::ServeKilled,
        Segment::Serve,
        UpstreamClosed,
        "signal:15",
        ClosedBy::Upstream,
    )
    .is("peer_exit", "sig:15")
    .key("killed_by", Expect::Present)
    .ends(LegEnd::FinOut, LegEnd::FinIn);
    vec![
        Fault::new("box_storm", storm(), |fx| {
            fx.open_many(STORM.1, STORM.0, fx.stack.address)?;
            for (_, serve) in &fx.serves {
                serve.begin(&format!("thrash {}", STALL.as_millis() * 2))?;
            }
            std::thread::sleep(STALL);
            // Every watchdog fires at its next tick; serve does not reply.
            for client in &fx.clients {
                client.close(Some(1000), "");
            }
            std::thread::sleep(super::PERIOD);
            fx.clients.iter().for_each(Client::drop_socket);
            Ok(())
        })
        .many(STORM.1, STORM.0)
        .needs(&[super::Need::Root, super::Need::Kernel, super::Need::CgroupV2])
        .alone(),
        Fault::new(
            "listener_gone",
            // The process is alive, so systemctl shows nothing to restart.
            unopened(Verdict::ServeRefused, "refused").is("up_end", "refused").key("peer_exit", Expect::Free),
            |fx| {
                fx.open_many(1, 1, fx.stack.address)?;
                fx.set_unaffected(0, 0);
                fx.order("unlisten")?;
                Client::refused(fx.config_of(0, 1, fx.stack.address))?;
                fx.nth(0).heartbeats(2)?;
                fx.nth(0).close(Some(1000), "");
                fx.nth(0).wait_end().map(drop)
            },
        )
        .many(2, 1)
        .unaffected(untouched()),
        Fault::new(
            "new_version_rejects",
            unopened(Verdict::ServeRejected, "status:401")
                .is("peer_exit", "alive")
                .one_of("up_end", &["fin_in", "fin_out", "rst_out", "none"]),
            |fx| {
                fx.open_many(1, 1, fx.stack.address)?;
                fx.set_unaffected(0, 0);
                fx.stop_heartbeats()?;
                fx.last_serve().process.signal(libc::SIGTERM)?;
                fx.last_serve().process.wait(TIMEOUT)?;
                fx.nth(0).wait_end()?;
                fx.serve(&["--opening", "status:401"])?;
                Client::refused(fx.config_of(0, 1, fx.stack.address)).map(drop)
            },
        )
        .many(2, 1)
        .needs(&[super::Need::Kernel])
        .unaffected(killed),
        // Another user's serve is killed at the same time: only that user's record shows it.
        Fault::new("neighbour_serve_killed", untouched(), neighbour)
            .many(2, 2)
            .needs(&[super::Need::Kernel])
            .unaffected(
                ExpectedRecord::opened(
                    Verdict::ServeKilled,
                    Segment::Serve,
                    UpstreamClosed,
                    "signal:9",
                    ClosedBy::Upstream,
                )
                .is("peer_exit", "sig:9")
                .key("killed_by", Expect::Present)
                .ends(LegEnd::FinOut, LegEnd::FinIn),
            ),
        // The kernel accepts connections for a stopped process; serve never responds.
        Fault::new(
            "serve_accepts_only",
            unopened(Verdict::ServeTimeout, "handshake_timeout")
                .is("peer_exit", "alive")
                .one_of("up_end", &["none", "fin_out", "rst_out"]),
            |fx| {
                fx.serve(&[])?;
                fx.last_serve().process.signal(libc::SIGSTOP)?;
                Client::refused(fx.config()).map(drop)
            },
        )
        .timeout(60),
    ]
}

fn neighbour(fx: &mut Fixture<'_>) -> Result<()> {
    fx.open_many(2, 2, fx.stack.address)?;
    fx.set_unaffected(1, 1);
    fx.stop_heartbeats()?;
    // The last serve is that of the second user.
    fx.last_serve().process.signal(libc::SIGKILL)?;
    fx.nth(0).close(Some(1000), "");
    fx.nth(0).wait_end()?;
    fx.nth(1).wait_end().map(drop)
}

fn storm() -> ExpectedRecord {
    let long = || Expect::Range(3_000, 60_000);
    ExpectedRecord::opened(
        Verdict::ServeStalled,
        Segment::Devvm,
        DownstreamClosed,
        "stall",
        ClosedBy::Downstream,
    )
    .is("peer_exit", "alive")
    .close_frame("down", "1000", "")
    .ends(LegEnd::FinIn, LegEnd::FinOut)
    .key("psi_io", Expect::Range(50, 100))
    .key("hb_wait_ms", long())
    .key("up_idle_ms", long())
}
