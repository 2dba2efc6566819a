//! Units checked by systemd: no unknown settings, and an exposure score within its limit.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use crate::{queries, unit_file::Unit};

const UNITS: &str = "deploy/systemd";
/// Upper limits of the `systemd-analyze security` score (0 to 10), which changes by 0.1 or 0.2
/// between versions of systemd.
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
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Copies the units to a folder, with existing programs in place of those not installed here.
fn copied_units() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let substitute = dir.path().join("program");
    fs::write(&substitute, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&substitute, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(queries::file(UNITS)).unwrap() {
        let entry = entry.unwrap();
        let mut text = fs::read_to_string(entry.path()).unwrap();
        let unit = Unit::read(&format!("{UNITS}/{}", entry.file_name().to_str().unwrap()));
        let commands = unit.settings.iter().filter(|setting| setting.name.starts_with("Exec"));
        for program in commands.map(|setting| setting.value.split(' ').next().unwrap()) {
            if !Path::new(program).exists() {
                text = text.replace(&format!("={program} "), &format!("={} ", substitute.display()));
            }
        }
        // Manuals may not be installed here.
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
fn systemd_accepts_every_line_of_every_unit() {
    let dir = copied_units();
    let names = fs::read_dir(queries::file(UNITS)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let units: Vec<_> = names.map(|name| dir.path().join(name.replace("@.", "@ann."))).collect();
    for unit in &units {
        // An instance has the file of its template.
        let template = unit.file_name().unwrap().to_str().unwrap().replace("@ann.", "@.");
        if !unit.exists() {
            fs::copy(dir.path().join(template), unit).unwrap();
        }
    }
    let mut words = vec!["verify", "--man=no", "--recursive-errors=no"];
    words.extend(units.iter().map(|unit| unit.to_str().unwrap()));
    let (ok, output) = analyze(&words, Some(dir.path()));
    assert!(ok && output.trim().is_empty(), "{output}");
    // systemd-analyze reports unknown settings.
    let unit = dir.path().join("wrong.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\nProtectEverything=yes\n").unwrap();
    let (_, output) = analyze(&["verify", "--man=no", unit.to_str().unwrap()], Some(dir.path()));
    assert!(output.contains("ProtectEverything"), "{output}");
}

/// `→ Overall exposure level for t3-trace.service: 1.4 OK`.
fn exposure(unit: &Path) -> f64 {
    let (_, output) = analyze(&["security", "--offline=yes", "--no-pager", unit.to_str().unwrap()], None);
    let line = output
        .lines()
        .find(|line| line.contains("Overall exposure level"))
        .unwrap_or_else(|| panic!("{output}"));
    line.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn no_unit_exceeds_its_exposure_limit() {
    for (name, most) in EXPOSURE {
        let level = exposure(&queries::file(&format!("{UNITS}/{name}")));
        assert!(level > 0.0 && level <= most, "{name}: {level}");
    }
}

#[test]
fn pairing_by_sudo_has_the_documented_exposure() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("t3-dispatch.service");
    fs::copy(queries::file("deploy/systemd/t3-dispatch.service"), &unit).unwrap();
    let drop_in = dir.path().join("t3-dispatch.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::copy(queries::file("deploy/examples/t3-dispatch-sudo.conf"), drop_in.join("sudo.conf")).unwrap();
    let level = exposure(&unit);
    assert!((6.0..8.0).contains(&level), "{level}");
}
