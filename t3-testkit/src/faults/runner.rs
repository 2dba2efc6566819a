//! Runner of faults: selects them, starts stacks, injects, and compares the records.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Instant,
};

use regex_lite::Regex;
use t3_record::{CloseRecord, KernelSource};

use super::{
    DISPATCH_DECIDES, Fault, Fixture, Mismatch, Need, Outcome, Row, catalogue, explain_check, fixture,
    starvation::Starvation,
};
use crate::{
    client::TIMEOUT,
    error::{Result, TestError},
    harness::{self, Cgroup, Firewall, Netns, Setup, Stack, Traefik},
    journald::{Entry, Journal},
    outside, sys,
};

/// The regular expression of the operators' Loki query.
const OPERATORS_QUERY: &str = r"dur_ms=(?P<dur>[0-9]+) cause=(?P<cause>\S+)";

/// Maximum number of attempts while the host lacks CPU.
const ATTEMPTS: usize = 3;

/// Timeouts of dispatch, shorter than by default.
const TIMERS: [&str; 6] = ["--keepalive", "4s", "--user-timeout", "10s", "--handshake-timeout", "6s"];

/// Emulation makes t3-trace about ten times slower.
const EMULATED_EVIDENCE: [&str; 2] = ["--evidence-timeout", "3s"];

/// Maximum number of sessions that end at the same time under emulation: evidence for more arrives
/// after the evidence timeout. Bursts do not depend on the kernel, and the catalogue has each of
/// their ends as a single fault.
const EMULATED: usize = 10;

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of the faults to run; all if empty.
    pub only: Vec<String>,
    /// Expected `kernel=` of every record; `None`: as t3-trace reports.
    pub kernel: Option<KernelSource>,
    /// Runs without t3-trace and expects `kernel=off`.
    pub without_trace: bool,
    /// Runs serves as systemd units.
    pub units: bool,
    /// Skips [`super::DISPATCH_DECIDES`], and all compressed sessions: their plain twins have the
    /// same facts of the kernel.
    pub only_kernel: bool,
    /// Hook type of t3-trace; `None`: its default.
    pub hooks: Option<String>,
}

/// Runs the faults and calls `each` with each finished row; returns them in the order of the
/// catalogue.
///
/// Faults mostly wait, so with a private journald they run in parallel lanes, each with its own
/// journald and stack: a lane does not read the records of another.
pub fn run(options: &Options, journal: &Arc<Journal>, mut each: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let mut faults = selected(&options.only)?;
    // Faults selected by name are not skipped.
    let brief = options.only_kernel && options.only.is_empty();
    faults.retain(|fault| !brief || !(fault.is_compressed || DISPATCH_DECIDES.contains(&fault.name)));
    let mut rows = BTreeMap::new();
    let mut keep = |row: Row| {
        each(&row);
        rows.insert(row.fault, row);
    };
    let (alone, others): (Vec<_>, Vec<_>) = faults.iter().partition(|fault| fault.alone);
    if journal.pid().is_some() {
        in_parallel(&others, options, &mut keep)?;
    } else {
        in_sequence(&others, options, journal, &mut keep)?;
    }
    in_sequence(&alone, options, journal, &mut keep)?;
    Ok(faults.iter().filter_map(|fault| rows.remove(fault.name)).collect())
}

