//! Watchdogs of t3's client by version, plain and compressed: a stall, frames without replies, the
//! false alarm of effect 4.0.2 to 4.0.4, and heartbeats that stop.

use std::time::Duration;

use t3_record::{Cause::Graceful, ClosedBy, LegEnd, Segment, Verdict};

use super::{
    Expect, ExpectedRecord, Fault, Fixture, Need, compressed, fixture::QUICK_PERIOD, upstream::stalled,
};
use crate::{
    client::{Client, TIMEOUT, Watchdog},
    error::Result,
};

const WATCHDOGS: [Watchdog; 4] =
    [Watchdog::Pongs(1), Watchdog::Pongs(3), Watchdog::Frames, Watchdog::FramesSincePing];

/// Names of the faults per watchdog: a stall, and frames without replies, each plain and
/// compressed.
const NAMES: [[&str; 4]; 4] = [
    [
        "watchdog_pong_stall",
        "deflate_watchdog_pong_stall",
        "watchdog_pong_stream",
        "deflate_watchdog_pong_stream",
    ],
    [
        "watchdog_three_pongs_stall",
        "deflate_watchdog_three_pongs_stall",
        "watchdog_three_pongs_stream",
        "deflate_watchdog_three_pongs_stream",
    ],
    [
        "watchdog_frames_stall",
        "deflate_watchdog_frames_stall",
        "watchdog_frames_stream",
        "deflate_watchdog_frames_stream",
    ],
    [
        "watchdog_since_ping_stall",
        "deflate_watchdog_since_ping_stall",
        "watchdog_since_ping_stream",
        "deflate_watchdog_since_ping_stream",
    ],
];

/// Period of the heartbeat: above the shortest watchdog.
const PERIOD: Duration = QUICK_PERIOD;
/// Delay of a tick: more than a frame takes from the edge to the page.
const LATE: Duration = Duration::from_millis(250);
/// Silence before a client closes for another reason than a ping.
const SILENCE: Duration = Duration::from_secs(30);

