//! `t3-trace doctor`: what this kernel and this machine allow, and what keeps the rest from
//! working. Facts are gathered, judged by pure functions ([`checks`]) and told ([`report`]). It
//! changes nothing and decides nothing about a close.

pub mod args;
mod bundle;
pub mod checks;
mod collect;
pub mod facts;
pub mod finding;
pub mod report;

use std::io::{self, IsTerminal, Write};

use anyhow::Context;

use args::DoctorArgs;
use facts::Facts;
use finding::{Finding, State};

/// Looks, tells, and says whether all that should work does.
///
/// # Errors
/// When nothing can be asked at all, or the output or the bundle cannot be written.
pub fn run(args: &DoctorArgs) -> anyhow::Result<bool> {
    let facts = collect::facts(args)?;
    let findings = checks::all(&facts);
    let mut out = if args.json {
        report::json(&findings, &facts.kernel.release)? + "\n"
    } else {
        report::text(&findings, &title(&facts), colour(args))
    };
    if let Some(path) = &args.bundle {
        bundle::write(path, &facts, &findings)
            .with_context(|| format!("write the bundle {}", path.display()))?;
        if !args.json {
            out.push_str(&format!(
                "\nFor a bug report: {}. Look through it before you send it.\n",
                path.display()
            ));
        }
    }
    match io::stdout().lock().write_all(out.as_bytes()) {
        // Who reads no further knows enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("write the report")?,
    }
    Ok(works(&findings))
}

/// Nothing that should work is broken.
#[must_use]
pub fn works(findings: &[Finding]) -> bool {
    finding::worst(findings) < State::Broken
}

fn title(facts: &Facts) -> String {
    let who = if facts.caller.is_root() { "root".to_owned() } else { format!("uid {}", facts.caller.uid) };
    format!("t3-trace doctor {}, Linux {}, as {who}", env!("CARGO_PKG_VERSION"), facts.kernel.release)
}

fn colour(args: &DoctorArgs) -> bool {
    let unwanted = args.plain || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !unwanted
}

#[cfg(test)]
mod tests;
