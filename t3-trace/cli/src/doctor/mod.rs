//! `t3-trace doctor`: checks of kernel, host, serves and journal, with advice. Facts are collected,
//! judged by pure functions ([`checks`]) and reported ([`report`]).

pub mod args;
mod bundle;
pub mod checks;
mod collect;
pub mod facts;
pub mod finding;
pub mod report;

use std::io::{self, Write};

use anyhow::Context;

use crate::present::text;
use args::DoctorArgs;
use facts::Facts;
use finding::{Finding, State};

/// Prints the report; returns false if a part is broken.
///
/// # Errors
/// The runtime cannot be started, or the output or the bundle cannot be written.
pub fn run(args: &DoctorArgs) -> anyhow::Result<bool> {
    let facts = collect::facts(args)?;
    let findings = checks::all(&facts);
    let colour = args.common.paint(args.plain).colour;
    let mut out = if args.json {
        report::json(&findings, &facts.kernel.release)? + "\n"
    } else {
        report::text(&findings, &title(&facts), text::width().unwrap_or(report::WIDTH), colour)
    };
    if let Some(path) = &args.bundle {
        bundle::write(path, &facts, &findings)
            .with_context(|| format!("cannot write bundle {}", path.display()))?;
        if !args.json {
            out.push_str(&format!(
                "\nBundle for a bug report: {}. Review it before you send it.\n",
                path.display()
            ));
        }
    }
    match io::stdout().lock().write_all(out.as_bytes()) {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("cannot write the report")?,
    }
    Ok(works(&findings))
}

/// Whether no finding is broken.
#[must_use]
pub fn works(findings: &[Finding]) -> bool {
    finding::worst(findings) < State::Broken
}

fn title(facts: &Facts) -> String {
    let who = if facts.caller.is_root() { "root".to_owned() } else { format!("uid {}", facts.caller.uid) };
    format!("t3-trace doctor {}, Linux {}, as {who}", env!("CARGO_PKG_VERSION"), facts.kernel.release)
}

#[cfg(test)]
mod tests;
