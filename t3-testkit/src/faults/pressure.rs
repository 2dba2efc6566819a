//! Faults of serve's unit: restart by systemd, and limits of its cgroup.
//!
//! They need serve as a systemd unit with the controllers of cgroup v2, so they run only in guests.
//! PSI covers the last 10 s, so a stall lasts longer here.

use std::{
    net::{SocketAddr, TcpStream},
    os::linux::fs::MetadataExt,
    time::Duration,
};

use t3_record::Segment;

use super::{
    Expect, Fault, Fixture, Need,
    upstream::{killed, stalled},
};
use crate::{
    client::TIMEOUT,
    error::{Attempt, Result},
    wait,
};

/// Longer than the window of PSI.
const LONG_STALL: Duration = Duration::from_secs(12);

pub(super) fn faults() -> Vec<Fault> {
    let starved =
        |key, percent| stalled().is("segment", Segment::Devvm.as_str()).key(key, Expect::Range(percent, 100));
    let throttled = starved("psi_mem", 20)
        .key("oom_kills", Expect::AbsentOr(0, 0))
        .key("mem_high", Expect::Range(1, u64::MAX));
    let needs = &[Need::Root, Need::Kernel, Need::Systemd];
    vec![
        Fault::new("serve_unit_restarted", killed(15).is("killed_by", "systemd[1]"), |fx| {
            fx.session()?;
            fx.stop_heartbeat()?;
            fx.last_serve().unit()?.restart()?;
            fx.wait_end()
        })
        .needs(needs),
        // 1 % of a CPU, for 0.5 s of work.
        Fault::new("cpu_throttled", starved("psi_cpu", 80), |fx| {
            fx.session()?;
            fx.cgroup()?.set("cpu.max", "1000 100000")?;
            fx.last_serve().begin("burn 500")?;
            give_up_after_a_long_stall(fx)
        })
        .needs(needs),
        // The kernel completes connections to serve's listener, but serve does not respond.
        Fault::new("memory_high", throttled, |fx| {
            fx.session()?;
            fx.cgroup()?.set("memory.high", "16M")?;
            fx.last_serve().begin(&format!("grow {}", 1_u64 << 30))?;
            std::thread::sleep(Duration::from_secs(1));
            let port = fx.last_serve().port;
            let waiting = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))
                .attempt(|| "connect to a stalled serve".to_owned())?;
            wait::until("a connection in serve's accept queue", TIMEOUT, || {
                (accept_queue(port) > 0).then_some(())
            })?;
            give_up_after_a_long_stall(fx)?;
            drop(waiting);
            Ok(())
        })
        .needs(needs),
        Fault::new("io_throttled", starved("psi_io", 50), |fx| {
            fx.session()?;
            let limit = format!("{} rbps=65536", disk()?);
            fx.cgroup()?.set("io.max", &limit)?;
            fx.last_serve().begin("thrash 60000")?;
            give_up_after_a_long_stall(fx)
        })
        .needs(needs),
    ]
}

fn give_up_after_a_long_stall(fx: &mut Fixture<'_>) -> Result<()> {
    std::thread::sleep(LONG_STALL);
    fx.close_and_drop();
    Ok(())
}

/// `MAJOR:MINOR` of the disk that holds the programs.
fn disk() -> Result<String> {
    let program = crate::harness::find("t3-serve-standin")?;
    let device = program.metadata().attempt(|| format!("stat {}", program.display()))?.st_dev();
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Number of connections in the accept queue of this port of 127.0.0.1: the receive queue of a
/// listener (state 0A) in `/proc/net/tcp`.
pub(super) fn accept_queue(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!("0100007F:{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1) == Some(&local.as_str()) && words.get(3) == Some(&"0A"))
        .filter_map(|words| u64::from_str_radix(words.get(4)?.split_once(':')?.1, 16).ok())
        .sum()
}
