//! Permissions without root: members of t3-trace may subscribe but not register, members of
//! systemd-journal may read records, all others are rejected.

use std::{io::Read, process::Stdio, time::Duration};

use super::{
    fixture::Fixture,
    shell::{as_user, shell, user_command},
    steps::{Steps, must},
};
use crate::{
    error::{Attempt, Result},
    wait,
};

const KNOCK: &str = "/opt/t3/bin/t3-package-test --knock";

pub(super) fn run(steps: &mut Steps, fixture: &mut Fixture) {
    // alice owns a serve; that gives her no permission here.
    for user in ["carol", "alice"] {
        for role in ["subscriber", "dispatch"] {
            steps.step(
                &format!("{user}, in no group, cannot connect to the evidence socket as {role}"),
                || refused(as_user(user, &format!("{KNOCK} {role}"))?, "ermission denied"),
            );
        }
    }
    steps.step("t3-trace live names the missing group", || {
        // It retries until it is interrupted.
        refused(as_user("carol", "timeout --signal INT 15 t3-trace live --plain")?, "group t3-trace")
    });
    steps.step("t3-trace closes names the missing group", || {
        refused(as_user("carol", "t3-trace closes")?, "systemd-journal")
    });
    steps.step("user t3-dispatch may register", || {
        let (ok, text) = as_user("t3-dispatch", &format!("{KNOCK} dispatch"))?;
        must(ok, "a welcome", text).map(|()| "")
    });
    steps.step("a member of t3-trace may subscribe but not register", || {
        shell("usermod -aG t3-trace dave")?;
        let (ok, text) = as_user("dave", &format!("{KNOCK} subscriber"))?;
        must(ok, "a welcome", text)?;
        refused(as_user("dave", &format!("{KNOCK} dispatch"))?, "")
    });
    steps.step("t3-trace live shows a close to a member of t3-trace", || live(fixture));
    steps.step("t3-trace closes shows closes to a member of systemd-journal", || {
        let (ok, text) = as_user("erin", "t3-trace closes --since -1h")?;
        must(ok && text.contains("client_closed"), "the closes so far", text).map(|()| "")
    });
    steps.step("only t3-dispatch may connect to the socket of t3-mint", || {
        let text = shell("stat -c '%U %a' /run/t3-mint.sock")?;
        must(text == "t3-dispatch 600", "t3-dispatch 600", &text).map(|()| text)
    });
}

/// Checks that a command failed with this text in its output.
fn refused((ok, text): (bool, String), expected: &str) -> Result<String> {
    must(!ok && text.contains(expected), &format!("a rejection with {expected:?}"), &text)?;
    Ok(text)
}

fn live(fixture: &mut Fixture) -> Result<String> {
    let mut command = user_command("dave");
    command.args(["timeout", "300", "t3-trace", "live", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut live = command.spawn().attempt(|| "start t3-trace live".to_owned())?;
    let stdout = live.stdout.take();
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut stdout = stdout?;
        let mut piece = [0; 4096];
        while let Ok(length) = stdout.read(&mut piece) {
            let text = String::from_utf8_lossy(piece.get(..length).unwrap_or_default()).into_owned();
            if length == 0 || sender.send(text).is_err() {
                break;
            }
        }
        Some(())
    });
    let mut seen = String::new();
    let mut watch = |part: &str| {
        wait::until("the record in t3-trace live", Duration::from_secs(15), || {
            seen.extend(received.try_iter());
            seen.contains(part).then_some(())
        })
    };
    // It does not report when it is subscribed, so sessions are closed until one is shown.
    let mut found = Ok(String::new());
    for _ in 0..3 {
        let client = fixture.browser("bob")?;
        let (record, _) = fixture.closed(&client)?;
        found = watch(&record.conn).map(|()| String::new());
        if found.is_ok() {
            break;
        }
    }
    let _ = live.kill();
    let _ = live.wait();
    found
}
