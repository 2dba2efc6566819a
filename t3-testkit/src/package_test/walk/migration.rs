//! Walk of the migration: a host with the Go binary, the packages next to it, the switch, the
//! rollback, the switch again, and the end of the old files.

use std::{fs, path::Path};

use super::{
    super::{
        sessions::paired,
        shell::{active, doctor, pid, property, shell},
        steps::{Steps, must},
    },
    Promise, Site,
    original::{self, UNIT},
    tables::MIGRATION,
};
use crate::error::{Attempt, Result};

const OLD: &str = "t3-dispatch-go.service";
const NEW: [&str; 2] = ["t3-dispatch.socket", "t3-dispatch.service"];
const SWITCH: &str = "systemctl disable --now t3-dispatch-go; systemctl enable --now t3-dispatch.socket";

pub(super) const PROMISES: [Promise; 9] = [
    Promise { command: "sed ", check: renamed },
    Promise { command: "systemctl disable --now t3-dispatch; rm ", check: freed },
    Promise { command: "apt install", check: installed },
    Promise { command: "t3-dispatch check", check: checked },
    Promise { command: SWITCH, check: switched },
    Promise { command: "journalctl -u t3-dispatch -g paired", check: has_paired },
    Promise { command: "systemctl stop t3-dispatch.socket t3-dispatch;", check: rolled_back },
    Promise {
        command: "systemctl disable t3-dispatch.socket t3-dispatch; systemctl enable t3-dispatch-go",
        check: stays_so,
    },
    Promise { command: "rm /etc/systemd/system/t3-dispatch-go.service", check: completed },
];

/// Walks the section; returns the output of apt.
pub(in super::super) fn run(steps: &mut Steps, packages: &Path) -> String {
    let mut site = None;
    steps.step("the original deployment serves, with its unit and files", || {
        original::install()?;
        let mut at = Site::at(packages, "alice")?;
        at.before = original::kept()?;
        site = Some(at);
        must(original::serves("t3-dispatch.service")?, "the old program on the port", "another").map(|()| "")
    });
    let Some(mut site) = site else { return String::new() };
    site.walk(steps, MIGRATION, &PROMISES);
    steps.step("the original deployment is removed", original::remove);
    site.installed
}

fn renamed(_: &mut Site, _: &str) -> Result<String> {
    let file = "/etc/systemd/system/t3-dispatch-go.service";
    let text = fs::read_to_string(file).attempt(|| format!("read {file}"))?;
    must(text.contains("ExecStart=/usr/local/bin/t3-dispatch-go\n"), "the new name", text)
        .map(|()| String::new())
}

fn freed(_: &mut Site, _: &str) -> Result<String> {
    active(OLD)?;
    states(&["enabled"], &[OLD])?;
    must(!Path::new(UNIT).exists() && original::serves(OLD)?, "the old program on the port", "another")
        .map(|()| String::new())
}

/// Nothing else changes: the old process serves.
fn installed(site: &mut Site, output: &str) -> Result<String> {
    output.clone_into(&mut site.installed);
    active("t3-trace.service")?;
    let state = property("t3-dispatch.service", "ActiveState")?;
    must(state != "active", "a t3-dispatch that has not started", &state)?;
    must(original::serves(OLD)?, "the old program on the port", "another")?;
    unchanged(site)
}

fn checked(_: &mut Site, output: &str) -> Result<String> {
    states(&["disabled", "disabled", "enabled"], &[NEW[0], NEW[1], OLD])?;
    must(!output.contains("hides the packaged"), "no unit that hides another", output).map(|()| String::new())
}

/// The packaged unit is in effect, with its evidence; the old one no longer hides it.
fn switched(site: &mut Site, _: &str) -> Result<String> {
    NEW.into_iter().try_for_each(active)?;
    states(&["enabled", "enabled"], &NEW)?;
    let fragment = property("t3-dispatch.service", "FragmentPath")?;
    must(fragment.ends_with("/lib/systemd/system/t3-dispatch.service"), "the packaged unit", &fragment)?;
    let program = shell(&format!("readlink /proc/{}/exe", pid("t3-dispatch.service")?))?;
    must(program == "/usr/bin/t3-dispatch", "the packaged program", program)?;
    let record = site.session()?;
    let report = doctor()?;
    must(!report.contains("hides the packaged"), "no unit that hides another", report)?;
    paired("alice", "")?;
    unchanged(site)?;
    Ok(format!("verdict={} kernel={}", record.verdict, record.kernel))
}

fn has_paired(_: &mut Site, output: &str) -> Result<String> {
    must(output.contains("paired") && output.contains("alice"), "the pairing", output).map(|()| String::new())
}

fn rolled_back(site: &mut Site, _: &str) -> Result<String> {
    active(OLD)?;
    must(original::serves(OLD)?, "the old program on the port", "another")?;
    unchanged(site)
}

/// After the rollback, step 4 again.
fn stays_so(site: &mut Site, _: &str) -> Result<String> {
    states(&["disabled", "disabled", "enabled"], &[NEW[0], NEW[1], OLD])?;
    super::command(MIGRATION, SWITCH)?;
    switched(site, "")
}

/// Also: a later run of the original's install script is noticed.
fn completed(site: &mut Site, _: &str) -> Result<String> {
    NEW.into_iter().try_for_each(active)?;
    let left = shell("find /etc/systemd/system /usr/local/bin -name 't3-dispatch*' -not -name '*.d'")?;
    let is_ours = |line: &&str| line.contains("t3-dispatch-go");
    must(!left.lines().any(|line| is_ours(&line)), "no old file", left)?;
    fs::write(UNIT, original::UNIT_TEXT).attempt(|| format!("write {UNIT}"))?;
    let output = shell("t3-dispatch check; t3-trace doctor --color=never | grep -A2 units || true");
    fs::remove_file(UNIT).attempt(|| format!("remove {UNIT}"))?;
    let output = output?;
    let named = output.matches(&format!("{UNIT} hides the packaged")).count();
    must(named >= 1, "check and doctor name the unit", output)?;
    unchanged(site)
}

fn unchanged(site: &Site) -> Result<String> {
    let now = original::kept()?;
    must(now == site.before, "the files and serves of the operator", format!("{:#?}\n{now:#?}", site.before))
        .map(|()| String::new())
}

/// `UnitFileState` of units.
fn states(expected: &[&str], units: &[&str]) -> Result<()> {
    let found = units.iter().map(|unit| property(unit, "UnitFileState"));
    let found: Vec<String> = found.collect::<Result<_>>()?;
    must(found == expected, &format!("{expected:?} of {units:?}"), found.join(", "))
}