fn in_parallel(faults: &[&Fault], options: &Options, keep: &mut impl FnMut(Row)) -> Result<()> {
    let mut lanes: BTreeMap<u8, Vec<&Fault>> = BTreeMap::new();
    for fault in faults {
        lanes.entry(lane(fault)).or_default().push(fault);
    }
    let (sender, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for faults in lanes.values() {
            let sender = sender.clone();
            scope.spawn(move || {
                let done = Journal::private().map(Arc::new).and_then(|journal| {
                    in_sequence(faults, options, &journal, &mut |row| drop(sender.send(Ok(row))))
                });
                if let Err(error) = done {
                    let _ = sender.send(Err(error));
                }
            });
        }
        drop(sender);
        let mut outcome = Ok(());
        for row in finished {
            match row {
                Ok(row) => keep(row),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    })
}

/// Lane of a fault: 0 for quick faults with one session, 1 for many sessions or long timers, 2 for
/// a separate stack, 3 and 4 for faults that wait for many heartbeats; a fault can have another.
fn lane(fault: &Fault) -> u8 {
    let shared = u8::from(fault.sessions > 1 || fault.timeout > TIMEOUT);
    fault.lane.unwrap_or(if fault.own_stack { 2 } else { shared })
}

/// Runs faults one after the other, first those that share a stack.
fn in_sequence(
    faults: &[&Fault],
    options: &Options,
    journal: &Arc<Journal>,
    keep: &mut impl FnMut(Row),
) -> Result<()> {
    let (own, shared): (Vec<&Fault>, Vec<&Fault>) = faults.iter().partition(|fault| fault.own_stack);
    let groups = std::iter::once(shared.as_slice()).chain(own.chunks(1));
    for faults in groups.filter(|group| !group.is_empty()) {
        let mut stack = Stack::start(setup(faults, options)?, Arc::clone(journal))?;
        check_hooks(&stack, options)?;
        let mut rows = Vec::new();
        for fault in faults {
            let mut row = one(fault, 0, &mut stack, options);
            for attempt in 1..ATTEMPTS {
                if !(row.lacked_cpu && row.outcome.failed()) {
                    break;
                }
                eprintln!("{}: failed while the host lacked CPU; retrying: {:?}", fault.name, row.outcome);
                if fault.own_stack {
                    stack = Stack::start(setup(faults, options)?, Arc::clone(journal))?;
                }
                row = one(fault, attempt, &mut stack, options);
            }
            rows.push(row.clone());
            keep(row);
        }
        let mut extra = surplus(faults, journal)?;
        for mut row in rows {
            if let Some(mismatch) = extra.remove(row.fault) {
                row.add(mismatch);
                keep(row);
            }
        }
    }
    Ok(())
}

fn selected(only: &[String]) -> Result<Vec<Fault>> {
    only.iter().try_for_each(|name| super::fault(name).map(drop))?;
    let wanted = |fault: &Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    Ok(catalogue().into_iter().filter(wanted).collect())
}

/// Users named after the faults, and the options of the stack.
fn setup(faults: &[&Fault], options: &Options) -> Result<Setup> {
    let attempts = faults.iter().flat_map(|fault| (0..ATTEMPTS).map(|n| (fault.first_user(n), fault.users)));
    let users =
        attempts.flat_map(|(first, users)| (0..users).map(move |number| fixture::user(&first, number)));
    let mut setup = Setup::named(users)?;
    setup.trace &= !options.without_trace && !faults.iter().any(|fault| fault.is_untraced);
    setup.units = options.units;
    setup.dispatch_arguments = TIMERS.map(str::to_owned).to_vec();
    let own = faults.iter().flat_map(|fault| fault.dispatch);
    setup.dispatch_arguments.extend(own.map(|argument| (*argument).to_owned()));
    // The fault is skipped, with the reason, after the stack has started.
    let starts = |fault: &&&Fault| !fault.needs.contains(&Need::TimeNamespace) || joins_time_namespace();
    let prefixes = faults.iter().filter(starts).flat_map(|fault| fault.prefix);
    setup.dispatch_prefix = prefixes.map(|&word| word.to_owned()).collect();
    setup.stored = faults.iter().find_map(|fault| fault.stored);
    if options.units {
        setup.dispatch_arguments.extend(EMULATED_EVIDENCE.map(str::to_owned));
    }
    if let Some(way) = &options.hooks {
        setup.trace_arguments = ["--hooks", way].map(str::to_owned).to_vec();
    }
    if faults.iter().any(|fault| fault.needs.contains(&Need::Netns)) {
        setup.accept_links();
    }
    if faults.iter().any(|fault| fault.needs.contains(&Need::Outside)) {
        setup.accept_outside();
    }
    Ok(setup)
}

/// Checks that t3-trace uses the requested hooks.
fn check_hooks(stack: &Stack, options: &Options) -> Result<()> {
    let Some(way) = &options.hooks else { return Ok(()) };
    let wanted = (way != "tracepoint").then_some(way.as_str());
    let hooks = stack.status()?.hooks;
    match hooks.iter().find(|hook| hook.name == "tcp_close") {
        Some(hook) if hook.attached.as_deref() == wanted => Ok(()),
        hook => Err(TestError::Unexpected {
            what: format!("tcp_close hooked by {way}"),
            got: format!("{hook:?}"),
        }),
    }
}

fn one(fault: &Fault, attempt: usize, stack: &mut Stack, options: &Options) -> Row {
    let began = Instant::now();
    let journal = Arc::clone(&stack.journal);
    let expected = options.kernel.filter(|_| !fault.is_untraced);
    let kernel = expected.unwrap_or_else(|| stack.kernel());
    let mut row = Row::new(fault);
    let implied = fault.ends_serve().then_some(Need::Kernel);
    let mut needs = fault.needs.iter().copied().chain(implied);
    let many = options.units && fault.sessions > EMULATED;
    let many = many.then(|| format!("needs real CPUs: {} sessions end at the same time", fault.sessions));
    let storm = options.units && fault.alone;
    let storm = storm.then(|| "needs real CPUs: it loads the whole host".to_owned());
    if let Some(why) = many.or(storm).or_else(|| needs.find_map(|need| lacks(need, kernel, options.units))) {
        row.outcome = Outcome::Impossible(why);
        return row;
    }
    let first = fault.first_user(attempt);
    let ours = |record: &CloseRecord| fixture::owns(&first, &record.user);
    let mut fixture = Fixture::new(stack, first.clone()).compressed(fault.is_compressed);
    let starvation = Starvation::measure();
    let outcome =
        (fault.inject)(&mut fixture).and_then(|()| journal.wait_closes(fault.sessions, fault.timeout, ours));
    match outcome {
        Ok(found) => {
            for (record, entry) in &found {
                let expected = match (&fault.unaffected, fixture.is_unaffected(record)) {
                    (Some(expected), true) => expected,
                    _ => {
                        row.got(record);
                        &fault.expected
                    }
                };
                fixture
                    .complete(expected.clone(), kernel, &record.user)
                    .mismatches(record)
                    .into_iter()
                    .chain(malformed(record, entry))
                    .chain(explain_check::mismatches(record, entry))
                    .for_each(|mismatch| row.add(mismatch));
            }
            if let Err(error) = (fault.after)(&mut fixture) {
                row.add(Mismatch {
                    key: "check after the records".to_owned(),
                    expected: "success".to_owned(),
                    got: error.to_string(),
                });
            }
        }
        Err(error) => row.add(Mismatch {
            key: "fault".to_owned(),
            expected: "injected, with its records".to_owned(),
            got: error.to_string(),
        }),
    }
    if row.outcome.failed() {
        let records = journal.closes(ours).unwrap_or_default();
        // A fault that pauses the host stops the measurement, too.
        row.lacked_cpu = starvation.was_found() && !fault.needs.contains(&Need::Outside);
        row.details = records.iter().map(|(record, _)| format!("    {}\n", record.to_line())).collect();
        row.details += &fixture.stderr();
        row.details += &fixture.stack.stderr();
    }
    row.took = began.elapsed();
    row
}

/// Checks that the line matches the operators' query and agrees with the fields.
fn malformed(record: &CloseRecord, entry: &Entry) -> Vec<Mismatch> {
    let message = entry.get("MESSAGE").map(String::as_str).unwrap_or_default();
    let mismatch = |key: &str, expected: String, got: String| Mismatch { key: key.to_owned(), expected, got };
    let mut mismatches = Vec::new();
    let found = Regex::new(OPERATORS_QUERY).ok().and_then(|query| query.captures(message));
    let found = found.map(|found| (found["dur"].to_owned(), found["cause"].to_owned()));
    let want = (record.dur_ms.to_string(), record.cause.to_string());
    if found.as_ref() != Some(&want) {
        mismatches.push(mismatch("operators' query", format!("{want:?}"), format!("{found:?} in {message}")));
    }
    match CloseRecord::from_line(message) {
        Ok(line) if line == *record => {}
        Ok(line) => mismatches.push(mismatch("MESSAGE", record.to_line(), line.to_line())),
        Err(error) => mismatches.push(mismatch("MESSAGE", "logfmt".to_owned(), error.to_string())),
    }
    let doubled = entry.keys().filter(|name| name.ends_with('+') && name.starts_with("T3_"));
    mismatches.extend(doubled.map(|name| mismatch(name, "one value".to_owned(), "several".to_owned())));
    mismatches
}

/// Finds more than one record per session, after all faults of a stack.
fn surplus(faults: &[&Fault], journal: &Journal) -> Result<BTreeMap<&'static str, Mismatch>> {
    let mut extra = BTreeMap::new();
    for fault in faults {
        let of = |attempt| {
            let first = fault.first_user(attempt);
            journal.closes(|record| fixture::owns(&first, &record.user)).map(|records| records.len())
        };
        let records = (0..ATTEMPTS).map(of).collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
        if records > fault.sessions {
            let (expected, got) = (fault.sessions.to_string(), records.to_string());
            extra.insert(fault.name, Mismatch { key: "number of records".to_owned(), expected, got });
        }
    }
    Ok(extra)
}

