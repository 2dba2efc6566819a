//! A fake serve as the unit of an operator: `t3-serve@USER.service`, started by systemd from a
//! template in `/run`, in the cgroup of the unit. Requires systemd as PID 1. Stopped on drop; the
//! template stays until `/run` is cleared or [`forget_template`].
//!
//! The process is a child of systemd: its end is read from procfs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    error::{Attempt, Result, TestError},
    sys, wait,
};

/// Folder of the control sockets and arguments of units.
pub const RUN: &str = "/run/t3-testkit";
const TEMPLATE: &str = "/run/systemd/system/t3-serve@.service";

/// Whether systemd is PID 1 and this is root.
#[must_use]
pub fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir() && sys::is_root()
}

/// A running unit.
#[derive(Debug)]
pub struct Unit {
    name: String,
    pid: u32,
    /// Folder on cgroup v2.
    pub cgroup: PathBuf,
}

impl Unit {
    /// Starts `t3-serve@INSTANCE.service` with these arguments, without white space.
    pub fn start(instance: &str, program: &Path, arguments: &[String]) -> Result<Self> {
        install(program)?;
        let file = Path::new(RUN).join(format!("{instance}.env"));
        let text = format!("ARGUMENTS={}\n", arguments.join(" "));
        fs::write(&file, text).attempt(|| format!("write {}", file.display()))?;
        let name = format!("t3-serve@{instance}.service");
        systemctl(&["start", &name])?;
        let pid = systemctl(&["show", "--property=MainPID", "--value", &name])?;
        let pid = pid.trim().parse().ok().filter(|pid| *pid > 0).ok_or_else(|| TestError::Unexpected {
            what: format!("the main process of {name}"),
            got: format!("MainPID={}", pid.trim()),
        })?;
        let membership = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&membership).attempt(|| format!("read {membership}"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let cgroup = Path::new("/sys/fs/cgroup").join(path);
        if !cgroup.ends_with(&name) {
            return Err(TestError::Unexpected { what: format!("{name} in a separate cgroup"), got: text });
        }
        Ok(Self { name, pid, cgroup })
    }

    /// Main process at the start.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// `systemctl restart`, as by an operator or an upgrade.
    pub fn restart(&self) -> Result<()> {
        systemctl(&["restart", &self.name]).map(drop)
    }

    /// Whether the first main process has ended; a zombie counts as ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
    }

    /// The last log lines, each with the name of the unit.
    #[must_use]
    pub fn stderr(&self) -> String {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--boot", "--no-pager", "--output=cat", "--lines=40", "--unit", &self.name]);
        let output = journalctl.stdin(Stdio::null()).output().map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&output);
        text.lines().map(|line| format!("    {}: {line}\n", self.name)).collect()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // Limits that a fault has set must not keep the processes alive.
        for (file, word) in [("cgroup.freeze", "0"), ("cpu.max", "max"), ("memory.high", "max")] {
            let _ = fs::write(self.cgroup.join(file), word);
        }
        // cgroup.kill exists since Linux 5.14: kill each process until none is left.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let procs = self.cgroup.join("cgroup.procs");
        let _ = wait::until("an empty unit", Duration::from_secs(10), || {
            let text = fs::read_to_string(&procs).unwrap_or_default();
            for pid in text.lines().filter_map(|line| line.parse().ok()) {
                let _ = sys::signal(pid, libc::SIGKILL);
            }
            text.is_empty().then_some(())
        });
    }
}

/// The template, equal to a deployment's where it matters: an OOM kill of one process spares the
/// others, and every controller is on so that limits exist (accounting alone does not enable the
/// CPU controller; a weight does).
fn install(program: &Path) -> Result<()> {
    if Path::new(TEMPLATE).exists() {
        return Ok(());
    }
    fs::create_dir_all(RUN).attempt(|| format!("make {RUN}"))?;
    let program = program.display();
    let text = format!(
        "[Unit]\nDescription=Stand-in for t3 serve of %i\nCollectMode=inactive-or-failed\n\n\
         [Service]\nType=exec\nWorkingDirectory={RUN}\nEnvironmentFile={RUN}/%i.env\n\
         ExecStart=@{program} t3-serve-standin $ARGUMENTS\nOOMPolicy=continue\nMemorySwapMax=0\n\
         CPUWeight=100\nIOAccounting=yes\nMemoryAccounting=yes\n"
    );
    fs::write(TEMPLATE, text).attempt(|| format!("write {TEMPLATE}"))?;
    systemctl(&["daemon-reload"]).map(drop)
}

/// Removes the template, because one in `/run` overrides that of a package in `/usr`.
pub fn forget_template() -> Result<()> {
    if !Path::new(TEMPLATE).exists() {
        return Ok(());
    }
    fs::remove_file(TEMPLATE).attempt(|| format!("remove {TEMPLATE}"))?;
    systemctl(&["daemon-reload"]).map(drop)
}

fn systemctl(arguments: &[&str]) -> Result<String> {
    let what = || format!("run systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output().attempt(what)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let got = format!("{} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Err(TestError::Unexpected { what: what(), got })
}
