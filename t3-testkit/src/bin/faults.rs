//! `t3-faults`: runs the fault catalogue on this host and prints a table.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use t3_record::KernelSource;
use t3_testkit::{
    faults::{self, Outcome, Row},
    journald::Journal,
};

/// Ends WebSocket sessions with every fault of the catalogue and compares each `ws close` record
#[derive(Debug, Parser)]
#[command(
    name = "t3-faults",
    version,
    after_help = "Exit status: 0 all records were as expected; 1 one was not; 2 usage error or failed set-up."
)]
struct Arguments {
    /// Run only this fault (repeatable)
    #[arg(long)]
    only: Vec<String>,
    /// Run only the eight basic faults: Close frame, FIN and RST of each end, killed serve, no
    /// serve
    #[arg(long)]
    first: bool,
    /// `host`: use a private journald; `vm`: use the journald of the guest
    #[arg(long, default_value = "host")]
    tier: String,
    /// Expect this `kernel=` in every record
    #[arg(long)]
    kernel: Option<KernelSource>,
    /// Skip faults whose verdict does not depend on the kernel
    #[arg(long, env = "T3_ONLY_KERNEL")]
    only_kernel: bool,
    /// Hooks of t3-trace: kprobe or tracepoint
    #[arg(long)]
    hooks: Option<String>,
    /// Run without t3-trace; expect kernel=off in every record
    #[arg(long)]
    without_trace: bool,
    /// Write the rows to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write one record per verdict to this file, as a JSON object: verdict to line (for
    /// docs/VERDICTS.md)
    #[arg(long)]
    records: Option<PathBuf>,
    /// Print names and requirements of the faults and exit
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
        other => anyhow::bail!("--tier: expected host or vm, got {other:?}"),
    };
    let journal = Arc::new(journal.context("cannot open a journal")?);
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
    let failed: Vec<_> = rows.iter().filter(|row| row.outcome.failed()).collect();
    let impossible = rows.iter().filter(|row| matches!(row.outcome, Outcome::Impossible(_))).count();
    if impossible > 0 {
        println!("{impossible} not possible on this host, see above");
    }
    if failed.len() < rows.len() && !failed.is_empty() {
        println!("again, those that failed:");
        failed.iter().for_each(|row| print!("{}", row.to_text()));
    }
    println!("{} passed, {} failed", rows.len() - failed.len() - impossible, failed.len());
    failed.is_empty()
}
