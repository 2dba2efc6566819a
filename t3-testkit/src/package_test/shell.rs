//! Shell commands of an operator, and the inventory of a host: files, users, units.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use super::steps::must;
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

/// Timeout for a unit to reach a state.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a shell command as root; returns its output, which is also in the error.
pub(super) fn shell(line: &str) -> Result<String> {
    let (ok, text) = run(Command::new("sh").args(["-c", line]), line)?;
    must(ok, &format!("`{line}` succeeds"), &text)?;
    Ok(text)
}

/// Runs a shell command as a user with that user's groups; returns success and output.
pub(super) fn as_user(user: &str, line: &str) -> Result<(bool, String)> {
    run(user_command(user).args(["sh", "-c", line]), line)
}

/// A command that runs its further arguments as this user.
pub(super) fn user_command(user: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]);
    command.env("HOME", format!("/home/{user}")).env("TERM", "dumb").current_dir("/");
    command
}

fn run(command: &mut Command, what: &str) -> Result<(bool, String)> {
    let output = command.stdin(Stdio::null()).output().attempt(|| format!("start `{what}`"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text.trim().to_owned()))
}

/// Waits until a unit is active.
pub(super) fn active(unit: &str) -> Result<()> {
    reaches(unit, "active")
}

/// Waits until a unit is in this `ActiveState`; the error has its last state and log lines.
pub(super) fn reaches(unit: &str, state: &str) -> Result<()> {
    let mut last = String::new();
    let reached = wait::until(&format!("{unit} {state}"), TIMEOUT, || {
        last = property(unit, "ActiveState").unwrap_or_default();
        (last == state).then_some(())
    });
    reached.map_err(|error| TestError::Unexpected {
        what: error.to_string(),
        got: format!(
            "{last}\n{}",
            shell(&format!("systemctl status --no-pager --lines=30 {unit} || true")).unwrap_or_default()
        ),
    })
}

/// One property of a unit.
pub(super) fn property(unit: &str, name: &str) -> Result<String> {
    shell(&format!("systemctl show --value --property={name} {unit}"))
}

/// The main process of a unit; 0 if it has none.
pub(super) fn pid(unit: &str) -> Result<u32> {
    let text = property(unit, "MainPID")?;
    text.parse().map_err(|_| TestError::Unexpected { what: format!("MainPID of {unit}"), got: text })
}

/// What `t3-trace doctor` reports; an error with anything BROKEN.
pub(super) fn doctor() -> Result<String> {
    let text = shell("t3-trace doctor")?;
    must(!text.contains("BROKEN"), "nothing broken", text.as_str())?;
    Ok(text)
}

/// Everything that a package could leave behind: files outside of logs, caches and the state of
/// this test; users, groups and units.
pub(super) fn inventory() -> Result<BTreeSet<String>> {
    const ELSEWHERE: [&str; 17] = [
        "/var/log",
        "/var/cache",
        "/var/tmp",
        "/tmp",
        "/var/lib/apt",
        "/var/lib/dpkg",
        "/var/lib/systemd/catalog",
        "/var/lib/systemd/timers",
        "/var/lib/systemd/random-seed",
        "/var/lib/private",
        // Of this test; not t3-trace's directory.
        "/var/lib/t3-package-test*",
        "/var/lib/t3-vm*",
        "/home",
        "/root",
        "/opt/t3",
        "/out",
        "/etc/*-",
    ];
    let pruned: Vec<String> = ELSEWHERE.iter().map(|path| format!("-path '{path}'")).collect();
    let files = shell(&format!("find / -xdev \\( {} \\) -prune -o -print", pruned.join(" -o ")))?;
    // Other mounts: only files of t3.
    let run = shell(
        "find /run /dev/shm -xdev -name '*t3*' -not -name 't3-vm*' -not -path '/run/systemd/*' 2>/dev/null || true",
    )?;
    let mut found: BTreeSet<String> = files.lines().chain(run.lines()).map(str::to_owned).collect();
    for file in ["passwd", "group", "shadow", "gshadow"] {
        let path = format!("/etc/{file}");
        let text = fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
        found.extend(text.lines().map(|line| format!("{file}: {line}")));
    }
    let units = shell("systemctl list-unit-files --no-legend --no-pager 't3-*'")?;
    found.extend(units.lines().filter_map(|line| Some(format!("unit: {}", line.split_whitespace().next()?))));
    Ok(found)
}
