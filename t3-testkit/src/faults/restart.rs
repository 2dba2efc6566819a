//! Restarts and crashes of a dispatch that keeps its sessions in a descriptor store, under a
//! keeper: each at the moment of another fault, whose verdict must not change.

use std::time::Duration;

use rustix::fs::SealFlags;
use t3_record::{Cause::DownstreamClosed, ClosedBy, LegEnd, Segment, Verdict};

use super::{
    Expect, ExpectedRecord, Fault, Fixture, Need, PERIOD, dispatch, downstream,
    edge_burst::untouched,
    upstream::{self, stalled},
    zero_window,
};
use crate::{
    client::{TIMEOUT, Watchdog},
    error::{Attempt as _, Result, TestError},
    frame::{self, opcode},
    restart::{copy, file},
    wait,
};

/// Stored descriptors beside those of sessions: the state, with this name.
const STATE: &str = "state";
/// Stored descriptors of one session.
const LEGS: usize = 2;
/// `FileDescriptorStoreMax=` for one session, and for more than any fault here opens.
const ROOM_FOR_ONE: usize = 1 + LEGS;
const ROOM_FOR_TWO: usize = 1 + 2 * LEGS;
const ROOM: usize = 64;

/// Place of the version in the state, 32 bits (t3-dispatch/src/fd_store/layout.rs).
const VERSION: usize = 8;

/// Bytes of a message that is cut by a restart; serve returns it.
const CUT: usize = 50_000;
/// Bytes of a message that is written only in part, because its client does not read.
const FLOOD: usize = 1 << 20;
/// A byte of it (`flood` of the fake serve).
const FLOOD_BYTE: u8 = 0x55;

/// Time without dispatch that a client does not notice; one that a client with the heartbeat of
/// these tests does not tolerate; and one that no client does. t3-trace waits for the next process
/// for 15 s.
const SHORT_GAP: Duration = Duration::from_millis(300);
const LONG_GAP: Duration = Duration::from_secs(6);
const LONGEST_GAP: Duration = Duration::from_secs(25);

/// Time after which a second record of a session would be in the journal: t3-dispatch waits up to
/// 3 s for t3-trace (t3-dispatch/src/record/not_resumed.rs).
const SETTLED: Duration = Duration::from_secs(4);

/// Heartbeat period of a client that tolerates a restart on a busy host, and half of a stall that
/// it does not: two of its pings are unanswered. The restart is in the middle.
const PATIENT: Duration = Duration::from_secs(2);
const HALF_STALL: Duration = Duration::from_millis(4_500);
/// Time after which a short message is relayed.
const RELAYED: Duration = Duration::from_millis(50);
/// Time after which a stall or a restart that has ended is not the cause, however long it was:
/// longer than its effects last (t3-record/src/verdict/disturbance.rs).
const RECOVERED: Duration = Duration::from_millis(2_400);

/// Record of a session that was continued once.
fn resumed(expected: ExpectedRecord) -> ExpectedRecord {
    expected
        .is("resumed", "1")
        .key("resumed_ms", Expect::Range(0, 30_000))
        // The time without dispatch, until the first act.
        .key("lag_ms", Expect::AbsentOr(1, 10_000))
}

/// A client that closes with 1001.
fn page_left() -> ExpectedRecord {
    untouched().is("how", "ws_close:1001").close_frame("down", "1001", "")
}

/// The stall of serve, whose socket still replies to the Close frame.
fn mute() -> ExpectedRecord {
    stalled().is("cause", "graceful").ends(LegEnd::FinOut, LegEnd::FinIn)
}

/// A stall of serve over a restart, in a session of [`patient_session`]; the first ping waited for
/// at least so many milliseconds.
fn waited(expected: ExpectedRecord, least_ms: u64) -> ExpectedRecord {
    resumed(expected)
        .key("hb_wait_ms", Expect::Range(least_ms, 20_000))
        .key("up_idle_ms", Expect::Range(least_ms, 20_000))
        .key("hb_gap_ms", Expect::Range(0, 4_000))
        .key("hb_period_ms", Expect::Range(1_500, 2_500))
}

