//! Walk on a fresh host: from the packages to the enriched record, the log shipper, Grafana, and
//! pairing by sudo.

use std::{fs, net::TcpStream, path::Path};

use super::{
    super::{
        fixture::DISPATCH,
        sessions::paired,
        shell::{active, as_user, property, shell},
        steps::{KEPT, Steps, must},
    },
    Promise, Site,
    tables::FRESH,
};
use crate::error::{Attempt, Result};

/// User of the page.
const USER: &str = "ann";
const CONFIGURATION: &str = "/etc/t3-dispatch.toml";
const SECRET: &str = "/etc/t3-dispatch.secret";
/// Files of these steps of the page, and of programs that the guest does not have.
const FILES: &str = "/etc/alloy /etc/systemd/system/alloy.service /etc/systemd/system/alloy.service.d \
    /etc/grafana /var/lib/grafana /etc/systemd/system/grafana-server.service /etc/sudoers.d/t3-dispatch \
    /etc/systemd/system/t3-dispatch.service.d /etc/t3-dispatch.secret /etc/t3-serve/dispatch.json \
    /etc/t3-serve/ann.env";

/// Walks the page, then restores the state after the installation; returns the output of apt.
pub(in super::super) fn run(steps: &mut Steps, packages: &Path) -> String {
    let mut site = match prepare().and_then(|()| Site::at(packages, USER)) {
        Ok(site) => site,
        Err(error) => {
            steps.step("the host before the walk of the page", || Err::<String, _>(error));
            return String::new();
        }
    };
    for section in &FRESH {
        site.walk(steps, section, promises(section));
    }
    steps.step("the host has its state after the installation again", restore);
    site.installed
}

pub(super) fn promises(section: &str) -> &'static [Promise] {
    match section {
        "Installation in five minutes" => &INSTALLATION,
        "Access" => &[Promise { command: "usermod -aG", check: reads }],
        "Installed files" => &[Promise { command: "systemctl stop", check: stopped }],
        "Pairing by sudo" => &SUDO,
        _ => &[],
    }
}

const INSTALLATION: [Promise; 11] = [
    Promise { command: "apt install", check: installed },
    Promise { command: "od -An", check: secret },
    Promise { command: "t3-dispatch check", check: checked },
    Promise { command: "systemctl start t3-dispatch", check: started },
    Promise { command: "systemctl status", check: status },
    Promise { command: "t3-trace doctor", check: verified },
    Promise { command: "journalctl -u t3-trace", check: hooks },
    Promise { command: "t3-trace closes", check: closes },
    Promise { command: "journalctl -u t3-dispatch", check: enriched },
    Promise { command: "systemctl daemon-reload && systemctl restart alloy", check: ships },
    Promise { command: "systemctl restart grafana-server", check: dashboard },
];
const SUDO: [Promise; 2] = [
    Promise { command: "visudo -c", check: parsed },
    Promise { command: "systemctl daemon-reload && systemctl restart t3-dispatch", check: pairs },
];

/// The programs of the page that no Debian package has: units without a program.
fn prepare() -> Result<()> {
    let unit = |name: &str| {
        let path = format!("/etc/systemd/system/{name}.service");
        let text = "[Service]\nExecStart=/bin/sleep infinity\n";
        fs::write(&path, text).attempt(|| format!("write {path}"))
    };
    unit("alloy")?;
    unit("grafana-server")?;
    shell("mkdir -p /etc/alloy && systemctl daemon-reload").map(drop)
}

fn restore() -> Result<String> {
    shell("systemctl stop t3-dispatch.socket t3-dispatch.service t3-serve@ann alloy grafana-server")?;
    shell("systemctl unmask t3-mint.socket; gpasswd -d ann systemd-journal; gpasswd -d ann t3-trace")?;
    let packaged = Path::new(KEPT).join("t3-dispatch.toml");
    fs::copy(&packaged, CONFIGURATION).attempt(|| format!("restore {CONFIGURATION}"))?;
    shell(&format!("rm -r {FILES} && systemctl daemon-reload"))
}

fn installed(site: &mut Site, output: &str) -> Result<String> {
    output.clone_into(&mut site.installed);
    active("t3-trace.service")?;
    let state = property("t3-dispatch.service", "ActiveState")?;
    must(state == "inactive", "no dispatch without a routing table", &state)?;
    let packaged = Path::new(KEPT).join("t3-dispatch.toml");
    fs::copy(CONFIGURATION, &packaged).attempt(|| format!("keep {CONFIGURATION}"))?;
    // The user's serve, which the page presupposes.
    fs::write("/etc/t3-serve/ann.env", "T3_PORT=3773\n").attempt(|| "write ann.env".to_owned())?;
    shell("systemctl start t3-serve@ann")
}

