//! Removal keeps the configuration; purging restores the state before the installation.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    Commands, Options, fixture,
    shell::{inventory, property, shell},
    steps::{KEPT, Steps, must},
    walk,
};
use crate::error::{Attempt, Result};

const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0";

pub(super) fn run(steps: &mut Steps, options: &Options) {
    steps.step("remove: units are stopped and removed, the configuration is kept", || {
        shell("systemctl stop t3-serve@alice t3-serve@bob")?;
        apt(options, "remove")?;
        for unit in ["t3-dispatch.service", "t3-dispatch.socket", "t3-trace.service", "t3-probe.service"] {
            let state = property(unit, "ActiveState")?;
            must(state != "active", &format!("{unit} stopped"), state)?;
        }
        must(!Path::new("/usr/bin/t3-dispatch").exists(), "no program", "/usr/bin/t3-dispatch")?;
        for file in ["/etc/t3-dispatch.toml", "/etc/t3-probe.toml"] {
            must(Path::new(file).exists(), file, "it is gone")?;
        }
        Ok("")
    });
    steps.step("purge: the host is in its state before the installation", || {
        fixture::clear()?;
        apt(options, "purge")?;
        shell("rm -rf /etc/systemd/system.control/t3-* /run/systemd/system.control/t3-*; systemctl daemon-reload; systemctl reset-failed 't3-*' || true")?;
        let file = Path::new(KEPT).join("before");
        let before = fs::read_to_string(&file).attempt(|| format!("read {}", file.display()))?;
        let before: BTreeSet<String> = before.lines().map(str::to_owned).collect();
        let now = inventory()?;
        let left: Vec<_> = now.difference(&before).map(|line| format!("left: {line}")).collect();
        let gone: Vec<_> = before.difference(&now).map(|line| format!("gone: {line}")).collect();
        must(left.is_empty() && gone.is_empty(), "the host as before", [left, gone].concat().join("\n"))?;
        let known = shell("dpkg-query -W 't3-*' 2>/dev/null || true")?;
        must(known.is_empty(), "no package known", known).map(|()| "")
    });
}

/// Removes or purges all packages; those of docs/INSTALL.md with its command.
fn apt(options: &Options, verb: &str) -> Result<String> {
    match options.commands {
        Commands::Page => {
            walk::command(walk::REMOVAL, &format!("apt {verb} "))?;
            shell(&format!("{APT} {verb} t3-probe t3-otlp"))
        }
        Commands::Apt | Commands::Migration => {
            shell(&format!("{APT} {verb} t3-dispatch t3-trace t3-probe t3-otlp"))
        }
    }
}
