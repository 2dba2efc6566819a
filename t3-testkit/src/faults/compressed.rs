//! Sessions with permessage-deflate: heartbeats cannot be read, and are recognised by size and
//! period.
//!
//! The faults of plain sessions again, with a client that compresses every message, as browsers do.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need, fixture::SURE_HEARTBEATS, upstream::stalled};
use crate::{client::Config, deflate::EXTENSION, error::Result};

/// Above the shortest period that is recognised (2 s).
const PERIOD: Duration = Duration::from_millis(2_100);
/// Answered heartbeats before a fault: the period is learned from four or five, and a verdict that
/// depends on it needs six to be proven.
const HEARTBEATS: u64 = 5;
/// Longer than two periods, so that two more pings are sent.
const STALL: Duration = Duration::from_millis(4_500);
/// Bytes that the buffers of all sockets on the path do not hold.
const FLOOD: usize = 64 << 20;

/// Expected values of a compressed session in place of those of a plain one.
fn compressed(expected: ExpectedRecord) -> ExpectedRecord {
    let within_a_period = || Expect::Range(0, 3_000);
    expected
        .is("ext", EXTENSION)
        .is("hb_by", "rhythm")
        .key("hb_n", Expect::Range(HEARTBEATS, 20))
        .key("hb_period_ms", Expect::Range(2_000, 2_300))
        .key("hb_gap_ms", within_a_period())
        .key("up_idle_ms", within_a_period())
        .key("down_idle_ms", within_a_period())
}

/// Record of a client whose watchdog fired.
fn gave_up() -> ExpectedRecord {
    compressed(stalled())
        .key("hb_n", Expect::Range(HEARTBEATS + 2, 20))
        .key("hb_wait_ms", Expect::Range(1_900, 60_000))
        .key("up_idle_ms", Expect::Range(3_500, 60_000))
}

fn closed(code: &str) -> ExpectedRecord {
    let how = format!("ws_close:{code}");
    compressed(ExpectedRecord::opened(
        Verdict::ClientClosed,
        Segment::Downstream,
        Graceful,
        &how,
        ClosedBy::Downstream,
    ))
    .is("peer_exit", "alive")
    .close_frame("down", code, "")
    .ends(LegEnd::FinOut, LegEnd::FinIn)
}

fn fault(name: &'static str, expected: ExpectedRecord, inject: fn(&mut Fixture<'_>) -> Result<()>) -> Fault {
    Fault::new(name, expected, inject).needs(&[Need::RealCpus]).lane(3)
}

/// Faults of plain sessions that are injected again into compressed ones, with their names there.
/// Those that need systemd are missing: guests have no CPUs on which a rhythm of seconds is stable.
pub(super) const TWINS: [(&str, &str); 18] = [
    ("deflate_lossy_link_heals", "client_lossy_link_heals"),
    ("deflate_lossy_snapshot", "client_lossy_snapshot"),
    ("deflate_zero_window_reset", "zero_window_reset"),
    ("deflate_zero_window_quiet", "zero_window_quiet"),
    ("deflate_zero_window_for_ever", "zero_window_for_ever"),
    ("deflate_zero_window_vanished", "zero_window_vanished"),
    ("deflate_slow_line", "slow_line"),
    ("deflate_slow_line_recovers", "slow_line_recovers"),
    ("deflate_core_dump", "serve_core_dump"),
    ("deflate_core_dump_left", "serve_core_dump_left"),
    ("deflate_sigkill_inherited", "serve_sigkill_inherited"),
    ("deflate_sigkill_inherited_left", "serve_sigkill_inherited_left"),
    ("deflate_stream_1001", "stream_without_pongs_1001"),
    ("deflate_first_thread_gone_stalled", "first_thread_gone_stalled"),
    ("deflate_dispatch_stalled", "dispatch_stalled"),
    ("deflate_dispatch_stopped_in_pieces", "dispatch_stopped_in_pieces"),
    ("deflate_dispatch_stopped_before", "dispatch_stopped_before"),
    ("deflate_own_link_flap_idle", "own_link_flap_idle"),
];