fn secret(site: &mut Site, _: &str) -> Result<String> {
    let mode = shell(&format!("stat -c '%a %U %G' {SECRET}"))?;
    must(mode == "640 root t3-dispatch", "640 root t3-dispatch", mode.as_str())?;
    let text = fs::read_to_string(SECRET).attempt(|| format!("read {SECRET}"))?;
    let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    must(is_hex, "64 hexadecimal digits", text.as_str())?;
    // From here on Traefik sends it, for the host of the page.
    site.fields = vec![("Host", "t3.example.org".to_owned()), ("X-T3-Proxy-Secret", text)];
    Ok(mode)
}

fn checked(_: &mut Site, output: &str) -> Result<String> {
    let wanted = ["10.0.20.7", "t3.example.org", "example.org", SECRET];
    must(wanted.iter().all(|value| output.contains(value)), "every value of the page", output)
        .map(|()| String::new())
}

fn started(_: &mut Site, _: &str) -> Result<String> {
    ["t3-dispatch.socket", "t3-dispatch.service", "t3-mint.socket"].into_iter().try_for_each(active)?;
    Ok(String::new())
}

fn status(_: &mut Site, output: &str) -> Result<String> {
    let has_hooks = output.contains("kernel=kprobe") || output.contains("kernel=tracepoint");
    let is_right = output.contains(" WebSockets, ") && output.contains(" logins") && has_hooks;
    must(is_right, "WebSockets, logins and the kind of hooks", output).map(|()| String::new())
}

fn verified(_: &mut Site, output: &str) -> Result<String> {
    must(!output.contains("BROKEN"), "nothing broken", output).map(|()| String::new())
}

fn hooks(_: &mut Site, output: &str) -> Result<String> {
    must(output.contains("hook"), "the hooks", output).map(|()| String::new())
}

fn closes(_: &mut Site, output: &str) -> Result<String> {
    must(output.contains(USER) && output.contains("client_closed"), "the close", output)
        .map(|()| String::new())
}

fn enriched(_: &mut Site, output: &str) -> Result<String> {
    let line = output.lines().find(|line| line.starts_with("ws close user=ann ")).unwrap_or_default();
    let is_enriched =
        line.contains(" kernel=") && !line.contains(" kernel=off") && line.contains(" psi_cpu=");
    must(is_enriched, "kernel= and psi_cpu=", output).map(|()| String::new())
}

fn ships(_: &mut Site, _: &str) -> Result<String> {
    active("alloy.service")?;
    let groups = property("alloy.service", "SupplementaryGroups")?;
    must(groups == "adm systemd-journal", "the groups of the journal", &groups)?;
    Ok(groups)
}

fn dashboard(_: &mut Site, _: &str) -> Result<String> {
    active("grafana-server.service")?;
    let file = "/var/lib/grafana/dashboards/t3/t3-closes.json";
    let text = fs::read_to_string(file).attempt(|| format!("read {file}"))?;
    let json: serde_json::Result<serde_json::Value> = serde_json::from_str(&text);
    must(json.is_ok_and(|json| json["panels"].is_array()), "a dashboard", text).map(|()| String::new())
}

fn reads(_: &mut Site, _: &str) -> Result<String> {
    let (ok, text) = as_user(USER, "t3-trace closes --since -10m")?;
    must(ok && text.contains("client_closed"), "the close, for ann", text)?;
    let (ok, text) = as_user(USER, "/opt/t3/bin/t3-package-test --knock subscriber")?;
    must(ok, "a welcome", text).map(|()| String::new())
}

fn stopped(_: &mut Site, _: &str) -> Result<String> {
    let connected = TcpStream::connect(DISPATCH).is_ok();
    let state = property("t3-dispatch.service", "ActiveState")?;
    must(!connected && state == "inactive", "no listener, inactive", format!("{connected}, {state}"))
        .map(|()| String::new())
}

fn parsed(_: &mut Site, output: &str) -> Result<String> {
    must(output.contains("/etc/sudoers.d/t3-dispatch: parsed OK"), "parsed OK", output)
        .map(|()| String::new())
}

fn pairs(site: &mut Site, _: &str) -> Result<String> {
    active("t3-dispatch.service")?;
    let states =
        [property("t3-mint.socket", "ActiveState")?, property("t3-dispatch.service", "NoNewPrivileges")?];
    must(states == ["inactive", "no"], "no t3-mint.socket, sudo", states.join(", "))?;
    let secret = site.fields.iter().find(|(name, _)| *name == "X-T3-Proxy-Secret");
    let field = secret.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    paired(USER, &field)
}
