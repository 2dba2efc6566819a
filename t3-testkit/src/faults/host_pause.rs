//! Pauses of the whole host while a browser outside waits: by the monitor of a hypervisor, which
//! stops the clocks of the guest, and by not scheduling it.

use t3_record::{Cause::Graceful, ClosedBy, Segment, Verdict};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::{
    error::Result,
    outside::{self, Scene, Step},
};

/// Heartbeat period of t3's client, in milliseconds (facts: t3 client, "ping tick").
const PERIOD: u64 = 5_000;
/// Enough heartbeats to know their rhythm.
const BEATS: u64 = 6;
/// Longer than the watchdog, which closes at the second tick without a frame.
const PAUSE: u64 = 12_500;
const WATCHDOG: u64 = 10_000;
/// Shorter than the time to the next heartbeat.
const SHORT: u64 = 2_500;

fn healthy(code: &str) -> ExpectedRecord {
    let slow = || Expect::Range(0, 20_000);
    let expected = ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        Graceful,
        &format!("ws_close:{code}"),
        ClosedBy::Downstream,
    );
    ["up_idle_ms", "down_idle_ms", "hb_gap_ms", "up_silent_ms", "hb_rtt_max_ms", "hb_rtt_ms"]
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, slow()))
        .is("peer_exit", "alive")
        .close_frame("down", code, "")
        .key("hb_period_ms", Expect::Range(4_500, 5_500))
        .key("hb_wait_ms", Expect::AbsentOr(0, 20_000))
        .key("lag_ms", Expect::Free)
        // The client may be gone when the guest continues.
        .one_of("cause", &["downstream_closed", "graceful"])
        .one_of("down_end", &["fin_in", "fin_out", "rst_in"])
        .one_of("up_end", &["fin_out", "fin_in", "rst_out"])
}

fn paused() -> ExpectedRecord {
    healthy("1000")
        .is("verdict", Verdict::HostPaused.as_str())
        .is("how", "pause")
        .is("segment", Segment::Devvm.as_str())
        .is("confidence", "likely")
        // The hardware clock counts whole seconds.
        .key("pause_ms", Expect::Range(PAUSE - 2_000, PAUSE + 2_000))
}

pub(super) fn faults() -> Vec<Fault> {
    let faults = vec![
        Fault::new("host_paused", paused(), |fx| {
            scene(fx, &[Step::Stop(PAUSE), Step::Wait(WATCHDOG), Step::Close(1000), Step::Drop, Step::Run])
        }),
        Fault::new("host_not_scheduled", paused(), |fx| {
            let unscheduled = Step::Unscheduled(PAUSE);
            scene(fx, &[unscheduled, Step::Wait(WATCHDOG), Step::Close(1000), Step::Drop, Step::Run])
        }),
        // Controls. No watchdog closes with 1001.
        Fault::new(
            "host_paused_1001",
            healthy("1001")
                .is("confidence", "likely")
                .key("pause_ms", Expect::Range(PAUSE - 2_000, PAUSE + 2_000)),
            |fx| {
                scene(
                    fx,
                    &[Step::Stop(PAUSE), Step::Wait(WATCHDOG), Step::Close(1001), Step::Drop, Step::Run],
                )
            },
        ),
        // The pause ends before any watchdog, and the user closes.
        Fault::new(
            "host_paused_briefly",
            healthy("1000")
                .one_of("confidence", &["likely", "proven"])
                .key("pause_ms", Expect::AbsentOr(0, SHORT + 1_500)),
            |fx| scene(fx, &[Step::Stop(SHORT), Step::Run, Step::Wait(1_000), Step::Close(1000), Step::End]),
        ),
        // The session goes on after the pause.
        Fault::new("host_paused_before", healthy("1000"), |fx| {
            scene(fx, &[Step::Stop(PAUSE), Step::Run, Step::Beats(4), Step::Close(1000), Step::End])
        }),
    ];
    let needs: &'static [Need] = &[Need::Root, Need::Outside];
    faults.into_iter().map(|fault| fault.needs(needs).timeout(60)).collect()
}

/// Opens a session from outside with a known rhythm, and plays these steps after a heartbeat.
fn scene(fx: &mut Fixture<'_>, steps: &[Step]) -> Result<()> {
    fx.serve(&[])?;
    let (port, user) = (fx.stack.address.port(), fx.user.clone());
    let begin = [Step::Open { port, user, period: PERIOD }, Step::Beats(BEATS), Step::Wait(1_000)];
    outside::play(&Scene(begin.iter().chain(steps).cloned().collect()))
}
