//! A line that is slower than serve: heartbeat replies wait behind a large message.

use std::time::Duration;

use t3_record::{Cause::Graceful, ClosedBy, LegEnd, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::error::Result;

/// Bytes per second that the client reads.
const LINE: u64 = 300_000;
/// Bytes of a snapshot that the line needs longer for than a watchdog waits.
const SNAPSHOT: usize = 2_000_000;
/// Bytes of a snapshot after which the client is not closed yet.
const SMALL_SNAPSHOT: usize = 600_000;
/// Timeout of the client's watchdog.
const WATCHDOG: Duration = Duration::from_secs(4);
/// Heartbeats after which the slow line has recovered.
const RECOVERED: u64 = 5;

fn ended(verdict: Verdict, how: &str) -> ExpectedRecord {
    let expected = ExpectedRecord::opened(verdict, Segment::Downstream, Graceful, how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .close_frame("down", "1000", "")
        .ends(LegEnd::FinOut, LegEnd::FinIn);
    // Window probes of a receiver that is slower than its line.
    let loose = ["down_retrans", "down_unacked", "down_lost", "up_unacked"];
    loose.into_iter().fold(expected, |expected, key| expected.key(key, Expect::Free))
}

pub(super) fn faults() -> Vec<Fault> {
    vec![
        Fault::new(
            "slow_line",
            ended(Verdict::PathStalled, "backlog")
                .is("confidence", "likely")
                .key("up_queued", Expect::Range(100_000, SNAPSHOT as u64 * 2))
                // dispatch pauses reading from serve, whose replies wait behind the snapshot.
                .key("hb_wait_ms", Expect::Range(2_000, 4_500))
                .key("up_silent_ms", Expect::Range(3_000, 4_500)),
            |fx| {
                snapshot(fx, SNAPSHOT)?;
                std::thread::sleep(WATCHDOG);
                fx.client().close(Some(1000), "");
                // dispatch reads the Close frame before the rest of the snapshot is read.
                std::thread::sleep(super::PERIOD);
                fx.client().throttle(None);
                fx.wait_end()
            },
        )
        .needs(&[Need::RealCpus])
        .lane(4),
        Fault::new("slow_line_recovers", ended(Verdict::ClientClosed, "ws_close:1000"), |fx| {
            snapshot(fx, SMALL_SNAPSHOT)?;
            fx.client().heartbeats(RECOVERED)?;
            fx.client().throttle(None);
            fx.client().heartbeats(RECOVERED)?;
            fx.client().close(Some(1000), "");
            fx.wait_end()
        })
        .needs(&[Need::RealCpus])
        .lane(4),
    ]
}

/// A session over a slow line, to which serve sends one large message.
fn snapshot(fx: &mut Fixture<'_>, bytes: usize) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.receive_buffer = Some(64 << 10);
    fx.open(config)?;
    fx.client().throttle(Some(LINE));
    fx.last_serve().begin(&format!("flood {bytes}"))
}
