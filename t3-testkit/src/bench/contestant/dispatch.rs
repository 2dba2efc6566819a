//! t3-dispatch with one worker thread and otherwise its defaults. It writes its records to a pipe.

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, process::Command};

use super::{SPARE, Setup};
use crate::{
    bench::client::USER,
    error::{Attempt, Result},
    harness, keeper, sys,
};

/// Number of worker threads of the runtime, which reads this variable itself. The default is one
/// per CPU that the process may use.
const WORKERS: (&str, &str) = ("TOKIO_WORKER_THREADS", "1");

/// As the unit sets it.
const ALLOCATOR: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

pub(super) fn command(setup: &Setup<'_>, address: SocketAddr) -> Result<Command> {
    let mut command = Command::new(program(setup)?);
    command.args(arguments(setup, address)?).envs([WORKERS, ALLOCATOR]);
    Ok(command)
}

/// As [`command`], for a keeper.
pub(super) fn stored(setup: &Setup<'_>, address: SocketAddr) -> Result<Command> {
    let mut command = keeper::command(&program(setup)?);
    command.args(arguments(setup, address)?).envs([WORKERS, ALLOCATOR]);
    Ok(command)
}

fn program(setup: &Setup<'_>) -> Result<PathBuf> {
    setup.dispatch.map_or_else(|| harness::find("t3-dispatch"), |path| Ok(path.to_owned()))
}

/// Writes the routing table and returns the arguments of t3-dispatch.
fn arguments(setup: &Setup<'_>, address: SocketAddr) -> Result<Vec<OsString>> {
    let table = setup.dir.join("dispatch.json");
    let uid = rustix::process::geteuid().as_raw();
    let text = serde_json::json!({ USER: { "os_user": USER, "port": setup.backend.port(), "uid": uid } })
        .to_string();
    fs::write(&table, text).attempt(|| format!("write {}", table.display()))?;
    let mut arguments: Vec<OsString> =
        ["serve", "--config", "/dev/null", "--log", "stderr"].map(Into::into).to_vec();
    arguments.extend(["--trusted-user".into(), sys::uid().to_string().into()]);
    // All sessions are of one user, and both legs of each need a descriptor.
    let sessions = (setup.sessions + SPARE).to_string();
    for limit in ["--max-sessions", "--max-sessions-per-user"] {
        arguments.extend([limit.into(), sessions.clone().into()]);
    }
    arguments.extend(["--max-connections", "64", "--upgrade-rate", "0"].map(Into::into));
    arguments.extend(["--metrics-listen", "off", "--listen"].map(Into::into));
    arguments.extend([address.to_string().into(), "--table".into(), table.into()]);
    arguments.extend(["--trace-socket".into(), setup.dir.join("no-t3-trace.sock").into()]);
    Ok(arguments)
}