/// The same over a crash, which takes longer than a planned restart.
fn crash_in(expected: ExpectedRecord, least_ms: u64) -> ExpectedRecord {
    waited(expected, least_ms).one_of("confidence", &["proven", "likely"])
}

/// A restart that was longer than the client waited.
fn outlasted(gap: Duration) -> ExpectedRecord {
    let gap_ms = u64::try_from(gap.as_millis()).unwrap_or_default();
    let lag = || Expect::Range(gap_ms - 200, gap_ms + 20_000);
    let expected = ExpectedRecord::opened(
        Verdict::DispatchStalled,
        Segment::Dispatch,
        DownstreamClosed,
        "stall",
        ClosedBy::Downstream,
    )
    .is("confidence", "likely")
    .is("peer_exit", "alive")
    .close_frame("down", "1000", "")
    // The next process forwards the Close frame, and serve replies.
    .is("cause", "graceful")
    .ends(LegEnd::FinOut, LegEnd::FinIn);
    ["hb_gap_ms", "hb_wait_ms", "hb_rtt_ms", "hb_rtt_max_ms", "up_idle_ms", "up_silent_ms", "down_idle_ms"]
        .into_iter()
        .fold(resumed(expected), |expected, key| expected.key(key, Expect::Free))
        .key("lag_ms", lag())
        .key("self_lag_ms", lag())
}

/// A session whose state was refused: t3-trace writes its record, when the next process has
/// started. If that takes long, the record has the time of the end.
fn refused() -> ExpectedRecord {
    dispatch::killed(libc::SIGKILL).key("reconciled", Expect::Free).key("ended_at", Expect::Free)
}

/// Faults in which a client waits: a slow restart would be longer than its watchdog.
const WAITING: [&str; 5] = [
    "crash_partial_write_unread",
    "serve_mute_over_restart",
    "serve_mute_over_crash",
    "serve_mute_until_crash",
    "serve_busy_until_crash",
];

