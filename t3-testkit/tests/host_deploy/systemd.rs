//! The units as systemd reads them: nothing it does not understand, and no more exposed than is
//! written down.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{queries, unit_file::Unit};

const UNITS: &str = "deploy/systemd";
/// The most that `systemd-analyze security` may say (0 to 10). systemd's own reckoning moves by a
/// tenth or two between versions.
const EXPOSURE: [(&str, f64); 4] = [
    ("t3-trace.service", 2.0),
    ("t3-dispatch.service", 1.4),
    ("t3-mint@.service", 3.5),
    ("t3-probe.service", 1.5),
];

fn analyze(arguments: &[&str], dir: Option<&Path>) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    if let Some(dir) = dir {
        command.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.display()));
    }
    let output = command.args(arguments).output().expect("systemd-analyze: install the package systemd");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The units in a folder of their own, with programs that exist in place of those that are not
/// installed here.
fn laid_out() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = dir.path().join("program");
    fs::write(&stand_in, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(queries::file(UNITS)).unwrap() {
        let entry = entry.unwrap();
        let mut text = fs::read_to_string(entry.path()).unwrap();
        let unit = Unit::read(&format!("{UNITS}/{}", entry.file_name().to_str().unwrap()));
        let commands = unit.settings.iter().filter(|setting| setting.name.starts_with("Exec"));
        for program in commands.map(|setting| setting.value.split(' ').next().unwrap()) {
            if !Path::new(program).exists() {
                text = text.replace(&format!("={program} "), &format!("={} ", stand_in.display()));
            }
        }
        // Manuals that are not installed here are no fault of the unit.
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(dir.path().join(entry.file_name()), text).unwrap();
    }
    dir
}

#[test]
fn systemd_understands_every_line_of_every_unit() {
    let dir = laid_out();
    let names = fs::read_dir(queries::file(UNITS)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let units: Vec<_> = names.map(|name| dir.path().join(name.replace("@.", "@ann."))).collect();
    for unit in &units {
        // An instance is its template.
        let template = unit.file_name().unwrap().to_str().unwrap().replace("@ann.", "@.");
        if !unit.exists() {
            fs::copy(dir.path().join(template), unit).unwrap();
        }
    }
    let mut words = vec!["verify", "--man=no", "--recursive-errors=no"];
    words.extend(units.iter().map(|unit| unit.to_str().unwrap()));
    let (ok, said) = analyze(&words, Some(dir.path()));
    assert!(ok && said.trim().is_empty(), "{said}");
    // It does say so.
    let unit = dir.path().join("wrong.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\nProtectEverything=yes\n").unwrap();
    let (_, said) = analyze(&["verify", "--man=no", unit.to_str().unwrap()], Some(dir.path()));
    assert!(said.contains("ProtectEverything"), "{said}");
}

/// `→ Overall exposure level for t3-trace.service: 1.4 OK`.
fn exposure(unit: &Path) -> f64 {
    let (_, said) = analyze(&["security", "--offline=yes", "--no-pager", unit.to_str().unwrap()], None);
    let line =
        said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{said}"));
    line.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn no_unit_is_more_exposed_than_is_written_down() {
    for (name, most) in EXPOSURE {
        let level = exposure(&queries::file(&format!("{UNITS}/{name}")));
        assert!(level > 0.0 && level <= most, "{name}: {level}");
    }
}

#[test]
fn pairing_by_sudo_costs_what_the_page_says() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("t3-dispatch.service");
    fs::copy(queries::file("deploy/systemd/t3-dispatch.service"), &unit).unwrap();
    let drop_in = dir.path().join("t3-dispatch.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::copy(queries::file("deploy/examples/t3-dispatch-sudo.conf"), drop_in.join("sudo.conf")).unwrap();
    let level = exposure(&unit);
    assert!((6.0..8.0).contains(&level), "{level}");
}
