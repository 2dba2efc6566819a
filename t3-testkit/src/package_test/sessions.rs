//! Sessions through the installed proxy, and their records: of a healthy serve, of one with a
//! memory hog in its cgroup, of one that is OOM-killed.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use t3_record::{
    CloseRecord, Verdict,
    evidence::Fate,
    vocabulary::{KernelSource, Segment},
};

use super::{
    fixture::{DISPATCH, Fixture, order},
    shell::{active, pid, shell},
    steps::{Steps, must},
};
use crate::{
    error::{Attempt, Result},
    journald::Entry,
    wait,
};

/// Memory limit in bytes: enough for a fake serve, too little for a hog.
const LIMIT: u64 = 96 << 20;
const UNIT: &str = "t3-serve@alice.service";
const TIMEOUT: Duration = Duration::from_secs(20);

/// One session of each user.
pub(super) fn first(steps: &mut Steps, fixture: &mut Fixture) {
    for user in ["alice", "bob"] {
        steps.step(
            &format!("a session of {user}: a record of the right unit, with kernel evidence and pressure"),
            || {
                let client = fixture.browser(user)?;
                let (record, entry) = fixture.closed(&client)?;
                complete(&record, &entry)?;
                must(record.verdict == Verdict::ClientClosed, "client_closed", record.to_line())?;
                // The limit shows that the cgroup, and so the pressure, is that of the user's unit.
                let limit = shell(&format!("systemctl show --value -p MemoryMax t3-serve@{user}"))?;
                must(
                    record.mem_max.map(|max| max.to_string()) == Some(limit),
                    "the unit's MemoryMax",
                    record.to_line(),
                )?;
                Ok(record.to_line())
            },
        );
    }
    steps.step("journalctl -x explains the close", || {
        let text = shell(
            "journalctl -x --no-pager -u t3-dispatch.service T3_USER=alice T3_VERDICT=client_closed -n 1",
        )?;
        let wanted = ["Verdict: client_closed", "t3-trace explain ", "the browser of alice"];
        must(wanted.iter().all(|part| text.contains(part)), "the catalogue's text", &text)?;
        must(!text.contains("@WS_"), "every field filled in", &text).map(|()| "")
    });
}

/// Checks the keys that every record has whose unit still exists.
pub(super) fn complete(record: &CloseRecord, entry: &Entry) -> Result<()> {
    written(record, entry)?;
    let pressure = record.psi_mem.is_some() && record.psi_io.is_some() && record.psi_cpu.is_some();
    must(pressure, "the pressure of the user's unit", record.to_line())
}

/// Checks the keys that every record has. The pressure is not among them: a cgroup is removed with
/// its last process.
pub(super) fn written(record: &CloseRecord, entry: &Entry) -> Result<()> {
    let unit = entry.get("_SYSTEMD_UNIT").map(String::as_str).unwrap_or_default();
    must(unit == "t3-dispatch.service", "written by t3-dispatch.service", unit)?;
    let kernel = matches!(record.kernel, KernelSource::Kprobe | KernelSource::Tracepoint);
    must(kernel, "the kernel's evidence", record.to_line())
}

/// Pairing on the first visit: a redirect to `/` with a session, through t3-mint as root.
pub(super) fn pairing(steps: &mut Steps) {
    steps.step("a first visit is paired through t3-mint", || paired("alice", ""));
}

/// The first visit of a user, with further header lines, gets a session and a redirect.
pub(super) fn paired(user: &str, lines: &str) -> Result<String> {
    let mut stream = TcpStream::connect(DISPATCH).attempt(|| format!("connect to {DISPATCH}"))?;
    let limit = wait::scaled(Duration::from_secs(10));
    stream.set_read_timeout(Some(limit)).attempt(|| "set a read timeout".to_owned())?;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: t3.example.org\r\nX-authentik-username: {user}\r\n{lines}\
         Accept: text/html\r\nSec-Fetch-Dest: document\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).attempt(|| "request the page".to_owned())?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let log = || shell("journalctl --no-pager -n 20 -u t3-dispatch -u 't3-mint*'").unwrap_or_default();
    let paired = answer.starts_with("HTTP/1.1 302") && answer.to_ascii_lowercase().contains("set-cookie:");
    must(paired, "302 with a session", format!("{answer}\n{}", log())).map(|()| String::new())
}

