//! `t3-trace`: reads the configuration and runs the command.

use std::{process::ExitCode, time::Duration};

use t3_config::{Origin, Sources};
use t3_trace::{
    cli::{self, Cli, Command, RULES},
    watch,
};
use t3_trace_cli::{
    closes, doctor, explain,
    journal::Completeness,
    live,
    present::{interrupt, text::safe},
    time::local::{self, ZoneOption},
};
use t3_trace_daemon::exit;

/// Exit status of a command whose configuration cannot be used.
const CONFIGURATION: u8 = 2;
/// Exit status of a command that could read only a part of the journal.
const INCOMPLETE: u8 = 3;
/// Timeout for writing the last log lines.
const LOG_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let words = cli::words(std::env::args_os());
    if let Some(code) = t3_config::pages::run(cli::definition(), words.clone()) {
        return code;
    }
    let sources = Sources::read::<Cli, _>(words, RULES).unwrap_or_else(|error| error.exit());
    if let Some(error) = sources.ignored() {
        report(&format!("{error}; using the defaults: no Loki, no Prometheus, the time zone of the system"));
    }
    // Before the first time of the command line is read.
    if let Some(zone) = zone(&sources) {
        local::choose(zone);
    }
    let loaded = sources.parse::<Cli>().unwrap_or_else(|error| error.exit());
    match loaded.options {
        Ok(cli) => run(cli.command),
        Err(errors) => {
            for error in &errors {
                report(&error.to_string());
            }
            let is_daemon = loaded.subcommand == "daemon";
            ExitCode::from(if is_daemon { exit::of_configuration(&errors) } else { CONFIGURATION })
        }
    }
}

fn run(command: Command) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let mut complete = |read| {
        if read == Completeness::Incomplete {
            code = ExitCode::from(INCOMPLETE);
        }
    };
    let is_daemon = matches!(command, Command::Daemon(_));
    if matches!(command, Command::Closes(_) | Command::Explain(_)) {
        interrupt::watch();
    }
    let result = match command {
        Command::Daemon(args) => t3_trace_daemon::start(args),
        Command::Live(args) => live::run(&args),
        Command::Closes(args) => closes::run(&args).map(&mut complete),
        Command::Explain(args) => explain::run(&args).map(&mut complete),
        Command::Watch(args) => watch::run(&args),
        Command::Doctor(args) => doctor::run(&args).map(|works| {
            if !works {
                code = ExitCode::FAILURE;
            }
        }),
    };
    t3_journal::drain(LOG_DRAIN_TIMEOUT);
    match result {
        Ok(()) => code,
        Err(error) => {
            report(&format!("{error:#}"));
            if is_daemon { ExitCode::from(exit::of(&error)) } else { ExitCode::FAILURE }
        }
    }
}

/// Zone of `--time-zone`; an invalid one is an error later, with those of the other options.
fn zone(sources: &Sources) -> Option<local::TimeZone> {
    let setting = sources.settings().iter().find(|setting| setting.name == "time-zone")?;
    let option: ZoneOption = setting.values.first()?.to_str()?.parse().ok()?;
    option.chosen(matches!(setting.origin, Origin::File(..)), std::env::var_os("TZ").as_deref())
}

/// Errors quote outside text.
fn report(text: &str) {
    let text: Vec<_> = text.lines().map(safe).collect();
    eprintln!("t3-trace: {}", text.join("\n"));
}
