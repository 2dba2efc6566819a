//! Installation by apt, without a network, on a plain Debian; and the state afterwards.

use std::{fs, path::Path};

use t3_record::wire::{Hook, SOCKET_PATH};

use super::{
    Commands, Options, fixture,
    shell::{active, doctor, inventory, property, shell},
    steps::{KEPT, Steps, must},
    walk,
};
use crate::{
    error::{Attempt, Result, TestError},
    harness::trace_status,
};

/// Files that must exist, at least one of each kind.
const FILES: [&str; 29] = [
    "/usr/bin/t3-dispatch",
    "/usr/bin/t3-trace",
    "/usr/lib/t3-trace/t3-trace-daemon",
    "/usr/lib/systemd/system/t3-dispatch.service",
    "/usr/lib/systemd/system/t3-serve@.service",
    "/usr/lib/systemd/system/t3-trace.service",
    "/etc/t3-trace.toml",
    "/usr/lib/systemd/catalog/t3-dispatch.catalog",
    "/etc/t3-dispatch.toml",
    "/usr/share/man/man8/t3-dispatch.8.gz",
    "/usr/share/man/man8/t3-trace.8.gz",
    "/usr/share/bash-completion/completions/t3-trace",
    "/usr/share/zsh/vendor-completions/_t3-trace",
    "/usr/share/fish/vendor_completions.d/t3-trace.fish",
    "/usr/share/doc/t3-dispatch/copyright",
    "/usr/share/doc/t3-trace/DOCTOR.md",
    "/usr/share/doc/t3-trace/changelog.Debian.gz",
    "/usr/bin/t3-probe",
    "/usr/lib/systemd/system/t3-probe.service",
    "/etc/t3-probe.toml",
    "/usr/share/man/man8/t3-probe-once.8.gz",
    "/usr/share/doc/t3-probe/PROBE.md",
    "/usr/bin/t3-otlp",
    "/usr/lib/systemd/system/t3-otlp.service",
    "/etc/t3-otlp.toml",
    "/usr/share/doc/t3-otlp/OTLP.md",
    "/usr/share/doc/t3-otlp/THIRD-PARTY-LICENCES",
    "/usr/share/doc/t3-trace/THIRD-PARTY-LICENCES",
    "/usr/share/doc/t3-trace/RUST-COPYRIGHT.html",
];
/// Units with the upper limit of their `systemd-analyze security` score.
const SCORES: [(&str, f64); 4] = [
    ("t3-trace.service", 2.5),
    ("t3-dispatch.service", 1.5),
    ("t3-probe.service", 1.7),
    ("t3-otlp.service", 2.0),
];

