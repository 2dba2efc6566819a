//! `t3-faults`: runs the catalogue of faults on this machine and prints the table. Exit code 1 when
//! a fault missed, 2 when it could not run at all.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use t3_record::KernelSource;
use t3_testkit::{
    faults::{self, Outcome, Row},
    journald::Journal,
};

/// Ends WebSockets in every way there is and compares each `ws close` record with the truth.
#[derive(Debug, Parser)]
#[command(name = "t3-faults", version)]
struct Arguments {
    /// Only this fault (may be repeated).
    #[arg(long)]
    only: Vec<String>,
    /// Only the first eight: each end closing, ending and resetting, a killed serve, no serve.
    #[arg(long)]
    first: bool,
    /// Where this runs: on the `host` a journald of our own is used, in a `vm` the machine's.
    #[arg(long, default_value = "host")]
    tier: String,
    /// Demand this `kernel=` in every record.
    #[arg(long)]
    kernel: Option<KernelSource>,
    /// Leave out faults that no kernel's evidence decides.
    #[arg(long, env = "T3_ONLY_KERNEL")]
    only_kernel: bool,
    /// How t3-trace must hook kernel functions: kprobe or tracepoint.
    #[arg(long)]
    hooks: Option<String>,
    /// Leave t3-trace out: every record must say kernel=off.
    #[arg(long)]
    without_trace: bool,
    /// Write the rows to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a real record of each verdict that was seen to this file, as JSON: verdict to line
    /// (see docs/VERDICTS.md).
    #[arg(long)]
    records: Option<PathBuf>,
    /// Print the names and needs, run nothing.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("t3-faults: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.list {
        for fault in faults::catalogue() {
            println!("{:<24} {:?}", fault.name, fault.needs);
        }
        return Ok(true);
    }
    let (journal, units) = match arguments.tier.as_str() {
        "host" => (Journal::private(), false),
        "vm" => (Journal::system(), true),
        other => anyhow::bail!("unknown tier {other:?}: host or vm"),
    };
    let journal = Arc::new(journal.context("cannot have a journal")?);
    let mut only = arguments.only.clone();
    if arguments.first {
        only.extend(faults::FIRST_EIGHT.map(str::to_owned));
    }
    let Arguments { kernel, without_trace, only_kernel, .. } = *arguments;
    let options =
        faults::Options { only, kernel, without_trace, units, only_kernel, hooks: arguments.hooks.clone() };
    let mut first = true;
    let rows = faults::run(&options, &journal, |row| faults::print(row, std::mem::take(&mut first)))?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_vec_pretty(&rows)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.records {
        let text = serde_json::to_vec_pretty(&faults::records::by_verdict(&rows))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(sum_up(&rows))
}

fn sum_up(rows: &[Row]) -> bool {
    let failed = rows.iter().filter(|row| row.outcome.failed()).count();
    let impossible = rows.iter().filter(|row| matches!(row.outcome, Outcome::Impossible(_))).count();
    if impossible > 0 {
        println!("{impossible} not possible on this machine, see above");
    }
    println!("{} passed, {failed} failed", rows.len() - failed - impossible);
    failed == 0
}