fn closed(how: &str, reason: &str) -> ExpectedRecord {
    ExpectedRecord::opened(Verdict::ClientClosed, Segment::Downstream, Graceful, how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .close_frame("down", "1000", reason)
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

/// Record of a watchdog that fired after so many unanswered pings.
fn fired(misses: u64) -> ExpectedRecord {
    let period = u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX);
    let waited = || Expect::Range(misses * period - 100, misses * period + 900);
    stalled()
        .key("hb_wait_ms", waited())
        .key("hb_gap_ms", Expect::Range(period - 100, period + 900))
        .key("up_idle_ms", Expect::Range(misses * period - 100, (misses + 1) * period + 900))
}

fn false_alarm() -> ExpectedRecord {
    closed("false_alarm", "")
        .is("confidence", "likely")
        .key("hb_wait_ms", Expect::Absent)
        .key("hb_gap_ms", Expect::Range(1_100, 2_000))
        .key("up_silent_ms", Expect::Range(1_050, 2_000))
        .key("up_idle_ms", Expect::Free)
}

pub(super) fn faults() -> Vec<Fault> {
    let mut faults = Vec::new();
    for (watchdog, [stall, deflate_stall, stream, deflate_stream]) in WATCHDOGS.into_iter().zip(NAMES) {
        let misses = if let Watchdog::Pongs(misses) = watchdog { misses } else { 1 };
        let inject: [fn(&mut Fixture<'_>) -> Result<()>; 2] = match watchdog {
            Watchdog::Pongs(1) => [stopped::<0>, streaming::<0>],
            Watchdog::Pongs(_) => [stopped::<1>, streaming::<1>],
            Watchdog::Frames => [stopped::<2>, streaming::<2>],
            Watchdog::FramesSincePing => [stopped::<3>, streaming::<3>],
        };
        // A client that counts only replies leaves; another stays, until its user leaves.
        let leaves = matches!(watchdog, Watchdog::Pongs(_));
        let unanswered = closed("ws_close:1000", "")
            .is("confidence", "likely")
            .key("hb_wait_ms", Expect::Range(1_000, 60_000));
        let stays = closed("ws_close:1001", "")
            .close_frame("down", "1001", "")
            .key("hb_wait_ms", Expect::Range(4_000, 60_000));
        let streamed = if leaves { unanswered } else { stays };
        for (plain, deflate, expected, inject) in
            [(stall, deflate_stall, fired(misses), inject[0]), (stream, deflate_stream, streamed, inject[1])]
        {
            let of_deflate = Fault::new(deflate, compressed::of(expected.clone()), inject);
            faults.push(Fault::new(plain, expected, inject));
            faults.push(Fault { is_compressed: true, ..of_deflate });
        }
    }
    faults.push(Fault::new("false_alarm", false_alarm(), late_tick));
    let deflate = Fault::new("deflate_false_alarm", compressed::of(false_alarm()), late_tick);
    faults.push(Fault { is_compressed: true, ..deflate });
    faults.extend([
        // Controls: a user who closes after a reply, and a stall that the same late tick ends.
        Fault::new("close_after_pong", closed("ws_close:1000", ""), |fx| {
            session(fx)?;
            fx.client().watchdog(Watchdog::Frames);
            fx.client().heartbeats(1)?;
            fx.client().close(Some(1000), "");
            fx.wait_end()
        }),
        Fault::new(
            "late_tick_stalled",
            fired(1)
                .key("hb_wait_ms", Expect::Range(1_200, 2_300))
                .key("hb_gap_ms", Expect::Range(1_200, 2_300))
                .key("up_idle_ms", Expect::Range(1_200, 3_000)),
            |fx| {
                session(fx)?;
                fx.last_serve().process.signal(libc::SIGSTOP)?;
                let pings = fx.client().seen().pings;
                fx.client().wait("an unanswered ping", TIMEOUT, |seen| seen.pings > pings)?;
                fx.client().watchdog(Watchdog::Frames);
                fx.client().delay_tick(LATE);
                gives_up(fx)
            },
        ),
        Fault::new(
            "heartbeat_stops",
            closed("ws_close:1000", "heartbeat timeout")
                .is("confidence", "likely")
                .key("hb_n", Expect::Range(1, 1))
                .key("hb_wait_ms", Expect::Absent)
                .key("hb_period_ms", Expect::Absent)
                .key("hb_gap_ms", Expect::Range(29_000, 32_000))
                .key("up_idle_ms", Expect::Range(29_000, 32_000)),
            |fx| {
                fx.serve(&[])?;
                let client = Client::connect(fx.config())?;
                client.heartbeats(1)?;
                fx.clients.push(client);
                fx.stop_heartbeat()?;
                std::thread::sleep(SILENCE);
                fx.client().close(Some(1000), "heartbeat timeout");
                fx.wait_end()
            },
        ),
    ]);
    let lane = |(number, fault): (usize, Fault)| {
        let lane = if number % 2 == 0 { 5 } else { 6 };
        fault.needs(&[Need::RealCpus]).lane(lane)
    };
    faults.into_iter().enumerate().map(lane).collect()
}

/// A session whose heartbeat is that of a compressed one, so that both have the same times.
fn session(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.heartbeat = Some(PERIOD);
    fx.open(config)
}

/// serve stops after a reply, and the watchdog fires.
fn stopped<const WATCHDOG: usize>(fx: &mut Fixture<'_>) -> Result<()> {
    session(fx)?;
    fx.client().watchdog(WATCHDOGS[WATCHDOG]);
    fx.client().heartbeats(1)?;
    fx.last_serve().process.signal(libc::SIGSTOP)?;
    gives_up(fx)
}

fn gives_up(fx: &Fixture<'_>) -> Result<()> {
    fx.client().wait_gave_up()?;
    std::thread::sleep(super::PERIOD);
    fx.client().drop_socket();
    Ok(())
}

/// serve sends frames and answers no ping.
fn streaming<const WATCHDOG: usize>(fx: &mut Fixture<'_>) -> Result<()> {
    session(fx)?;
    fx.order("mute")?;
    fx.order("stream 300")?;
    fx.client().watchdog(WATCHDOGS[WATCHDOG]);
    if matches!(WATCHDOGS[WATCHDOG], Watchdog::Pongs(_)) {
        fx.client().wait_gave_up()?;
    } else {
        std::thread::sleep(PERIOD * 5);
        fx.client().close(Some(1001), "");
    }
    fx.wait_end()
}

/// A tick of a healthy session is late.
fn late_tick(fx: &mut Fixture<'_>) -> Result<()> {
    session(fx)?;
    fx.client().watchdog(Watchdog::Frames);
    fx.client().heartbeats(1)?;
    fx.client().delay_tick(LATE);
    fx.client().wait_gave_up()?;
    fx.wait_end()
}
