//! Life of an installation: restart of each unit, reboot, upgrade of the packages.

use t3_record::{Verdict, vocabulary::KernelSource};

use super::{
    fixture::Fixture,
    sessions::{complete, written},
    shell::{active, shell},
    steps::{Steps, must},
};

const DISPATCH: &str = "t3-dispatch.service";
const TRACE: &str = "t3-trace.service";

/// `systemctl restart` of each unit, with sessions open.
pub(super) fn restarts(steps: &mut Steps, fixture: &mut Fixture) {
    steps.step("restart of t3-trace: sessions continue, and kernel evidence returns", || {
        let client = fixture.browser("alice")?;
        shell(&format!("systemctl restart {TRACE}"))?;
        active(TRACE)?;
        client.client.heartbeats(3)?;
        let (record, _) = fixture.closed(&client)?;
        must(record.verdict == Verdict::ClientClosed, "client_closed", record.to_line())?;
        registered(fixture)
    });
    steps.step("restart of one serve: only the session of its user ends", || {
        let (alice, bob) = (fixture.browser("alice")?, fixture.browser("bob")?);
        shell("systemctl restart t3-serve@bob")?;
        let (record, entry) = fixture.record(&bob)?;
        written(&record, &entry)?;
        let serve = matches!(record.verdict, Verdict::ServeKilled | Verdict::ServeExited);
        must(serve, "serve_killed or serve_exited", record.to_line())?;
        alice.client.heartbeats(2)?;
        drop(bob);
        fixture.closed(&alice).map(|_| format!("verdict={} killed_by={:?}", record.verdict, record.killed_by))
    });
    steps.step("restart of t3-dispatch: the session continues; the next one opens", || {
        let client = fixture.browser("bob")?;
        shell(&format!("systemctl restart {DISPATCH}"))?;
        client.client.heartbeats(3)?;
        let (record, _) = fixture.closed(&client)?;
        let is_right = record.verdict == Verdict::ClientClosed && record.resumed == Some(1);
        must(is_right, "client_closed, resumed=1", record.to_line())?;
        registered(fixture)
    });
    steps.step("reload of t3-dispatch: sessions continue", || {
        let client = fixture.browser("bob")?;
        shell(&format!("systemctl reload {DISPATCH}"))?;
        client.client.heartbeats(2)?;
        fixture.closed(&client).map(|_| "")
    });
}

/// Waits until sessions have kernel evidence again: dispatch connects to a new t3-trace after a
/// short delay.
fn registered(fixture: &mut Fixture) -> crate::error::Result<String> {
    let mut last = String::new();
    for _ in 0..10 {
        let client = fixture.browser("alice")?;
        let (record, _) = fixture.closed(&client)?;
        if !matches!(record.kernel, KernelSource::Off | KernelSource::Timeout) {
            return Ok(format!("kernel={}", record.kernel));
        }
        last = record.to_line();
    }
    must(false, "kernel evidence", last).map(|()| String::new())
}

/// After the reboot: units are active, and the journal has the earlier records.
pub(super) fn rebooted(steps: &mut Steps, fixture: &mut Fixture) {
    steps.step("after the reboot every unit is active", || {
        let units = ["t3-dispatch.socket", DISPATCH, TRACE, "t3-serve@alice.service", "t3-serve@bob.service"];
        units.into_iter().try_for_each(active)?;
        let failed = shell("systemctl list-units --failed --no-legend --plain 't3-*'")?;
        must(failed.is_empty(), "no failed unit", failed).map(|()| "")
    });
    steps.step("a session after the reboot has a complete record", || {
        let client = fixture.browser("alice")?;
        let (record, entry) = fixture.closed(&client)?;
        complete(&record, &entry)?;
        Ok(format!("verdict={} kernel={}", record.verdict, record.kernel))
    });
    steps.step("t3-trace closes shows the reboot between the closes before and after it", || {
        let text = shell("t3-trace closes --since -1h")?;
        let (before, after) = text.split_once("  -- the host has rebooted\n").unwrap_or_default();
        let is_right = before.contains("serve_oom") && after.contains("  -- Started t3-dispatch.service");
        must(is_right, "an earlier serve_oom, the reboot, the start of t3-dispatch", text).map(|()| "")
    });
}

/// After the upgrade, before which the configuration was changed.
pub(super) fn upgraded(steps: &mut Steps, fixture: &mut Fixture) {
    steps.step("after the upgrade all packages have the later version", || {
        let text = shell(
            "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' t3-dispatch t3-trace t3-probe",
        )?;
        let later = text.lines().filter(|line| line.ends_with("-2 installed")).count();
        must(later == 3, "revision 2 of all", text.as_str()).map(|()| text)
    });
    steps.step("the changed configuration is kept", || {
        let text = shell("t3-dispatch check")?;
        must(text.contains("close-timeout = 601s"), "close-timeout = 601s", text)?;
        registered(fixture)
    });
}