pub(super) fn faults() -> Vec<Fault> {
    let names = upstream::own_names();
    let senders: Vec<_> = names.iter().map(String::as_str).collect();
    let serve_left = || upstream::fin(Verdict::ServeLeft, "half_close", "alive");
    let client_left = |how| downstream::left(Verdict::ClientLeft, how).ends(LegEnd::FinIn, LegEnd::FinOut);
    let unread = zero_window::gave_up()
        .close_frame("down", "1000", "")
        // serve has handed over its message, and replies to the Close frame.
        .one_of("cause", &["downstream_closed", "graceful"])
        .one_of("down_end", &["rst_in", "fin_in"])
        .one_of("up_end", &["rst_out", "fin_out", "fin_in"]);
    let of_crash = |expected: ExpectedRecord| {
        let keys = ["hb_gap_ms", "hb_wait_ms", "hb_rtt_max_ms", "hb_period_ms"];
        keys.into_iter().fold(resumed(expected), |expected, key| expected.key(key, Expect::Free))
    };
    let of_flood = |expected: ExpectedRecord| {
        let keys = ["down_retrans", "down_unacked", "down_lost", "up_unacked", "down_idle_ms"];
        keys.into_iter().fold(of_crash(expected), |expected, key| expected.key(key, Expect::Free))
    };
    let faults = vec![
        Fault::new("restart_mid_frame", resumed(page_left()), |fx| cut_frame(fx, planned)),
        // Control: nothing is restarted.
        Fault::new("restart_mid_frame_without", page_left(), |fx| cut_frame(fx, |_| Ok(()))),
        Fault::new("restart_leg_closing", resumed(serve_left()), serve_first),
        // Control: the client is the first.
        Fault::new("restart_leg_closing_client", resumed(client_left("half_close")), client_first),
        Fault::new("crash_partial_write", of_flood(untouched()), |fx| {
            crash_in_write(fx)?;
            fx.client().reading(true);
            let seen = fx.client().wait("the message", TIMEOUT, |seen| !seen.messages.is_empty())?;
            if seen.messages != [vec![FLOOD_BYTE; FLOOD]] {
                let got = seen.messages.iter().map(|message| format!("{} bytes; ", message.len())).collect();
                return Err(TestError::Unexpected { what: "serve's message as sent".to_owned(), got });
            }
            recovers(fx)
        }),
        // Control: the client never reads, and its watchdog closes.
        Fault::new("crash_partial_write_unread", of_flood(unread), |fx| {
            crash_in_write(fx)?;
            std::thread::sleep(HALF_STALL);
            fx.close_and_drop();
            Ok(())
        }),
        Fault::new("store_full", dispatch::shut_down(), |fx| {
            two_sessions(fx, 1)?;
            fx.set_unaffected(0, 0);
            planned(fx)?;
            let seen = fx.nth(1).wait("a close frame", TIMEOUT, |seen| seen.close.is_some())?;
            if seen.close.as_ref().is_none_or(|(code, _)| *code != Some(1001)) {
                let got = format!("{:?}", seen.close);
                return Err(TestError::Unexpected { what: "Close 1001 from dispatch".to_owned(), got });
            }
            fx.nth(1).wait_end()?;
            closes(fx, 0)
        })
        .many(2, 1)
        .unaffected(resumed(untouched()))
        .after(|fx| {
            let messages = fx.stack.journal.messages("")?;
            let is_warning = |text: &String| text.contains("FileDescriptorStoreMax=");
            if messages.iter().filter_map(|entry| entry.get("MESSAGE")).any(is_warning) {
                return Ok(());
            }
            let what = "a warning about FileDescriptorStoreMax= at the start".to_owned();
            Err(TestError::Unexpected { what, got: "none".to_owned() })
        })
        .stored(ROOM_FOR_ONE),
        // Control: both fit.
        Fault::new("store_fits", resumed(untouched()), |fx| {
            two_sessions(fx, 2)?;
            planned(fx)?;
            closes(fx, 0)?;
            closes(fx, 1)
        })
        .many(2, 1)
        .stored(ROOM_FOR_TWO),
        Fault::new("state_of_newer_version", refused(), |fx| {
            state_is_refused(fx, |bytes, seals| (newer(bytes), seals))
        })
        .after(settled),
        Fault::new("state_truncated", refused(), |fx| {
            state_is_refused(fx, |mut bytes, seals| {
                bytes.truncate(bytes.len() / 2);
                (bytes, seals)
            })
        })
        .after(settled),
        // Its writer could truncate it while dispatch reads it (SIGBUS).
        Fault::new("state_unsealed", refused(), |fx| {
            state_is_refused(fx, |bytes, _| (bytes, SealFlags::empty()))
        })
        .after(settled),
        // Control: another file with the same bytes and seals.
        Fault::new("state_copied", of_crash(untouched()), |fx| {
            with_state(fx, |bytes, seals| (bytes, seals))?;
            recovers(fx)
        })
        .after(settled),
        Fault::new(
            "serve_killed_in_gap",
            resumed(upstream::killed(libc::SIGKILL).one_of("killed_by", &senders)),
            |fx| {
                in_gap(fx, SHORT_GAP, |fx| fx.last_serve().process.signal(libc::SIGKILL))?;
                fx.wait_end()
            },
        ),
        Fault::new("client_fin_in_gap", resumed(client_left("fin")), |fx| client_leaves(fx, SHORT_GAP)),
        // The client did not wait for the next process, although the gap is longer than a watchdog.
        Fault::new("client_fin_in_long_gap", resumed(client_left("fin")), |fx| client_leaves(fx, LONG_GAP)),
        Fault::new("restart_outlasts_client", outlasted(LONG_GAP), |fx| outlast(fx, LONG_GAP)).after(settled),
        Fault {
            is_untraced: true,
            ..Fault::new("restart_outlasts_client_untraced", outlasted(LONGEST_GAP), |fx| {
                outlast(fx, LONGEST_GAP)
            })
        },
        // Control: the client waits, and leaves later.
        Fault::new("restart_is_tolerated", of_crash(page_left()), |fx| {
            kept_session(fx)?;
            fx.stack.keeper()?.kill()?;
            std::thread::sleep(LONG_GAP);
            fx.stack.start_dispatch()?;
            recovered(fx)?;
            fx.client().close(Some(1001), "");
            fx.wait_end()
        }),
        // The wait began before the restart.
        Fault::new("serve_mute_over_restart", waited(mute(), 6_500), |fx| mute_over(fx, planned, HALF_STALL)),
        // Control: serve runs again after the restart.
        Fault::new(
            "serve_recovers_after_restart",
            after_a_gap(resumed(untouched())).key("hb_rtt_max_ms", Expect::Range(500, 10_000)),
            |fx| halted_over(fx, planned),
        ),
        // The counters of the sockets show that no reply was lost with the process.
        Fault::new("serve_mute_over_crash", crash_in(mute(), 6_500), |fx| mute_over(fx, crash, HALF_STALL)),
        Fault::new("serve_mute_until_crash", crash_in(mute(), 2_400), |fx| mute_over(fx, crash, PERIOD / 2)),
        // The client has sent something since its last ping.
        Fault::new("serve_busy_until_crash", crash_in(stalled(), 2_400), |fx| {
            patient_session(fx)?;
            fx.last_serve().begin(&format!("busy {}", HALF_STALL.as_millis() * 4))?;
            std::thread::sleep(HALF_STALL);
            fx.client().text("anybody there?");
            std::thread::sleep(RELAYED);
            crash(fx)?;
            std::thread::sleep(PERIOD / 2);
            fx.close_and_drop();
            Ok(())
        }),
        // Control: serve runs again after the crash.
        Fault::new("serve_recovers_after_crash", after_a_gap(of_crash(untouched())), |fx| {
            halted_over(fx, crash)
        }),
    ];
    let kept = |fault: Fault| {
        let needs: &[Need] = match fault.name {
            _ if fault.is_untraced => &[Need::Root],
            name if WAITING.contains(&name) => &[Need::Root, Need::Kernel, Need::RealCpus],
            // Reads the log of dispatch.
            "store_full" => &[Need::Root, Need::Kernel, Need::OwnJournal],
            _ => &[Need::Root, Need::Kernel],
        };
        let room = fault.stored.unwrap_or(ROOM);
        fault.stored(room).needs(needs)
    };
    faults.into_iter().map(|fault| kept(fault).lane(7)).collect()
}