/// Why the host does not meet a requirement.
pub(super) fn lacks(need: Need, kernel: KernelSource, units: bool) -> Option<String> {
    let root = sys::is_root();
    let missing = match need {
        Need::Root => (!root).then_some("needs root"),
        Need::Kernel => matches!(kernel, KernelSource::Off | KernelSource::Timeout)
            .then_some("needs t3-trace with its eBPF programs loaded"),
        Need::Netns => (!std::path::Path::new("/sys/class/net").exists() || !has_program("ip"))
            .then_some("needs network namespaces and iproute2"),
        Need::MemoryLimit => (!Cgroup::new().is_ok_and(|cgroup| cgroup.limits_memory()))
            .then_some("needs a cgroup with a memory limit"),
        Need::MemoryV2 => (!Cgroup::new().is_ok_and(|cgroup| cgroup.counts_on_v2()))
            .then_some("needs the memory controller on cgroup v2"),
        Need::CgroupV2 => Cgroup::new().is_err().then_some("needs cgroup v2"),
        Need::Systemd => (!units).then_some("needs systemd as PID 1 (`cargo xtask vm-test`)"),
        Need::Loss => {
            return Netns::new().and_then(|netns| netns.can_lose()).err().map(|error| error.to_string());
        }
        Need::Firewall => return Firewall::is_possible().err().map(|error| error.to_string()),
        Need::Forwarder => (!harness::can_forward()).then_some("needs systemd-socket-proxyd"),
        Need::TimeNamespace => {
            (!joins_time_namespace()).then_some("needs `unshare --time` and Linux newer than 6.1")
        }
        Need::SockDestroy => (!has_program("ss")).then_some("needs ss of iproute2"),
        Need::Traefik => return Traefik::program().err().map(|error| error.to_string()),
        Need::RealCpus => units.then_some("needs real CPUs: times are measured to milliseconds"),
        Need::ServeChild => units.then_some("needs serve as a child process, not as a unit"),
        Need::CoreDump => (!dumps_core()).then_some("needs core dumps into the current folder"),
        Need::Outside => {
            (!outside::exists()).then_some("needs a guest whose host pauses it (`cargo xtask vm-test`)")
        }
        Need::OwnJournal => (std::path::Path::new("/run/systemd/system").is_dir())
            .then_some("needs a private journald, not that of the host"),
    };
    missing.map(str::to_owned)
}

/// Whether the kernel writes a core dump into the folder of the process (core(5)), and reports it
/// (Linux 4.15 and newer).
fn dumps_core() -> bool {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pattern = pattern.trim_end();
    !pattern.is_empty()
        && !pattern.starts_with('|')
        && !pattern.contains(['/', '@'])
        && status.contains("CoreDumping:")
}

/// Whether a program that `unshare --time` starts is in the new namespace.
fn joins_time_namespace() -> bool {
    let script = "test \"$(readlink /proc/$$/ns/time)\" = \"$(readlink /proc/$$/ns/time_for_children)\"";
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--time", "--monotonic", "1000", "sh", "-c", script]);
    unshare.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
