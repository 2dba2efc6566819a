//! Gathers the facts: thin readers, a file for each area. Judges nothing; what cannot be read is a
//! fact, too. Nothing here waits for long, and nothing changes the machine, but for hooks that are
//! attached for a moment where root asks and no daemon runs.

mod command;
mod daemon;
mod journal;
mod kernel;
mod limits;
mod machine;
mod serves;
mod units;

use super::{
    args::DoctorArgs,
    checks::DISPATCH,
    facts::{Caller, Facts},
};
pub(super) use command::run;

/// The daemon's own unit.
const TRACE: &str = "t3-trace.service";

/// All facts of this machine.
///
/// # Errors
/// When there is no runtime to ask the daemon with.
pub fn facts(args: &DoctorArgs) -> anyhow::Result<Facts> {
    let caller = Caller { uid: rustix::process::geteuid().as_raw() };
    let (daemon, pid) = daemon::ask(&args.socket)?;
    let machine = machine::read();
    let dispatch = daemon::dispatch_pid();
    let serves = serves::read(&args.table, &machine.cgroups, dispatch);
    let of_serves = serves.iter().flatten().filter_map(|serve| serve.unit.clone());
    let units = units::read([TRACE, DISPATCH].map(str::to_owned).into_iter().chain(of_serves));
    let kernel = kernel::read(&daemon, pid, caller.is_root());
    let journal = journal::read();
    Ok(Facts { caller, socket: args.socket.clone(), daemon, kernel, machine, serves, journal, units })
}
