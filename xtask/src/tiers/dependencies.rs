//! Crates that must not link others: the privileged daemon of t3-trace links nothing that parses
//! network data or draws on a terminal, the command-line half does not link the daemon, and the
//! proxy links no OTLP.

use std::time::Instant;

use anyhow::Result;

use crate::tools::report::{Counts, Step};
use crate::tools::run::stdout_of;
use crate::tools::{cargo, progress};

/// (crate, crates that it must not depend on)
const FORBIDDEN: [(&str, &[&str]); 3] = [
    (
        "t3-trace-daemon",
        &[
            "hyper",
            "http",
            "rustls",
            "tokio-rustls",
            "rustls-native-certs",
            "webpki-roots",
            "ratatui",
            "crossterm",
            "tar",
            "opentelemetry-proto",
            "t3-http-client",
            "t3-trace-cli",
        ],
    ),
    ("t3-trace-cli", &["t3-trace-daemon"]),
    ("t3-dispatch", &["opentelemetry-proto", "prost"]),
];

/// Runs `cargo tree` for each crate.
pub fn step() -> Result<Step> {
    let begin = Instant::now();
    progress::step("dependencies of the privileged daemon");
    let mut findings = Vec::new();
    for (name, forbidden) in FORBIDDEN {
        let mut tree = cargo::cargo();
        tree.args(["tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "--format", "{p}"]);
        findings.extend(
            forbidden_in(&stdout_of(&mut tree)?, forbidden).map(|found| format!("{name} links {found}")),
        );
    }
    findings.iter().for_each(|finding| progress::note(finding));
    let ok = findings.is_empty();
    let step = Step::new("dependencies of the privileged daemon", ok, Counts::one(ok), begin.elapsed());
    let step = if ok { step } else { step.because(findings.join(", ")) };
    step.say();
    Ok(step)
}

/// `tree`: one line per crate, its name first.
fn forbidden_in<'a>(tree: &'a str, forbidden: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    forbidden.iter().copied().filter(move |name| names.clone().any(|found| found == *name))
}

#[cfg(test)]
mod tests {
    use super::{FORBIDDEN, forbidden_in};

    #[test]
    fn a_forbidden_crate_is_found_by_its_full_name() {
        let tree = "t3-trace-daemon v0.1.0 (/w)\nhttp-body v1.0.0\ntokio v1.0.0\n";
        assert_eq!(forbidden_in(tree, FORBIDDEN[0].1).count(), 0);
        let tree = format!("{tree}http v1.0.0\ntar v0.4.0 (*)\n");
        assert_eq!(forbidden_in(&tree, FORBIDDEN[0].1).collect::<Vec<_>>(), ["http", "tar"]);
    }
}
