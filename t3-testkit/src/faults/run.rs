//! Runs faults: picks them, gives each its world, reads its records back and compares.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use regex_lite::Regex;
use t3_record::{CloseRecord, KernelSource};

use super::{Expect, Fault, Miss, Need, Outcome, Row, World, catalogue};
use crate::{
    error::{Result, TestError},
    journal::{Entry, Journal},
    stack::{Cgroup, Setup, Stack, Traefik, free_port},
    sys,
};

/// What operators' Loki query matches on; the part between its backquotes.
const OPERATORS_QUERY: &str = r"dur_ms=(?P<dur>[0-9]+) cause=(?P<cause>\S+)";

/// dispatch's own patience, shorter than by default: the same timers, sooner.
const TIMERS: [&str; 6] = ["--keepalive", "4s", "--user-timeout", "10s", "--handshake-timeout", "6s"];

/// Only the kernel tells what became of a process.
const NEEDS_FATE: [&str; 3] = ["serve_exited", "serve_killed", "serve_oom"];

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only faults with these names; all when empty.
    pub only: Vec<String>,
    /// What every record's `kernel=` must be; whatever t3-trace says it has when `None`.
    pub kernel: Option<KernelSource>,
    /// Without t3-trace: every record must say `kernel=off`.
    pub without_trace: bool,
}

/// Runs them and hands each row to `each` as soon as it is known.
///
/// # Errors
/// The programs or the journal do not start, or a name is unknown; a fault that misses is a row.
pub fn run(options: &Options, journal: &Journal, mut each: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let faults = selected(&options.only)?;
    let (own, shared): (Vec<_>, Vec<_>) = faults.iter().partition(|fault| fault.own_stack);
    let mut rows = Vec::new();
    let mut group = |faults: &[&Fault], rows: &mut Vec<Row>| -> Result<()> {
        let mut stack = Stack::start(setup(faults, options)?, journal)?;
        let first = rows.len();
        for fault in faults {
            let row = one(fault, &mut stack, journal, options);
            each(&row);
            rows.push(row);
        }
        let mut extra = surplus(faults, journal)?;
        for row in rows.iter_mut().skip(first) {
            if let Some(miss) = extra.remove(row.fault) {
                row.add(miss);
                each(row);
            }
        }
        Ok(())
    };
    if !shared.is_empty() {
        group(&shared, &mut rows)?;
    }
    for fault in own {
        group(&[fault], &mut rows)?;
    }
    Ok(rows)
}

fn selected(only: &[String]) -> Result<Vec<Fault>> {
    let all = catalogue();
    if let Some(unknown) = only.iter().find(|name| !all.iter().any(|fault| fault.name == **name)) {
        return Err(TestError::Unexpected {
            what: "the name of a fault (`t3-faults --list` has them)".to_owned(),
            got: unknown.clone(),
        });
    }
    Ok(all
        .into_iter()
        .filter(|fault| only.is_empty() || only.iter().any(|name| name == fault.name))
        .collect())
}

/// One user per fault, named after it.
fn setup(faults: &[&Fault], options: &Options) -> Result<Setup> {
    let users = faults.iter().flat_map(|fault| (0..fault.users).map(|number| fault.user(number)));
    let users = users.map(|user| Ok((user, free_port()?)));
    let mut setup = Setup::users(0)?;
    setup.users = users.collect::<Result<BTreeMap<_, _>>>()?;
    setup.trace &= !options.without_trace;
    setup.dispatch_arguments = TIMERS.map(str::to_owned).to_vec();
    if faults.iter().any(|fault| fault.needs.contains(&Need::Netns)) {
        // A client in a namespace of its own comes over a link, not over loopback.
        setup.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        setup.trusted.push("198.18.0.0/15".to_owned());
    }
    Ok(setup)
}