/// In a guest the gap between two dispatches can be as long as a client waits for a reply.
fn after_a_gap(expected: ExpectedRecord) -> ExpectedRecord {
    expected.one_of("confidence", &["proven", "likely"])
}

/// Opens a session and waits until it is in the store.
fn kept_session(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session()?;
    is_stored(fx, 1)
}

/// The same with slow heartbeats.
fn patient_session(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.heartbeat = Some(PATIENT);
    fx.open(config)?;
    is_stored(fx, 1)
}

/// Waits until the descriptors of so many sessions are in the store.
fn is_stored(fx: &mut Fixture<'_>, sessions: usize) -> Result<()> {
    fx.stack.keeper()?.until_stored(1 + LEGS * sessions, TIMEOUT)
}

fn planned(fx: &mut Fixture<'_>) -> Result<()> {
    fx.stack.restart_dispatch().map(drop)
}

fn crash(fx: &mut Fixture<'_>) -> Result<()> {
    fx.stack.kill_and_restart_dispatch()
}

/// Waits until a restart has no effect any more. The pings that waited for it are answered all at
/// once.
fn recovered(fx: &Fixture<'_>) -> Result<()> {
    fx.client().heartbeats(1)?;
    std::thread::sleep(RECOVERED);
    fx.client().heartbeats(1)
}

