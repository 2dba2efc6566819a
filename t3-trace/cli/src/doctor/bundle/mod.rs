//! What a bug report needs, in one tar: the report, versions, unit files, the last records. Users,
//! addresses and credentials are taken out: records by what each key may hold ([`records`]), unit
//! files by which directives matter ([`unit_file`]), all text by [`redact`].

mod records;
mod redact;
mod unit_file;

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use t3_record::journal::CLOSE_ID;
use t3_trace_host::{
    clock,
    journal_trust::{DISPATCH_USER, Trust},
};

use super::{collect::run, facts::Facts, finding::Finding, report};
use crate::journal::json_entry;
use redact::Redactor;

/// The folder within the tar.
const FOLDER: &str = "t3-doctor";
/// How many of the last records go along.
const RECORDS: &str = "--lines=200";
/// Users of people begin here (`UID_MIN` of login.defs).
const FIRST_PERSON: u32 = 1000;

const README: &str = "\
What t3-trace doctor --bundle gathered for a bug report.

report.txt, report.json  what the doctor said
versions.txt             of the programs, the kernel and systemd
units.txt                unit files: only what matters here; values of environments, credentials and arguments are left out
records.txt              the last closes: numbers and words of fixed vocabularies only

Names of users are user-1, user-2, ...; addresses are address-1, ...; the same name has the same number throughout. What looked like a
credential, a token or a query string is [removed]. Look through it before you send it.
";

/// Writes the bundle into a new file that only its owner may read.
///
/// # Errors
/// When it is there already, or cannot be written.
pub(super) fn write(path: &Path, facts: &Facts, findings: &[Finding]) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!("it is there already; choose another name"),
        _ => error.into(),
    })?;
    let mut redactor = Redactor::new(names(facts));
    let parts = parts(facts, findings, &mut redactor)?;
    pack(file, &parts).context("pack it")
}

/// Every part: its name, and its text without anything that is not meant to leave the machine.
fn parts(
    facts: &Facts,
    findings: &[Finding],
    redactor: &mut Redactor,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let findings = redacted(findings, redactor);
    let text = report::text(&findings, &super::title(facts), false);
    let json = report::json(&findings, &facts.kernel.release).context("write the report as JSON")?;
    let records = last_records(redactor);
    Ok(vec![
        ("README.txt", README.to_owned()),
        ("report.txt", redactor.text(&text)),
        ("report.json", json),
        ("versions.txt", redactor.text(&versions(facts))),
        ("units.txt", redactor.text(&units(facts))),
        ("records.txt", records),
    ])
}

/// Value by value, each on one line, before anything breaks lines: JSON must stay JSON, and a word
/// must not be parted from what it announces.
fn redacted(findings: &[Finding], redactor: &mut Redactor) -> Vec<Finding> {
    let mut clean = |text: &str| redactor.text(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut one = |finding: &Finding| Finding {
        about: finding.about.as_deref().map(&mut clean),
        says: clean(&finding.says),
        advice: finding.advice.as_deref().map(&mut clean),
        ..finding.clone()
    };
    findings.iter().map(&mut one).collect()
}

/// Everybody who might be named: people of this machine, users and logins of the routing table, the
/// machine itself.
fn names(facts: &Facts) -> BTreeSet<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let person = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        (FIRST_PERSON..65_534).contains(&uid).then(|| name.to_owned())
    };
    let mut names: BTreeSet<String> = passwd.lines().filter_map(person).collect();
    names.extend(facts.serves.iter().flatten().map(|serve| serve.user.clone()));
    names.insert(rustix::system::uname().nodename().to_string_lossy().into_owned());
    names
}

fn versions(facts: &Facts) -> String {
    let first = |program: &str| {
        let said = run(program, &["--version"]).unwrap_or_else(|why| why);
        said.lines().next().unwrap_or_default().to_owned()
    };
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os =
        os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown").replace('"', "");
    format!(
        "t3-trace {}\n{}\nLinux {} {}\n{os}\n{}\n",
        env!("CARGO_PKG_VERSION"),
        first("t3-dispatch"),
        facts.kernel.release,
        std::env::consts::ARCH,
        first("systemctl"),
    )
}

fn units(facts: &Facts) -> String {
    let mut out = String::new();
    for (name, unit) in &facts.units {
        out.push_str(&format!("# {name}: {} {}\n", unit.load, unit.active));
        for file in &unit.files {
            let text = fs::read_to_string(file).unwrap_or_default();
            out.push_str(&format!("# {}\n{}\n", file.display(), unit_file::kept(&text)));
        }
    }
    out
}

fn last_records(redactor: &mut Redactor) -> String {
    let id = format!("MESSAGE_ID={CLOSE_ID}");
    let text = match run("journalctl", &["--quiet", "--no-pager", "--output=json", "--all", RECORDS, &id]) {
        Ok(text) => text,
        Err(why) => return redactor.text(&format!("no records: {why}\n")),
    };
    let trust = Trust::in_user(DISPATCH_USER);
    let records = text.lines().filter_map(|line| json_entry::close(line, trust).ok().flatten());
    records.map(|(record, at)| format!("{at} {}\n", records::line(&record, redactor))).collect()
}

fn pack(file: File, parts: &[(&str, String)]) -> io::Result<()> {
    let mut tar = tar::Builder::new(file);
    for (name, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(clock::realtime_secs());
        tar.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.flush()
}

#[cfg(test)]
mod tests;
