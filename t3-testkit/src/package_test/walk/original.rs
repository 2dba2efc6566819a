//! The deployment from before the packages: a program without options in `/usr/local/bin`, its unit
//! and that of the serves in `/etc/systemd/system`, and the sudoers rule of its pairing.

use std::fs;

use super::super::{
    fixture,
    shell::{active, pid, shell},
};
use crate::error::{Attempt, Result};

/// Unit of t3-dispatch.
pub(super) const UNIT: &str = "/etc/systemd/system/t3-dispatch.service";
/// Unit text: a plain service of a separate user.
pub(super) const UNIT_TEXT: &str = "[Unit]\nDescription=t3 dispatch of the original deployment\n\
    After=network.target\n\n[Service]\nType=simple\nUser=t3-dispatch\n\
    ExecStart=/usr/local/bin/t3-dispatch\nRestart=on-failure\nRestartSec=5\n\n\
    [Install]\nWantedBy=multi-user.target\n";
/// In place of the Go binary: port 3780 on all addresses, and WebSockets.
const PROGRAM: (&str, &str) = (
    "/usr/local/bin/t3-dispatch",
    "#!/bin/sh\nexec /opt/t3/bin/t3-serve-standin --ip 0.0.0.0 --port 3780 --user original\n",
);
/// The serves of a user, which is not a unit of the packages.
const SERVE: (&str, &str) = (
    "/etc/systemd/system/t3-serve@.service",
    "[Unit]\nDescription=t3 serve of %i\n\n[Service]\nUser=%i\nGroup=%i\nEnvironment=HOME=/home/%i\n\
     EnvironmentFile=/etc/t3-serve/%i.env\nWorkingDirectory=/home/%i\n\
     ExecStart=/usr/bin/t3 serve --host 0.0.0.0 --port ${T3_PORT} --base-dir /home/%i/.t3\n\
     MemoryHigh=infinity\nMemoryMax=24G\nMemorySwapMax=0\nOOMPolicy=continue\n\n\
     [Install]\nWantedBy=multi-user.target\n",
);
const SUDOERS: (&str, &str) =
    ("/etc/sudoers.d/t3-autopair", "t3-dispatch ALL=(root) NOPASSWD: /usr/local/bin/t3-mint\n");
/// A token of the operator next to the routing table.
const TOKEN: (&str, &str) = ("/etc/t3-serve/chrome-service-token", "token-of-the-operator\n");

/// Installs and starts it as its install script does.
pub(super) fn install() -> Result<String> {
    shell(
        "useradd --system --no-create-home --shell /usr/sbin/nologin t3-dispatch && mkdir -p /etc/t3-serve",
    )?;
    fixture::configure()?;
    for (path, text) in [PROGRAM, SERVE, SUDOERS, TOKEN, (UNIT, UNIT_TEXT)] {
        fs::write(path, text).attempt(|| format!("write {path}"))?;
    }
    shell(&format!("chmod 755 {}; chmod 440 {}; chmod 600 {}", PROGRAM.0, SUDOERS.0, TOKEN.0))?;
    shell("systemctl daemon-reload; systemctl enable --now t3-serve@alice t3-serve@bob t3-dispatch")?;
    ["t3-serve@alice.service", "t3-serve@bob.service", "t3-dispatch.service"]
        .into_iter()
        .try_for_each(active)?;
    Ok(String::new())
}

/// What a migration leaves as it is: the routing table, environment files, tokens, t3-mint and its
/// sudoers rule, the unit of the serves, and their processes.
pub(super) fn kept() -> Result<Vec<String>> {
    let files = ["/etc/t3-serve/dispatch.json", "/etc/t3-serve/alice.env", "/usr/local/bin/t3-mint"];
    let files = files.into_iter().chain([TOKEN.0, SUDOERS.0, SERVE.0]);
    let mut found = Vec::new();
    for file in files {
        found.push(shell(&format!("stat -c '%n %a %U %G' {file} && cat {file}"))?);
    }
    for unit in ["t3-serve@alice.service", "t3-serve@bob.service"] {
        found.push(format!("{unit} {}", pid(unit)?));
    }
    Ok(found)
}

/// Removes what an operator would keep, so that the packaged units are tested next.
pub(super) fn remove() -> Result<String> {
    shell("systemctl disable --now t3-serve@alice t3-serve@bob")?;
    shell(&format!("rm {} {} {} && systemctl daemon-reload", TOKEN.0, SUDOERS.0, SERVE.0))
}

/// Whether the program of a unit owns the port of t3-dispatch.
pub(super) fn serves(unit: &str) -> Result<bool> {
    let owner = shell(&format!("ss -Hltnp 'sport = :{}'", fixture::DISPATCH.port()))?;
    Ok(owner.contains(&format!("pid={},", pid(unit)?)))
}