/// The session is healthy, and its client closes with 1000.
fn recovers(fx: &Fixture<'_>) -> Result<()> {
    recovered(fx)?;
    fx.client().close(Some(1000), "");
    fx.wait_end()
}

/// The n-th session continues, and its client closes with 1000.
fn closes(fx: &Fixture<'_>, number: usize) -> Result<()> {
    fx.nth(number).heartbeats(3)?;
    fx.nth(number).close(Some(1000), "");
    fx.nth(number).wait_end().map(drop)
}

/// Two sessions, of which so many are in the store.
fn two_sessions(fx: &mut Fixture<'_>, stored: usize) -> Result<()> {
    fx.open_many(2, 1, fx.stack.address)?;
    is_stored(fx, stored)
}

/// Half of a frame is relayed before the restart and half after it; serve returns the message.
fn cut_frame(fx: &mut Fixture<'_>, restart: fn(&mut Fixture<'_>) -> Result<()>) -> Result<()> {
    kept_session(fx)?;
    fx.stop_heartbeat()?;
    let message = vec![b'x'; CUT];
    let mut first = frame::from_client(opcode::BINARY, &message);
    let second = first.split_off(first.len() / 2);
    fx.client().write(first);
    std::thread::sleep(PERIOD);
    restart(fx)?;
    fx.client().write(second);
    let seen = fx.client().wait("the message from serve", TIMEOUT, |seen| !seen.messages.is_empty())?;
    if seen.messages != [message] {
        let got = seen.messages.iter().map(|message| format!("{} bytes; ", message.len())).collect();
        return Err(TestError::Unexpected { what: "the message as sent".to_owned(), got });
    }
    fx.client().heartbeat(Some(PERIOD));
    recovered(fx)?;
    fx.client().close(Some(1001), "");
    fx.wait_end()
}

/// serve sends FIN, dispatch is restarted, and the client sends until it leaves.
fn serve_first(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session_ignoring_fin()?;
    is_stored(fx, 1)?;
    fx.order("half_close")?;
    std::thread::sleep(PERIOD);
    planned(fx)?;
    fx.client().text("still talking");
    std::thread::sleep(PERIOD);
    fx.client().fin();
    Ok(())
}

/// The client sends FIN, dispatch is restarted, and serve sends until it leaves.
fn client_first(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session_ignoring_fin()?;
    is_stored(fx, 1)?;
    fx.order("deaf")?;
    fx.client().fin();
    std::thread::sleep(PERIOD);
    planned(fx)?;
    fx.order("send still talking")?;
    fx.client().wait("a message of serve after the FIN", TIMEOUT, |seen| seen.messages.len() == 1)?;
    fx.order("drop")?;
    fx.client().drop_socket();
    Ok(())
}

/// dispatch is killed when it has written a part of serve's message to a client that does not read.
fn crash_in_write(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.receive_buffer = Some(16 << 10);
    fx.open(config)?;
    is_stored(fx, 1)?;
    fx.client().reading(false);
    fx.last_serve().begin(&format!("flood {FLOOD}"))?;
    let (client, dispatch) = (fx.client().local.port(), fx.stack.address.port());
    let mut last = 0;
    let written = wait::until("a write that blocks", TIMEOUT, || {
        std::thread::sleep(PERIOD);
        let queued = queues(dispatch, client)? + queues(client, dispatch)?;
        let before = std::mem::replace(&mut last, queued);
        (queued > 0 && queued == before).then_some(queued)
    })?;
    if written >= FLOOD as u64 {
        let got = format!("{written} bytes");
        return Err(TestError::Unexpected { what: format!("less than {FLOOD} bytes written"), got });
    }
    crash(fx)
}

/// Bytes in the send and the receive queue of a socket of 127.0.0.1 (`/proc/net/tcp`).
fn queues(local: u16, remote: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let [local, remote] = [local, remote].map(|port| format!("0100007F:{port:04X}"));
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|words| words.get(1..3) == Some(&[local.as_str(), remote.as_str()]))?;
    let (sent, received) = row.get(4)?.split_once(':')?;
    let bytes = |text| u64::from_str_radix(text, 16).ok();
    Some(bytes(sent)? + bytes(received)?)
}

