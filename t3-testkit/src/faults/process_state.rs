//! Processes whose state misleads: serve whose first thread has ended, and a dispatch that dies
//! after the end of a session has begun.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need, upstream::stalled};
use crate::{client::TIMEOUT, error::Result};

/// Longer than a watchdog timeout at the heartbeat period of these tests.
const STALL: Duration = Duration::from_secs(4);

fn ended(verdict: Verdict, how: &str, peer: &str) -> ExpectedRecord {
    ExpectedRecord::opened(verdict, Segment::Serve, UpstreamClosed, how, ClosedBy::Upstream)
        .is("peer_exit", peer)
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

pub(super) fn faults() -> Vec<Fault> {
    vec![
        // The process lives although /proc/PID/stat says Z.
        Fault::new("first_thread_gone_fin", ended(Verdict::ServeLeft, "fin", "alive"), |fx| {
            without_first_thread(fx)?;
            fx.stop_heartbeat()?;
            fx.order("fin")?;
            fx.wait_end()
        }),
        Fault::new("first_thread_gone_stalled", stalled(), |fx| {
            without_first_thread(fx)?;
            let busy = STALL.as_millis() * 3;
            fx.last_serve().begin(&format!("busy {busy}"))?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            Ok(())
        }),
        // Control: its end is the end of the last thread.
        Fault::new("first_thread_gone_exit", ended(Verdict::ServeExited, "exit:3", "exit:3"), |fx| {
            without_first_thread(fx)?;
            fx.stop_heartbeat()?;
            fx.order("exit 3")?;
            fx.wait_end()
        })
        .needs(&[Need::Kernel]),
        // The client's Close frame, and then the death of dispatch: t3-trace writes the record.
        Fault::new("dispatch_sigkill_after_close", closed_before_death(), |fx| {
            fx.session()?;
            fx.order("deaf")?;
            fx.client().close(Some(1001), "");
            // The facts are sent when the frame is read.
            std::thread::sleep(Duration::from_millis(500));
            fx.stack.signal_dispatch(libc::SIGKILL)?;
            if let Some(dispatch) = &mut fx.stack.dispatch {
                dispatch.wait(TIMEOUT)?;
            }
            fx.wait_end()
        })
        .needs(&[Need::Root, Need::Kernel])
        .own_stack(),
    ]
}

fn without_first_thread(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&["--first-thread-ends"])?;
    fx.open(fx.config())
}

fn closed_before_death() -> ExpectedRecord {
    let expected = ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        DownstreamClosed,
        "ws_close:1001",
        ClosedBy::Downstream,
    );
    // TCP_INFO is read at the end of the first leg, which dispatch did not live to see.
    let at_the_end = [
        "down_rtt_us",
        "up_rtt_us",
        "down_retrans",
        "down_unacked",
        "down_lost",
        "up_retrans",
        "up_unacked",
        "up_lost",
        "hb_wait_ms",
        "down_end",
        "up_end",
    ];
    at_the_end
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Free))
        .is("confidence", "likely")
        .is("peer_exit", "alive")
        .close_frame("down", "1001", "")
}