/// A short outage of the link of both legs. t3-trace.service is in a private network namespace, so
/// that it sees the change only through its socket unit.
pub(super) fn network(steps: &mut Steps, fixture: &mut Fixture) {
    steps.step("an outage of the host's own link is in the record, through t3-trace-netlink.socket", || {
        active("t3-trace-netlink.socket")?;
        let client = fixture.browser("alice")?;
        shell("ip link set dev lo down && sleep 0.3 && ip link set dev lo up")?;
        client.client.heartbeats(3)?;
        let (record, entry) = fixture.closed(&client)?;
        complete(&record, &entry)?;
        let chain = record.chain.as_ref().map(ToString::to_string).unwrap_or_default();
        // The chain has the last eight events, so that the first of four changes may be missing.
        let changes = chain.contains(":link_down@-") && chain.contains("down:link_up@-");
        must(changes, "link_down and link_up", record.to_line())?;
        must(record.verdict == Verdict::ClientClosed, "client_closed", record.to_line())?;
        Ok(format!("verdict={} chain={chain}", record.verdict))
    });
}

/// OOM kill of another process in serve's unit, then of serve itself.
pub(super) fn out_of_memory(steps: &mut Steps, fixture: &mut Fixture) {
    steps.step("a hog in serve's unit is OOM-killed; serve lives, and the verdict is not serve_oom", || {
        shell(&format!("systemctl set-property --runtime {UNIT} MemoryMax={LIMIT}"))?;
        let (serve, kills) = (pid(UNIT)?, oom_kills()?);
        let client = fixture.browser("alice")?;
        order("alice", &format!("hog {}", LIMIT * 4))?;
        wait::until("an OOM kill in alice's unit", TIMEOUT, || (oom_kills().ok()? > kills).then_some(()))?;
        client.client.heartbeats(3)?;
        must(pid(UNIT)? == serve, "the same serve", format!("{} instead of {serve}", pid(UNIT)?))?;
        let (record, entry) = fixture.closed(&client)?;
        complete(&record, &entry)?;
        let right = record.verdict != Verdict::ServeOom && record.oom_kills.is_some_and(|kills| kills > 0);
        must(right, "oom_kills and a verdict other than serve_oom", record.to_line())?;
        Ok(format!("verdict={} oom_kills={}", record.verdict, record.oom_kills.unwrap_or_default()))
    });
    steps.step("serve is OOM-killed: verdict serve_oom; systemd restarts it", || {
        let serve = pid(UNIT)?;
        let client = fixture.browser("alice")?;
        order("alice", &format!("alloc {}", LIMIT * 4))?;
        let (record, entry) = fixture.record(&client)?;
        complete(&record, &entry)?;
        let right = record.verdict == Verdict::ServeOom && record.segment == Segment::Serve;
        must(right && record.peer_exit == Some(Fate::Oom), "serve_oom", record.to_line())?;
        drop(client);
        wait::until("a new serve process", TIMEOUT, || {
            pid(UNIT).ok().filter(|&now| now != 0 && now != serve)
        })?;
        active(UNIT)?;
        shell(&format!("systemctl set-property --runtime {UNIT} MemoryMax=16G"))?;
        let client = fixture.browser("alice")?;
        fixture.closed(&client).map(|_| format!("verdict={}", record.verdict))
    });
}

fn oom_kills() -> Result<u64> {
    let cgroup = shell(&format!("systemctl show --value -p ControlGroup {UNIT}"))?;
    let path = format!("/sys/fs/cgroup{cgroup}/memory.events");
    let text = std::fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(line.and_then(|count| count.parse().ok()).unwrap_or(0))
}
