//! `t3-outside`: the browser outside a guest, and its hypervisor, for `cargo xtask vm-test`.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use t3_testkit::outside::{self, Hypervisor};

/// Plays the scenes that a guest asks for until it powers off
#[derive(Debug, Parser)]
#[command(name = "t3-outside", version)]
struct Arguments {
    /// Socket of the monitor of qemu
    #[arg(long)]
    monitor: PathBuf,
    /// Socket of the guest's serial port
    #[arg(long)]
    requests: PathBuf,
    /// Process of qemu
    #[arg(long)]
    pid: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let hypervisor = Hypervisor { monitor: arguments.monitor, pid: arguments.pid };
    match outside::play_all(&hypervisor, &arguments.requests) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("t3-outside: {error}");
            ExitCode::from(1)
        }
    }
}
