//! Faults of dispatch and of administrators: dispatch stopped or killed, a socket destroyed.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use t3_record::{
    Cause::{DispatchClosed, DownstreamClosed, UpstreamClosed},
    ClosedBy, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Need};
use crate::{
    client::TIMEOUT,
    error::{Attempt, Result, TestError},
};

pub(super) fn faults() -> Vec<Fault> {
    vec![
        Fault::new("dispatch_sigterm", shut_down(), |fx| {
            fx.session()?;
            fx.stack.signal_dispatch(libc::SIGTERM)?;
            let seen = fx.client().wait("a close frame", TIMEOUT, |seen| seen.close.is_some())?;
            if seen.close.as_ref().is_none_or(|(code, _)| *code != Some(1001)) {
                let got = format!("{:?}", seen.close);
                return Err(TestError::Unexpected { what: "Close 1001 from dispatch".to_owned(), got });
            }
            fx.wait_end()
        })
        .own_stack(),
        Fault::new("dispatch_sigkill", killed(9), |fx| {
            fx.session()?;
            fx.stack.signal_dispatch(libc::SIGKILL)?;
            if let Some(dispatch) = &mut fx.stack.dispatch {
                dispatch.wait(TIMEOUT)?;
            }
            fx.wait_end()
        })
        .needs(&[Need::Root, Need::Kernel])
        .own_stack(),
        // Its sockets stay open while it dumps core, and the client leaves meanwhile.
        Fault::new(
            "dispatch_core_dump",
            killed(6)
                .one_of("down_end", &["fin_in", "fin_out", "rst_out"])
                .one_of("up_end", &["fin_in", "fin_out", "rst_out"]),
            |fx| {
                fx.session()?;
                let _slow = SlowCoreDumps::new()?;
                fx.stack.signal_dispatch(libc::SIGABRT)?;
                std::thread::sleep(Duration::from_secs(1));
                fx.client().close(Some(1001), "");
                fx.client().drop_socket();
                match &mut fx.stack.dispatch {
                    Some(dispatch) => dispatch.wait(TIMEOUT).map(drop),
                    None => Ok(()),
                }
            },
        )
        .needs(&[Need::Root, Need::Kernel, Need::Systemd])
        .own_stack(),
        Fault::new("ss_kill_downstream", destroyed("down_end"), |fx| {
            fx.session()?;
            let client = fx.client().local;
            destroy(&format!("sport = :{} and dport = :{}", fx.stack.address.port(), client.port()))
        })
        .needs(&[Need::Root, Need::Kernel, Need::SockDestroy]),
        Fault::new("ss_kill_upstream", destroyed("up_end"), |fx| {
            fx.session()?;
            // Only the socket of dispatch: its remote port is that of serve.
            destroy(&format!("dport = :{}", fx.stack.port(&fx.user)?))
        })
        .needs(&[Need::Root, Need::Kernel, Need::SockDestroy]),
    ]
}

/// Core dumps go to a program that reads none for some seconds (core(5)). For a disposable guest.
struct SlowCoreDumps {
    before: String,
}

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

impl SlowCoreDumps {
    fn new() -> Result<Self> {
        let before = std::fs::read_to_string(CORE_PATTERN).attempt(|| format!("read {CORE_PATTERN}"))?;
        std::fs::write(CORE_PATTERN, "|/bin/sleep 6").attempt(|| format!("write {CORE_PATTERN}"))?;
        Ok(Self { before })
    }
}

impl Drop for SlowCoreDumps {
    fn drop(&mut self) {
        let _ = std::fs::write(CORE_PATTERN, &self.before);
    }
}

/// Record of a session that ends with dispatch, which says so to both peers.
pub(super) fn shut_down() -> ExpectedRecord {
    ExpectedRecord::opened(
        Verdict::DispatchShutdown,
        Segment::Dispatch,
        DispatchClosed,
        "proxy_signal:15",
        ClosedBy::Dispatch,
    )
    .is("peer_exit", "alive")
    // The peers' replies to Close 1001 vary and must not become the cause.
    .key("ws_code", Expect::Free)
    .key("ws_from", Expect::Free)
    .key("ws_reason", Expect::Free)
    .one_of("down_end", &["fin_out", "fin_in", "none"])
    .one_of("up_end", &["fin_out", "fin_in", "none"])
}

/// Written by t3-trace, so without the keys that only dispatch knows.
pub(super) fn killed(signal: i32) -> ExpectedRecord {
    let how = &format!("proxy_signal:{signal}");
    let expected = ExpectedRecord::opened(
        Verdict::DispatchDied,
        Segment::Dispatch,
        DispatchClosed,
        how,
        ClosedBy::Dispatch,
    );
    let relay_only = [
        "up_bytes",
        "down_bytes",
        "up_msgs",
        "down_msgs",
        "up_idle_ms",
        "down_idle_ms",
        "hb_n",
        "hb_rtt_ms",
        "hb_rtt_max_ms",
        "hb_gap_ms",
        "hb_wait_ms",
        "hb_period_ms",
        "hb_by",
        "up_silent_ms",
        "down_rtt_us",
        "up_rtt_us",
        "down_retrans",
        "down_unacked",
        "down_lost",
        "up_retrans",
        "up_unacked",
        "up_lost",
    ];
    relay_only
        .into_iter()
        .fold(expected, |expected, key| expected.key(key, Expect::Absent))
        .is("peer_exit", "alive")
        .one_of("down_end", &["fin_out", "rst_out"])
        .one_of("up_end", &["fin_out", "rst_out"])
}

fn destroyed(leg: &'static str) -> ExpectedRecord {
    let other = if leg == "down_end" { "up_end" } else { "down_end" };
    let how = "sock_destroy";
    // The cause is the leg that ended first; the host acted, not dispatch.
    let cause = if leg == "down_end" { DownstreamClosed } else { UpstreamClosed };
    ExpectedRecord::opened(Verdict::AdminKilled, Segment::Devvm, cause, how, ClosedBy::Dispatch)
        .is("peer_exit", "alive")
        .is(leg, "abort")
        .one_of(other, &["fin_out", "rst_out"])
}

fn destroy(filter: &str) -> Result<()> {
    let mut ss = Command::new("ss");
    ss.args(["-K", "-t", "-n", "-H", "state", "established"]).arg(filter).stdin(Stdio::null());
    let output = ss.output().attempt(|| "run ss -K (is iproute2 installed?)".to_owned())?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(());
    }
    let got = format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Err(TestError::Unexpected { what: format!("a destroyed socket by `ss -K {filter}`"), got })
}