/// The command that installs a folder of packages.
pub(super) fn apt(dir: &Path) -> String {
    format!(
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends install {}/*.deb",
        dir.display()
    )
}

pub(super) fn run(steps: &mut Steps, options: &Options) {
    steps.step("inventory of the host before the installation", || {
        // Images exclude documentation, which the test checks.
        shell("rm -f /etc/dpkg/dpkg.cfg.d/*mmdebstrap* && mkdir -p /var/log/journal && journalctl --flush")?;
        fixture::prepare()?;
        fs::create_dir_all(KEPT).attempt(|| format!("make {KEPT}"))?;
        let before = inventory()?;
        let text: String = before.iter().map(|line| format!("{line}\n")).collect();
        fs::write(Path::new(KEPT).join("before"), text).attempt(|| "keep the list of files".to_owned())?;
        Ok(format!("{} files, users and units", before.len()))
    });
    let first = options.packages.join("first");
    let mut output = match options.commands {
        Commands::Apt => String::new(),
        Commands::Page => walk::fresh(steps, &first),
        Commands::Migration => walk::migration(steps, &first),
    };
    steps.step("apt-get install of all packages, without a network", || {
        output += &shell(&apt(&first))?;
        Ok("")
    });
    steps.step("the installation prints the next commands and the groups to join", || {
        let wanted = [
            "t3-dispatch check",
            "usermod -aG t3-trace,systemd-journal NAME",
            "systemctl enable --now t3-probe",
            "systemctl enable --now t3-otlp",
        ];
        must(wanted.iter().all(|text| output.contains(text)), "all hints", &output).map(|()| "")
    });
    steps.step("dpkg --verify finds no changed file", || {
        let text = shell("dpkg --verify t3-dispatch t3-trace t3-probe t3-otlp; dpkg --audit")?;
        must(text.is_empty(), "nothing to report", text).map(|()| "")
    });
    steps.step("programs, units, man pages, completions, catalogue and licences are installed", || {
        let missing: Vec<_> = FILES.into_iter().filter(|file| !Path::new(file).exists()).collect();
        must(missing.is_empty(), "every file", missing.join(" "))?;
        shell("t3-dispatch --version && t3-trace --version && t3-probe --version && t3-otlp --version")
    });
    steps.step("users and groups exist, with their memberships", || {
        let text = shell("id t3-dispatch && getent group t3-trace")?;
        must(text.contains("t3-trace"), "t3-dispatch in the group t3-trace", &text).map(|()| text)
    });
    if options.commands == Commands::Apt {
        steps.step("t3-trace is active, t3-dispatch is not without a routing table", || {
            active("t3-trace.service")?;
            let state = property("t3-dispatch.service", "ActiveState")?;
            must(state != "active", "no dispatch without a routing table", &state).map(|()| state)
        });
    }
    steps.step("with a routing table and ports, systemctl start works for all units", || {
        fixture::configure()?;
        shell("t3-dispatch check")?;
        shell("systemctl start t3-serve@alice t3-serve@bob t3-dispatch")?;
        let units =
            ["t3-serve@alice.service", "t3-serve@bob.service", "t3-dispatch.service", "t3-trace.service"];
        units.into_iter().try_for_each(active).map(|()| "")
    });
    steps.step("the packaged configuration is valid and sets only mint-socket", || {
        let text = shell("t3-dispatch check")?;
        let set: Vec<_> = text.lines().filter(|line| line.contains("(file ")).collect();
        let right = matches!(set[..], [one] if one.starts_with("mint-socket = /run/t3-mint.sock "));
        must(right, "one option that is set: mint-socket", &text).map(|()| "")
    });
}

/// Effect of the units' sandboxes on t3-trace, and their scores.
pub(super) fn sandbox(steps: &mut Steps) {
    steps.step("t3-trace attaches the same hooks in its sandbox as outside", || {
        let inside = trace_status(Path::new(SOCKET_PATH))?;
        must(inside.dispatch, "dispatch connected to it", format!("{inside:?}"))?;
        let hooks = outside()?;
        must(attached(&inside.hooks) == attached(&hooks), "the same hooks", format!("{:#?}", inside.hooks))?;
        let count = inside.hooks.iter().filter(|hook| hook.attached.is_some()).count();
        must(count > 0, "hooks", format!("{:#?}", inside.hooks))?;
        Ok(format!("{count} of {} hooks", inside.hooks.len()))
    });
    steps.step("the hardware clock is visible and readable in the sandbox of t3-dispatch", || {
        let clock = "/sys/class/rtc/rtc0/since_epoch";
        let inside = "$(systemctl show --value -p MainPID t3-dispatch.service)";
        let seconds = shell(&format!("test -r {clock} && cat /proc/{inside}/root{clock}"))?;
        must(seconds.parse::<u64>().is_ok(), "seconds", seconds.as_str())?;
        shell(&format!("stat --dereference --format %A {clock}")).and_then(|mode| {
            must(mode.ends_with("r--"), "readable for all", mode.as_str())?;
            Ok(format!("{seconds} s"))
        })
    });
    steps.step("t3-trace doctor reports nothing BROKEN", || {
        let text = doctor()?;
        Ok(format!(
            "{} warnings",
            text.lines().filter(|line| line.trim_start().starts_with("warning")).count()
        ))
    });
    for (unit, limit) in SCORES {
        steps.step(&format!("systemd-analyze security {unit} is below {limit}"), || {
            let text = shell(&format!("systemd-analyze security --no-pager {unit}"))?;
            let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
            let score = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
            must(score.is_some_and(|score| score < limit), "a lower score", text.as_str())?;
            Ok(score.unwrap_or_default().to_string())
        });
    }
    for unit in ["t3-mint@x.service", "t3-serve@alice.service"] {
        steps.step(&format!("systemd-analyze security {unit} prints a score"), || {
            let text = shell(&format!("systemd-analyze security --no-pager {unit}"))?;
            let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
            Ok(line.rsplit(": ").next().unwrap_or_default().to_owned())
        });
    }
}

/// The hooks of a second t3-trace, run as root outside of a unit.
fn outside() -> Result<Vec<Hook>> {
    let (socket, state) = ("/run/t3-package-test.sock", "/run/t3-package-test.state");
    let mut command = std::process::Command::new("t3-trace");
    command.args(["daemon", "--socket", socket, "--state-dir", state, "--log", "stderr"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    crate::sys::dies_with_us(&mut command);
    let mut daemon =
        command.stderr(std::process::Stdio::null()).spawn().attempt(|| "start t3-trace".to_owned())?;
    let status =
        crate::wait::until("a t3-trace outside of its unit", std::time::Duration::from_secs(20), || {
            trace_status(Path::new(socket)).ok()
        });
    let _ = daemon.kill();
    let _ = daemon.wait();
    let _ = fs::remove_file(socket);
    let _ = fs::remove_dir_all(state);
    status.map(|status| status.hooks).map_err(|error| TestError::Unexpected {
        what: "the hooks outside of the unit".to_owned(),
        got: error.to_string(),
    })
}

fn attached(hooks: &[Hook]) -> Vec<(&str, Option<&str>)> {
    hooks.iter().map(|hook| (hook.name.as_str(), hook.attached.as_deref())).collect()
}