fn one(fault: &Fault, stack: &mut Stack, journal: &Journal, options: &Options) -> Row {
    let began = Instant::now();
    let kernel = options.kernel.unwrap_or_else(|| stack.kernel());
    let mut row = Row::new(fault);
    let fate = matches!(fault.truth.of("verdict"), Some(Expect::Is(verdict)) if NEEDS_FATE.contains(&verdict.as_str()));
    let implied = fate.then_some(Need::Kernel);
    if let Some(why) = fault.needs.iter().copied().chain(implied).find_map(|need| lacks(need, kernel)) {
        row.outcome = Outcome::Impossible(why);
        return row;
    }
    let mut world = World::new(stack, journal, fault.name.to_owned());
    let outcome = (fault.inject)(&mut world).and_then(|()| {
        journal.wait_closes(fault.sessions, fault.patience, |record| fault.owns(&record.user))
    });
    match outcome {
        Ok(found) => {
            for (record, entry) in &found {
                let truth = match (&fault.aside, world.is_aside(record)) {
                    (Some(truth), true) => truth,
                    _ => {
                        row.got(record);
                        &fault.truth
                    }
                };
                world
                    .complete(truth.clone(), kernel, &record.user)
                    .misses(record)
                    .into_iter()
                    .chain(malformed(record, entry))
                    .for_each(|miss| row.add(miss));
            }
            if let Err(error) = (fault.after)(&mut world) {
                row.add(Miss {
                    key: "afterwards".to_owned(),
                    expected: "what the fault asks for".to_owned(),
                    got: error.to_string(),
                });
            }
        }
        Err(error) => row.add(Miss {
            key: "the fault".to_owned(),
            expected: "injected, and a record of it".to_owned(),
            got: error.to_string(),
        }),
    }
    if row.outcome.failed() {
        let records = journal.closes(|record| fault.owns(&record.user)).unwrap_or_default();
        row.details = records.iter().map(|(record, _)| format!("    {}\n", record.to_line())).collect();
        row.details += &world.stderr();
        row.details += &world.stack.stderr();
    }
    row.took = began.elapsed();
    row
}

/// The line must be what operators' query matches and what the fields say.
fn malformed(record: &CloseRecord, entry: &Entry) -> Vec<Miss> {
    let message = entry.get("MESSAGE").map(String::as_str).unwrap_or_default();
    let miss = |key: &str, expected: String, got: String| Miss { key: key.to_owned(), expected, got };
    let mut misses = Vec::new();
    let found = Regex::new(OPERATORS_QUERY).ok().and_then(|query| query.captures(message));
    let found = found.map(|found| (found["dur"].to_owned(), found["cause"].to_owned()));
    let want = (record.dur_ms.to_string(), record.cause.to_string());
    if found.as_ref() != Some(&want) {
        misses.push(miss("operators' query", format!("{want:?}"), format!("{found:?} in {message}")));
    }
    match CloseRecord::from_line(message) {
        Ok(line) if line == *record => {}
        Ok(line) => misses.push(miss("MESSAGE", record.to_line(), line.to_line())),
        Err(error) => misses.push(miss("MESSAGE", "logfmt".to_owned(), error.to_string())),
    }
    let doubled = entry.keys().filter(|name| name.ends_with('+') && name.starts_with("T3_"));
    misses.extend(doubled.map(|name| miss(name, "one value".to_owned(), "several".to_owned())));
    misses
}

/// Records beyond one per session, looked for when everything has ended.
fn surplus(faults: &[&Fault], journal: &Journal) -> Result<BTreeMap<&'static str, Miss>> {
    let mut extra = BTreeMap::new();
    for fault in faults {
        let records = journal.closes(|record| fault.owns(&record.user))?.len();
        if records > fault.sessions {
            let (expected, got) = (fault.sessions.to_string(), records.to_string());
            extra.insert(fault.name, Miss { key: "number of records".to_owned(), expected, got });
        }
    }
    Ok(extra)
}

fn lacks(need: Need, kernel: KernelSource) -> Option<String> {
    let root = sys::is_root();
    let missing = match need {
        Need::Root => (!root).then_some("needs root"),
        Need::Kernel => matches!(kernel, KernelSource::Off | KernelSource::Timeout)
            .then_some("needs t3-trace with its programs loaded"),
        Need::Netns => (!std::path::Path::new("/sys/class/net").exists() || !has_program("ip"))
            .then_some("needs network namespaces and iproute2"),
        Need::MemoryLimit => (!Cgroup::new().is_ok_and(|cgroup| cgroup.limits_memory()))
            .then_some("needs a cgroup whose memory can be limited"),
        Need::MemoryV2 => (!Cgroup::new().is_ok_and(|cgroup| cgroup.counts_on_v2()))
            .then_some("needs the memory controller on cgroup v2"),
        Need::CgroupV2 => Cgroup::new().is_err().then_some("needs cgroup v2"),
        Need::SockDestroy => (!has_program("ss")).then_some("needs ss of iproute2"),
        Need::Traefik => return Traefik::program().err().map(|error| error.to_string()),
        Need::OwnJournal => (std::path::Path::new("/run/systemd/system").is_dir())
            .then_some("needs a journald of its own: the machine's serves others too"),
    };
    missing.map(str::to_owned)
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}
