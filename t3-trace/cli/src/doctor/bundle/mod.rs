//! Data for a bug report in one tar: the report, versions, unit files, the last records. Users,
//! addresses and credentials are removed: from records by the type of each key ([`records`]), from
//! unit files by directive ([`unit_file`]), from all text by [`redact`].

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

/// Folder in the tar.
const FOLDER: &str = "t3-doctor";
/// Number of records.
const RECORDS: &str = "--lines=200";
/// First uid of ordinary users (`UID_MIN` of login.defs).
const FIRST_USER: u32 = 1000;

const README: &str = "\
Data of t3-trace doctor --bundle for a bug report.

report.txt, report.json  the report
versions.txt             versions of the programs, the kernel and systemd
units.txt                unit files: directives that matter here; values of environments, credentials and arguments are removed
records.txt              the last closes: numbers and values of fixed vocabularies only

Users are user-1, user-2, ...; addresses are address-1, ...; the same name always has the same number. Text that looks
like a credential, a token or a query string is [removed]. Review the files before you send them.
";

/// Writes the bundle to a new file that only its owner may read.
///
/// # Errors
/// The file exists, or cannot be written.
pub(super) fn write(path: &Path, facts: &Facts, findings: &[Finding]) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!("the file exists; choose another name"),
        _ => error.into(),
    })?;
    let mut redactor = Redactor::new(names(facts));
    let parts = parts(facts, findings, &mut redactor)?;
    pack(file, &parts).context("cannot write the tar")
}

/// Parts of the bundle: name and text without private data.
fn parts(
    facts: &Facts,
    findings: &[Finding],
    redactor: &mut Redactor,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let findings = redacted(findings, redactor);
    let text = report::text(&findings, &super::title(facts), report::WIDTH, false);
    let json = report::json(&findings, &facts.kernel.release).context("cannot write the report as JSON")?;
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

/// Redacts each value on one line, before lines are broken: JSON must stay valid, and a keyword
/// must stay next to its secret.
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

/// Names to remove: users of this host, users of the routing table, the host name.
fn names(facts: &Facts) -> BTreeSet<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        (FIRST_USER..65_534).contains(&uid).then(|| name.to_owned())
    };
    let mut names: BTreeSet<String> = passwd.lines().filter_map(user).collect();
    names.extend(facts.serves.iter().flatten().map(|serve| serve.user.clone()));
    names.insert(rustix::system::uname().nodename().to_string_lossy().into_owned());
    names
}

fn versions(facts: &Facts) -> String {
    let first = |program: &str| {
        let output = run(program, &["--version"]).unwrap_or_else(|why| why);
        output.lines().next().unwrap_or_default().to_owned()
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
            out.push_str(&format!("# {}\n{}\n", file.display(), unit_file::redacted(&text)));
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