/// The state of the next version.
fn newer(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(version) = bytes.get_mut(VERSION) {
        *version += 1;
    }
    bytes
}

/// dispatch crashes, and its next process gets this in place of its state.
fn with_state(
    fx: &mut Fixture<'_>,
    change: impl FnOnce(Vec<u8>, SealFlags) -> (Vec<u8>, SealFlags),
) -> Result<()> {
    kept_session(fx)?;
    let keeper = fx.stack.keeper()?;
    keeper.kill()?;
    let stored = keeper.stored(STATE)?.pop();
    let stored =
        stored.ok_or_else(|| std::io::Error::other("none")).attempt(|| "find the state".to_owned())?;
    let (bytes, seals) = copy(stored)?;
    let (bytes, seals) = change(bytes, seals);
    keeper.replace(STATE, file(&bytes, seals)?);
    fx.stack.start_dispatch()
}

/// The same with a state that the next process does not accept: it closes the sockets.
fn state_is_refused(
    fx: &mut Fixture<'_>,
    change: fn(Vec<u8>, SealFlags) -> (Vec<u8>, SealFlags),
) -> Result<()> {
    with_state(fx, change)?;
    fx.wait_end()
}

/// Nothing panicked; then waits until a second record would be in the journal.
fn settled(fx: &mut Fixture<'_>) -> Result<()> {
    std::thread::sleep(SETTLED);
    let stderr = fx.stack.stderr();
    if stderr.contains("panicked") {
        return Err(TestError::Unexpected { what: "no panic".to_owned(), got: stderr });
    }
    Ok(())
}

/// dispatch is killed, and its next process starts after `gap`. `act` comes in between.
fn in_gap(
    fx: &mut Fixture<'_>,
    gap: Duration,
    act: impl FnOnce(&mut Fixture<'_>) -> Result<()>,
) -> Result<()> {
    kept_session(fx)?;
    fx.stop_heartbeat()?;
    fx.stack.keeper()?.kill()?;
    act(fx)?;
    std::thread::sleep(gap);
    fx.stack.start_dispatch()
}

/// The client leaves as soon as no dispatch runs.
fn client_leaves(fx: &mut Fixture<'_>, gap: Duration) -> Result<()> {
    in_gap(fx, gap, |fx| {
        fx.client().fin();
        Ok(())
    })?;
    fx.wait_end()
}

/// The client's watchdog closes while no dispatch runs.
fn outlast(fx: &mut Fixture<'_>, gap: Duration) -> Result<()> {
    kept_session(fx)?;
    fx.client().watchdog(Watchdog::FramesSincePing);
    fx.stack.keeper()?.kill()?;
    fx.client().wait_gave_up()?;
    std::thread::sleep(gap);
    fx.stack.start_dispatch()?;
    fx.wait_end()
}

/// serve does not reply before the restart and after it, and the client closes `left` later.
fn mute_over(
    fx: &mut Fixture<'_>,
    restart: fn(&mut Fixture<'_>) -> Result<()>,
    left: Duration,
) -> Result<()> {
    patient_session(fx)?;
    fx.order("mute")?;
    std::thread::sleep(HALF_STALL);
    restart(fx)?;
    std::thread::sleep(left);
    fx.client().close(Some(1000), "");
    fx.wait_end()
}

/// serve does not run before the restart, and replies to all pings after it.
fn halted_over(fx: &mut Fixture<'_>, restart: fn(&mut Fixture<'_>) -> Result<()>) -> Result<()> {
    kept_session(fx)?;
    fx.last_serve().process.signal(libc::SIGSTOP)?;
    std::thread::sleep(PERIOD * 3);
    restart(fx)?;
    fx.last_serve().process.signal(libc::SIGCONT)?;
    recovers(fx)
}
