//! Collects the facts: one reader per area. A fact that is not readable has a reason. Nothing waits
//! for long, and nothing changes the host, except that root writes one entry to the journal, and
//! attaches the hooks briefly without a daemon.

mod command;
mod daemon;
mod host;
mod journal;
mod journald_conf;
mod kernel;
mod limits;
mod serves;
mod test_entry;
mod trust;
mod units;

use t3_config::unit_files;

use super::{
    args::DoctorArgs,
    checks::DISPATCH,
    facts::{Caller, Facts},
};
pub(super) use command::run;

/// Unit of the daemon.
const TRACE: &str = "t3-trace.service";
/// Units of the packages. Not t3-serve@.service, in whose place a site may have its own.
const PACKAGED: [&str; 7] = [
    DISPATCH,
    "t3-dispatch.socket",
    "t3-dispatch-diag.socket",
    "t3-mint.socket",
    "t3-mint@.service",
    TRACE,
    "t3-trace-netlink.socket",
];

/// Collects all facts of this host.
///
/// # Errors
/// The async runtime cannot be started.
pub fn facts(args: &DoctorArgs) -> anyhow::Result<Facts> {
    let caller = Caller { uid: rustix::process::geteuid().as_raw() };
    let (daemon, heartbeats, pid) = daemon::query(&args.socket)?;
    let host = host::read();
    let dispatch = daemon::dispatch_pid();
    let serves = serves::read(&args.table, &host.cgroups, dispatch);
    let of_serves = serves.iter().flatten().filter_map(|serve| serve.unit.clone());
    let units = units::read([TRACE, DISPATCH].map(str::to_owned).into_iter().chain(of_serves));
    let hidden_units = unit_files::hidden_on_this_host(&PACKAGED);
    let kernel = kernel::read(&daemon, pid, caller.is_root());
    let trust = trust::read();
    let journal = journal::read(caller);
    let socket = args.socket.clone();
    Ok(Facts {
        caller,
        socket,
        daemon,
        heartbeats,
        kernel,
        host,
        trust,
        serves,
        journal,
        hidden_units,
        units,
    })
}