/// The same faults with compressed sessions.
pub(super) fn twins(plain: &[Fault]) -> Vec<Fault> {
    let twin = |(number, (name, of)): (usize, &(&'static str, &str))| {
        let fault = plain.iter().find(|fault| fault.name == *of)?.clone();
        let lane = if number % 2 == 0 { 5 } else { 6 };
        let unaffected = fault.unaffected.map(self::of);
        let expected = self::of(fault.expected);
        Some(Fault { name, expected, unaffected, is_compressed: true, lane: Some(lane), ..fault })
    };
    TWINS.iter().enumerate().filter_map(twin).collect()
}

/// Expected values of a compressed session of [`Fixture::period`] in place of those of a
/// plain one, whose last ping is later before a fault.
pub(super) fn of(mut expected: ExpectedRecord) -> ExpectedRecord {
    let plain_text = Some(&Expect::Is("text".to_owned()));
    if expected.of("hb_by") == plain_text {
        expected = expected.is("hb_by", "rhythm");
    }
    for key in ["hb_wait_ms", "up_idle_ms", "hb_gap_ms", "down_idle_ms"] {
        if let Some(Expect::Range(low @ 3_000.., high)) = expected.of(key).cloned() {
            expected = expected.key(key, Expect::Range(low - 1_500, high));
        }
    }
    expected
        .is("ext", EXTENSION)
        .key("hb_n", Expect::Range(SURE_HEARTBEATS - 1, 200))
        .key("hb_period_ms", Expect::Range(1_000, 1_300))
}

pub(super) fn faults() -> Vec<Fault> {
    vec![
        fault("deflate_close", closed("1000"), |fx| close(fx, 1000)),
        fault("deflate_close_1001", closed("1001"), |fx| close(fx, 1001)),
        // A user at work: messages at odd times, some of them as short as a ping.
        fault("deflate_chatty", closed("1000"), |fx| {
            session(fx, |_| ())?;
            // Enough that the other messages are few.
            fx.client().heartbeats(4)?;
            for (number, pause) in [700, 450, 900, 300, 1_150, 600].into_iter().enumerate() {
                std::thread::sleep(Duration::from_millis(pause));
                fx.client().text(&format!(r#"{{"_tag":"Request","id":"{number}","tag":"typed"}}"#));
            }
            fx.client().heartbeats(1)?;
            fx.client().close(Some(1000), "");
            fx.wait_end()
        }),
        fault("deflate_mute", gave_up().is("cause", "graceful").ends(LegEnd::FinOut, LegEnd::FinIn), |fx| {
            session(fx, |_| ())?;
            fx.order("mute")?;
            std::thread::sleep(STALL);
            fx.client().close(Some(1000), "");
            fx.wait_end()
        }),
        fault("deflate_busy", gave_up(), |fx| {
            session(fx, |_| ())?;
            let busy = STALL.as_millis() * 3;
            fx.last_serve().begin(&format!("busy {busy}"))?;
            give_up(fx)
        }),
        fault("deflate_sigstop", gave_up(), |fx| {
            session(fx, |_| ())?;
            fx.last_serve().process.signal(libc::SIGSTOP)?;
            give_up(fx)
        }),
        fault(
            "deflate_watchdog_path",
            closed("1000")
                .is("verdict", "path_stalled")
                .is("how", "heartbeat_lost")
                .is("confidence", "likely")
                .key("hb_gap_ms", Expect::Range(4_000, 60_000))
                .key("up_idle_ms", Expect::Range(4_000, 60_000))
                .key("hb_wait_ms", Expect::Absent),
            |fx| {
                session(fx, |_| ())?;
                fx.stop_heartbeat()?;
                std::thread::sleep(STALL);
                fx.client().close(Some(1000), "");
                fx.wait_end()
            },
        ),
        fault("deflate_zero_window", zero_window(), |fx| {
            session(fx, |config| config.receive_buffer = Some(4 << 10))?;
            fx.client().reading(false);
            fx.last_serve().begin(&format!("flood {FLOOD}"))?;
            give_up(fx)
        }),
        fault("deflate_frozen", gave_up(), |fx| {
            session(fx, |_| ())?;
            fx.cgroup()?.freeze(true)?;
            give_up(fx)
        })
        .needs(&[Need::Root, Need::CgroupV2, Need::RealCpus]),
    ]
}

fn zero_window() -> ExpectedRecord {
    let expected = compressed(ExpectedRecord::opened(
        Verdict::PathStalled,
        Segment::Downstream,
        DownstreamClosed,
        "zero_window",
        ClosedBy::Downstream,
    ));
    let loose = ["down_retrans", "down_unacked", "down_lost", "up_unacked", "hb_wait_ms", "down_idle_ms"];
    loose
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Free))
        .is("confidence", "likely")
        .is("peer_exit", "alive")
        .close_frame("down", "1000", "")
        .one_of("down_end", &["rst_in", "fin_in"])
        .one_of("up_end", &["rst_out", "fin_out"])
        // A message of this size is one frame, which never ended.
        .key("up_idle_ms", Expect::Range(2_000, 60_000))
        .key("up_silent_ms", Expect::Range(2_000, 60_000))
}

/// Opens a compressed session and waits until its period is known.
fn session(fx: &mut Fixture<'_>, change: impl FnOnce(&mut Config)) -> Result<()> {
    fx.serve(&["--deflate"])?;
    let mut config = fx.config();
    config.is_compressed = true;
    config.heartbeat = Some(PERIOD);
    change(&mut config);
    fx.open_with(config, HEARTBEATS)
}

fn close(fx: &mut Fixture<'_>, code: u16) -> Result<()> {
    session(fx, |_| ())?;
    fx.client().close(Some(code), "");
    fx.wait_end()
}

/// The client's watchdog fires after a stall.
fn give_up(fx: &Fixture<'_>) -> Result<()> {
    std::thread::sleep(STALL);
    fx.close_and_drop();
    Ok(())
}
