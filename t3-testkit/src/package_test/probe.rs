//! The unit of t3-probe: disabled until it is configured, stopped by a configuration error, and
//! running in its sandbox with the legs of the packaged file.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::{
    shell::{active, property, reaches, shell},
    steps::{Steps, must},
};
use crate::{
    error::{Attempt, Result},
    wait,
};

const UNIT: &str = "t3-probe.service";
const CONFIGURATION: &str = "/etc/t3-probe.toml";
/// Timeout for the metrics page.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn run(steps: &mut Steps) {
    steps.step("t3-probe is neither enabled nor started by the installation", || {
        let state = [property(UNIT, "UnitFileState")?, property(UNIT, "ActiveState")?];
        must(state == ["disabled", "inactive"], "disabled, inactive", state.join(", ")).map(|()| "")
    });
    let packaged = match fs::read_to_string(CONFIGURATION).attempt(|| format!("read {CONFIGURATION}")) {
        Ok(text) => text,
        Err(error) => {
            return steps.step("the packaged configuration of t3-probe", || Err::<String, _>(error));
        }
    };
    steps.step("a configuration error ends t3-probe with status 2, without a restart", || {
        configure("hots = \"t3.example.org\"\n")?;
        shell(&format!("systemctl start {UNIT} || true"))?;
        reaches(UNIT, "failed")?;
        let state = [property(UNIT, "ExecMainStatus")?, property(UNIT, "NRestarts")?];
        must(state == ["2", "0"], "status 2, no restart", state.join(", ")).map(|()| "")
    });
    steps.step("with a leg in /etc/t3-probe.toml t3-probe runs and serves its metrics", || {
        configure(&format!("{packaged}serve = [\"ann=http://127.0.0.1:1\"]\n"))?;
        shell(&format!("systemctl reset-failed {UNIT}; systemctl start {UNIT}"))?;
        active(UNIT)?;
        let page = wait::until("the metrics page of t3-probe", TIMEOUT, || metrics().ok())?;
        let wanted =
            ["t3probe_connected{leg=\"t3serve:ann\"} 0", "process_open_fds ", "process_start_time_seconds 1"];
        must(wanted.iter().all(|text| page.contains(text)), "the series of the leg", page).map(|()| "")
    });
    steps.step("t3-probe stops, and its configuration is as packaged", || {
        shell(&format!("systemctl stop {UNIT}"))?;
        configure(&packaged)?;
        shell("dpkg --verify t3-probe").and_then(|text| must(text.is_empty(), "no change", text)).map(|()| "")
    });
}

fn configure(text: &str) -> Result<()> {
    fs::write(CONFIGURATION, text).attempt(|| format!("write {CONFIGURATION}"))
}

fn metrics() -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9108")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
