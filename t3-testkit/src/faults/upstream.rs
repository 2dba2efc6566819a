//! Upstream faults after the open: serve, its process and its cgroup.

use std::time::Duration;

use t3_record::{
    Cause::{DownstreamClosed, Graceful, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, Need};
use crate::{
    client::TIMEOUT,
    error::Result,
    frame::{self, opcode},
};

/// Longer than a watchdog timeout at the heartbeat period of these tests.
const STALL: Duration = Duration::from_secs(4);

/// Memory limit in bytes: enough for a fake serve, too little for a hog.
const SMALL: u64 = 64 << 20;

fn ended(verdict: Verdict, how: &str, peer: &str) -> ExpectedRecord {
    ExpectedRecord::opened(verdict, Segment::Serve, UpstreamClosed, how, ClosedBy::Upstream)
        .is("peer_exit", peer)
}

pub(super) fn fin(verdict: Verdict, how: &str, peer: &str) -> ExpectedRecord {
    ended(verdict, how, peer).ends(LegEnd::FinOut, LegEnd::FinIn)
}

pub(super) fn killed(signal: i32) -> ExpectedRecord {
    fin(Verdict::ServeKilled, &format!("signal:{signal}"), &format!("sig:{signal}"))
}

pub(super) fn closed(code: &str, reason: &str) -> ExpectedRecord {
    fin(Verdict::ServeClosed, &format!("ws_close:{code}"), "alive")
        .is("cause", Graceful.as_str())
        .close_frame("up", code, reason)
}

/// Record of a client that gave up on an unresponsive serve: Close 1000 without a reply.
pub(super) fn stalled() -> ExpectedRecord {
    let long = || Expect::Range(3_000, 60_000);
    ExpectedRecord::opened(
        Verdict::ServeStalled,
        Segment::Serve,
        DownstreamClosed,
        "stall",
        ClosedBy::Downstream,
    )
    .key("segment", Expect::StallSegment)
    .is("peer_exit", "alive")
    .close_frame("down", "1000", "")
    .ends(LegEnd::FinIn, LegEnd::FinOut)
    .key("hb_wait_ms", long())
    .key("up_idle_ms", long())
}

pub(super) fn faults() -> Vec<Fault> {
    // The kernel reports the thread that sent the signal, procfs the process; a test's thread has
    // the name of the test.
    let names = own_names();
    let senders: Vec<_> = names.iter().map(String::as_str).collect();
    let mut faults = vec![
        Fault::new("serve_close", closed("1011", "oh no"), |fx| ordered(fx, "close 1011 oh no")),
        Fault::new("serve_close_1000", closed("1000", ""), |fx| ordered(fx, "close 1000")),
        Fault::new("serve_close_1012", closed("1012", "restart"), |fx| ordered(fx, "close 1012 restart")),
        Fault::new("serve_fin", fin(Verdict::ServeLeft, "fin", "alive"), |fx| ordered(fx, "fin")),
        Fault::new("serve_half_close", fin(Verdict::ServeLeft, "half_close", "alive"), half_close),
        Fault::new(
            "serve_rst",
            ended(Verdict::ServeReset, "rst", "alive").ends(LegEnd::RstOut, LegEnd::RstIn),
            |fx| ordered(fx, "rst"),
        ),
        Fault::new("serve_mid_frame", fin(Verdict::ServeLeft, "mid_frame", "alive"), |fx| {
            ordered(fx, "mid_frame")
        }),
        Fault::new(
            "serve_reserved_opcode",
            // The client detects the violation and fails the connection (RFC 6455 section 7.1.7).
            fin(Verdict::ServeProtocol, "protocol", "alive")
                .is("closed_by", "downstream")
                // After a violation the rest of serve's stream is not parsed, so its Close frame
                // is not seen.
                .is("cause", "downstream_closed")
                .close_frame("down", "1002", ""),
            |fx| {
                fx.session()?;
                fx.stop_heartbeat()?;
                let before = fx.client().seen().messages.len();
                fx.order("reserved_opcode")?;
                fx.client().wait("the bad frame", TIMEOUT, |seen| seen.messages.len() > before)?;
                fx.client().close(Some(1002), "");
                fx.wait_end()
            },
        ),
        Fault::new("serve_exit_0", fin(Verdict::ServeExited, "exit:0", "exit:0"), |fx| ordered(fx, "exit 0")),
        Fault::new("serve_exit_1", fin(Verdict::ServeExited, "exit:1", "exit:1"), |fx| ordered(fx, "exit 1")),
        Fault::new("serve_sigkill", killed(9).one_of("killed_by", &senders), |fx| {
            signalled(fx, libc::SIGKILL)
        }),
        Fault::new("serve_sigterm", killed(15).one_of("killed_by", &senders), |fx| {
            signalled(fx, libc::SIGTERM)
        }),
        // The sender is serve itself, or the kernel on its behalf.
        Fault::new(
            "serve_sigsegv",
            killed(11).key("killed_by", Expect::Begins("t3-serve-standi".to_owned())),
            |fx| ordered(fx, "signal 11"),
        ),
        Fault::new(
            "serve_sigkill_unread",
            ended(Verdict::ServeKilled, "signal:9", "sig:9")
                .one_of("killed_by", &senders)
                .ends(LegEnd::RstOut, LegEnd::RstIn)
                .key("hb_wait_ms", Expect::Free),
            |fx| {
                fx.session()?;
                fx.stop_heartbeat()?;
                fx.order("deaf")?;
                fx.client().write(frame::from_client(opcode::TEXT, b"never read"));
                std::thread::sleep(super::PERIOD);
                signal(fx, libc::SIGKILL)
            },
        ),
        // serve reads but does not reply to pings: the close handshake still works.
        Fault::new(
            "serve_mute",
            stalled().is("cause", "graceful").ends(LegEnd::FinOut, LegEnd::FinIn),
            |fx| {
                fx.session()?;
                fx.order("mute")?;
                std::thread::sleep(STALL);
                fx.client().close(Some(1000), "");
                fx.wait_end()
            },
        ),
        Fault::new("serve_busy", stalled(), |fx| {
            fx.session()?;
            let busy = STALL.as_millis() * 3;
            fx.last_serve().begin(&format!("busy {busy}"))?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            Ok(())
        }),
        Fault::new("serve_sigstop", stalled(), |fx| {
            fx.session()?;
            signal(fx, libc::SIGSTOP)?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            Ok(())
        }),
    ];
    faults.extend(in_cgroups());
    faults
}

fn in_cgroups() -> Vec<Fault> {
    vec![
        Fault::new("serve_frozen", stalled(), |fx| {
            fx.session()?;
            fx.cgroup()?.freeze(true)?;
            std::thread::sleep(STALL);
            fx.close_and_drop();
            Ok(())
        })
        .needs(&[Need::Root, Need::CgroupV2]),
        Fault::new(
            "serve_oom",
            fin(Verdict::ServeOom, "oom", "oom")
                .key("oom_victim", Expect::Present)
                .key("oom_kills", Expect::AbsentOr(1, 10))
                .key("killed_by", Expect::Free)
                .one_of("down_end", &["fin_out", "rst_out"])
                .one_of("up_end", &["fin_in", "rst_in"]),
            |fx| {
                fx.session()?;
                fx.cgroup()?.limit_memory(SMALL)?;
                fx.last_serve().begin(&format!("alloc {}", SMALL * 4))?;
                fx.last_serve().process.wait(TIMEOUT).map(drop)
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::MemoryLimit]),
        Fault::new(
            "neighbour_oom",
            // Another process of the cgroup was killed and serve is alive: serve closed by itself.
            closed("1000", "").key("oom_kills", Expect::Range(1, 10)),
            |fx| {
                fx.session()?;
                fx.cgroup()?.limit_memory(SMALL)?;
                fx.order(&format!("hog {}", SMALL * 4))?;
                fx.until_oom_kill()?;
                fx.client().heartbeats(2)?;
                fx.order("close 1000")?;
                fx.wait_end()
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::MemoryV2]),
        // The same, and then a crash: the kill is not its cause, and its victim is not named.
        Fault::new(
            "neighbour_oom_then_crash",
            killed(11)
                .key("killed_by", Expect::Begins("t3-serve-standi".to_owned()))
                // The counter goes with the cgroup when the unit ends.
                .key("oom_kills", Expect::AbsentOr(0, 10)),
            |fx| {
                fx.session()?;
                fx.cgroup()?.limit_memory(SMALL)?;
                fx.order(&format!("hog {}", SMALL * 4))?;
                fx.until_oom_kill()?;
                fx.client().heartbeats(2)?;
                fx.stop_heartbeat()?;
                fx.order("signal 11")?;
                fx.wait_end()
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::MemoryV2]),
    ]
}

/// serve sends FIN and continues to read while the client continues to send.
fn half_close(fx: &mut Fixture<'_>) -> Result<()> {
    fx.session_ignoring_fin()?;
    fx.order("half_close")?;
    for _ in 0..3 {
        std::thread::sleep(super::PERIOD);
        fx.client().text("still talking");
    }
    fx.client().fin();
    Ok(())
}

fn ordered(fx: &mut Fixture<'_>, order: &str) -> Result<()> {
    fx.session()?;
    fx.stop_heartbeat()?;
    fx.order(order)?;
    fx.wait_end()
}

fn signalled(fx: &mut Fixture<'_>, number: i32) -> Result<()> {
    fx.session()?;
    fx.stop_heartbeat()?;
    signal(fx, number)?;
    fx.wait_end()
}

fn signal(fx: &mut Fixture<'_>, number: i32) -> Result<()> {
    fx.last_serve().process.signal(number)
}

/// Possible senders of this process's signals: the thread and the process, as `NAME[PID]`.
pub(super) fn own_names() -> Vec<String> {
    let read = |folder: &str| std::fs::read_to_string(format!("/proc/{folder}/comm")).unwrap_or_default();
    ["thread-self", "self"]
        .map(|folder| format!("{}[{}]", read(folder).trim_end(), std::process::id()))
        .to_vec()
}
