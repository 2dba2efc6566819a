//! `cargo xtask faults`: the table of faults by tier. Runs the catalogue on this host and adds the
//! results of the last `cargo xtask vm-test`. A tier that has not run has no column; a fault that
//! did not run has not passed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::tools::programs;
use crate::tools::{cargo, paths, progress, sudo};
use crate::vm::suite::Suite;

const PACKAGE: &str = "t3-testkit";
const PROGRAM: &str = "t3-faults";

#[derive(Debug, Args)]
pub struct FaultsArgs {
    /// Run only this fault (repeatable).
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Print the table of the last run, without running faults.
    #[arg(long)]
    pub last: bool,
}

pub fn run(args: &FaultsArgs) -> Result<ExitCode> {
    let dir = paths::target().join("faults");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let (host, records) = (dir.join("host.json"), dir.join("records.json"));
    let ran = if args.last { true } else { on_host(args, &host, &records)? };
    let mut tiers = Vec::new();
    tiers.extend(read("host", &host)?);
    for suite in Suite::ALL {
        tiers.extend(read(suite.name(), &paths::vm().join(suite.name()).join("run/out/results.json"))?);
    }
    if tiers.is_empty() {
        bail!("no tier has run yet; run without --last");
    }
    let table = Table::of(&tiers);
    println!("\n{}", table.text);
    progress::note(&format!("real records of each verdict: {}", paths::short(&records)));
    Ok(if ran && table.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the catalogue here, as root if possible; `false` when a record differs from its
/// expectation.
fn on_host(args: &FaultsArgs, rows: &Path, records: &Path) -> Result<bool> {
    programs::build()?;
    let Some(program) = cargo::binary(PACKAGE, PROGRAM, false)? else {
        bail!("{PACKAGE} has no program `{PROGRAM}`");
    };
    let mut command = sudo::command(&program).unwrap_or_else(|| {
        progress::note("no root and no `sudo -n`: the faults need root for a private journald");
        Command::new(&program)
    });
    command.arg("--json").arg(rows).arg("--records").arg(records);
    for name in &args.only {
        command.args(["--only", name]);
    }
    progress::step("injecting faults on this host, a few minutes");
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("{PROGRAM} could not run: {status}"),
    }
}

/// Name of a tier, and its rows in order.
type Tier = (String, Vec<Value>);

fn read(name: &str, path: &Path) -> Result<Option<Tier>> {
    let Ok(text) = fs::read(path) else { return Ok(None) };
    let rows = serde_json::from_slice(&text)
        .with_context(|| format!("cannot read {} as output of {PROGRAM} --json", path.display()))?;
    Ok(Some((name.to_owned(), rows)))
}

struct Table {
    text: String,
    wrong: usize,
}

impl Table {
    /// One row per fault, one column per tier.
    fn of(tiers: &[Tier]) -> Self {
        let mut faults: Vec<(&str, &str)> = Vec::new();
        let mut cells: BTreeMap<(&str, &str), String> = BTreeMap::new();
        let mut whys: Vec<String> = Vec::new();
        let (mut wrong, mut right) = (0, 0);
        for (tier, rows) in tiers {
            for row in rows {
                let text = |key: &str| row[key].as_str().unwrap_or_default();
                if !faults.iter().any(|(name, _)| *name == text("fault")) {
                    faults.push((text("fault"), text("expected")));
                }
                let cell = match &row["outcome"] {
                    Value::String(word) if word == "passed" => {
                        right += 1;
                        "right".to_owned()
                    }
                    outcome if outcome.get("impossible").is_some() => {
                        let why = outcome["impossible"].as_str().unwrap_or_default();
                        whys.push(format!("{tier}: {}: {why}", text("fault")));
                        "-".to_owned()
                    }
                    _ => {
                        wrong += 1;
                        format!("WRONG {}", text("got"))
                    }
                };
                cells.insert((text("fault"), tier), cell);
            }
        }
        let width =
            |least: usize, all: &mut dyn Iterator<Item = usize>| all.max().unwrap_or(0).max(least) + 2;
        let first = width(5, &mut faults.iter().map(|(name, _)| name.len()));
        let second = width(8, &mut faults.iter().map(|(_, expected)| expected.len()));
        let mut text = format!("{:<first$}{:<second$}", "fault", "expected");
        for (tier, _) in tiers {
            let _ = write!(text, "{tier:<12}");
        }
        text.push('\n');
        for (fault, expected) in &faults {
            let _ = write!(text, "{fault:<first$}{expected:<second$}");
            for (tier, _) in tiers {
                let cell = cells.get(&(*fault, tier.as_str())).map_or("not run", String::as_str);
                let _ = write!(text, "{cell:<12}");
            }
            text = text.trim_end().to_owned();
            text.push('\n');
        }
        if !whys.is_empty() {
            let _ = write!(text, "\nnot possible:\n  {}\n", whys.join("\n  "));
        }
        let _ = write!(
            text,
            "\n{} faults: {right} right, {wrong} wrong, {} not possible",
            faults.len(),
            whys.len()
        );
        Self { text, wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::Table;
    use serde_json::json;

    #[test]
    fn each_tier_is_a_column_and_a_missing_run_is_shown() {
        let row = |fault: &str, outcome| json!({"fault": fault, "expected": "e x", "got": "g y", "outcome": outcome});
        let miss = json!({"failed": [{"key": "how", "expected": "x", "got": "y"}]});
        let tiers = [
            ("host".to_owned(), vec![row("a", json!("passed")), row("b", json!({"impossible": "needs z"}))]),
            ("trixie".to_owned(), vec![row("a", miss), row("c", json!("passed"))]),
        ];
        let table = Table::of(&tiers);
        assert_eq!(table.wrong, 1);
        let lines: Vec<_> =
            table.text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "fault expected host trixie");
        assert_eq!(lines[1], "a e x right WRONG g y");
        assert_eq!(lines[2], "b e x - not run");
        assert_eq!(lines[3], "c e x not run right");
        assert!(table.text.contains("host: b: needs z"));
        assert!(table.text.ends_with("3 faults: 2 right, 1 wrong, 1 not possible"));
    }
}
