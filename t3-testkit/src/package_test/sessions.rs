//! Sessions through the installed proxy, and their records: of a healthy serve, of one beside a
//! hog, of one that the kernel kills.

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

/// Room for a stand-in, and not for a hog.
const LIMIT: u64 = 96 << 20;
const UNIT: &str = "t3-serve@alice.service";
const TIMEOUT: Duration = Duration::from_secs(20);

/// One session of each user.
pub(super) fn first(steps: &mut Steps, fixture: &mut Fixture) {
    for user in ["alice", "bob"] {
        steps.step(
            &format!("a session of {user}: its record, from the right unit, with kernel and pressure"),
            || {
                let client = fixture.browser(user)?;
                let (record, entry) = fixture.closed(&client)?;
                complete(&record, &entry)?;
                must(record.verdict == Verdict::ClientClosed, "client_closed", record.to_line())?;
                // The pressure is that of the user's unit and no other cgroup: the limit beside it
                // is the unit's.
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
    steps.step("journalctl -x explains the close in words", || {
        let text = shell(
            "journalctl -x --no-pager -u t3-dispatch.service T3_USER=alice T3_VERDICT=client_closed -n 1",
        )?;
        let wanted = ["Verdict: client_closed", "t3-trace explain ", "the browser of alice"];
        must(wanted.iter().all(|part| text.contains(part)), "the catalogue's text", &text)?;
        must(!text.contains("@WS_"), "every field filled in", &text).map(|()| "")
    });
}

/// What every record of the installed programs has, as long as the user's unit has not gone
/// meanwhile.
pub(super) fn complete(record: &CloseRecord, entry: &Entry) -> Result<()> {
    written(record, entry)?;
    let pressure = record.psi_mem.is_some() && record.psi_io.is_some() && record.psi_cpu.is_some();
    must(pressure, "the pressure of the user's unit", record.to_line())
}

/// What every record of theirs has, whatever became of the unit: its cgroup, and with that its
/// pressure, goes with its last process.
pub(super) fn written(record: &CloseRecord, entry: &Entry) -> Result<()> {
    let unit = entry.get("_SYSTEMD_UNIT").map(String::as_str).unwrap_or_default();
    must(unit == "t3-dispatch.service", "written by t3-dispatch.service", unit)?;
    let kernel = matches!(record.kernel, KernelSource::Kprobe | KernelSource::Tracepoint);
    must(kernel, "the kernel's evidence", record.to_line())
}

/// A first visit: the browser is sent to `/` with a session, by way of t3-mint as root.
pub(super) fn pairing(steps: &mut Steps) {
    steps.step("a first visit is paired through t3-mint", || {
        let mut stream = TcpStream::connect(DISPATCH).attempt(|| format!("connect to {DISPATCH}"))?;
        let limit = wait::scaled(Duration::from_secs(10));
        stream.set_read_timeout(Some(limit)).attempt(|| "set a time limit".to_owned())?;
        let request = "GET / HTTP/1.1\r\nHost: t3.example.org\r\nX-authentik-username: alice\r\nAccept: text/html\r\n\
                       Sec-Fetch-Dest: document\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).attempt(|| "ask for the page".to_owned())?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let log = || shell("journalctl --no-pager -n 20 -u t3-dispatch -u 't3-mint*'").unwrap_or_default();
        let paired = answer.starts_with("HTTP/1.1 302") && answer.to_ascii_lowercase().contains("set-cookie:");
        must(paired, "302 with a session", format!("{answer}\n{}", log())).map(|()| "")
    });
}

/// The kernel kills a neighbour, and then serve.
pub(super) fn out_of_memory(steps: &mut Steps, fixture: &mut Fixture) {
    steps.step("a hog beside serve is killed; serve lives, and the close is not blamed on it", || {
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
        must(right, "oom_kills, and another verdict than serve_oom", record.to_line())?;
        Ok(format!("verdict={} oom_kills={}", record.verdict, record.oom_kills.unwrap_or_default()))
    });
    steps.step("serve is killed for its own memory: serve_oom, and it comes back by itself", || {
        let serve = pid(UNIT)?;
        let client = fixture.browser("alice")?;
        order("alice", &format!("alloc {}", LIMIT * 4))?;
        let (record, entry) = fixture.record(&client)?;
        complete(&record, &entry)?;
        let right = record.verdict == Verdict::ServeOom && record.segment == Segment::Serve;
        must(right && record.peer_exit == Some(Fate::Oom), "serve_oom", record.to_line())?;
        drop(client);
        wait::until("another serve", TIMEOUT, || pid(UNIT).ok().filter(|&now| now != 0 && now != serve))?;
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
