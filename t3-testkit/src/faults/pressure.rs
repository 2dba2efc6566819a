//! Faults of the machine under serve: what systemd does to its unit, and a cgroup that gives it too
//! little.
//!
//! They need serve to be a unit of systemd with controllers of cgroup v2, so they run in guests
//! only. Pressure is told over the last 10 s, so a stall takes longer than that here: then no
//! earlier, healthier time dilutes it.

use std::{
    net::{SocketAddr, TcpStream},
    os::linux::fs::MetadataExt,
    time::Duration,
};

use t3_record::Segment;

use super::{
    Expect, Fault, Fixture, Need,
    upstream::{died, stalled},
};
use crate::{
    client::TIMEOUT,
    error::{Attempt, Result},
    wait,
};

/// Longer than the window over which pressure is told.
const LONG_STALL: Duration = Duration::from_secs(12);

pub(super) fn faults() -> Vec<Fault> {
    let starved =
        |key, percent| stalled().is("segment", Segment::Devvm.as_str()).key(key, Expect::Range(percent, 100));
    let needs = &[Need::Root, Need::Kernel, Need::Systemd];
    vec![
        Fault::new("serve_unit_restarted", died(15).is("killed_by", "systemd[1]"), |fx| {
            fx.session()?;
            fx.quiet()?;
            fx.the_serve().unit()?.restart()?;
            fx.ended()
        })
        .needs(needs),
        // A hundredth of a CPU, and half a second of work to do.
        Fault::new("cpu_throttled", starved("psi_cpu", 80), |fx| {
            fx.session()?;
            fx.limits()?.set("cpu.max", "1000 100000")?;
            fx.the_serve().begin("burn 500")?;
            give_up_after_a_long_stall(fx)
        })
        .needs(needs),
        // The listener is open and the kernel goes on accepting for it; nothing answers.
        Fault::new("memory_high", starved("psi_mem", 20).key("oom_kills", Expect::AbsentOr(0, 0)), |fx| {
            fx.session()?;
            fx.limits()?.set("memory.high", "16M")?;
            fx.the_serve().begin(&format!("grow {}", 1_u64 << 30))?;
            std::thread::sleep(Duration::from_secs(1));
            let port = fx.the_serve().port;
            let waiting = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))
                .attempt(|| "connect to a serve that hangs".to_owned())?;
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
            fx.limits()?.set("io.max", &limit)?;
            fx.the_serve().begin("thrash 60000")?;
            give_up_after_a_long_stall(fx)
        })
        .needs(needs),
    ]
}

fn give_up_after_a_long_stall(fx: &mut Fixture<'_>) -> Result<()> {
    std::thread::sleep(LONG_STALL);
    fx.gives_up();
    Ok(())
}

/// `MAJOR:MINOR` of the disk that holds the programs.
fn disk() -> Result<String> {
    let program = crate::harness::find("t3-serve-standin")?;
    let device = program.metadata().attempt(|| format!("look at {}", program.display()))?.st_dev();
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Connections that wait to be accepted on this port of 127.0.0.1: of a listener (state 0A), the
/// receive queue in `/proc/net/tcp`.
fn accept_queue(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!("0100007F:{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1) == Some(&local.as_str()) && words.get(3) == Some(&"0A"))
        .filter_map(|words| u64::from_str_radix(words.get(4)?.split_once(':')?.1, 16).ok())
        .sum()
}
