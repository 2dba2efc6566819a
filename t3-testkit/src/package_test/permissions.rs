//! Who may what without root: nobody outside the groups learns or says anything; a member of
//! t3-trace watches and registers nothing; a member of systemd-journal searches.

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
    // alice owns a serve and is still nobody here.
    for user in ["carol", "alice"] {
        for role in ["subscriber", "dispatch"] {
            steps.step(&format!("{user}, in no group, does not reach the evidence socket as {role}"), || {
                refused(as_user(user, &format!("{KNOCK} {role}"))?, "ermission denied")
            });
        }
    }
    steps.step("t3-trace live names the group that is missing", || {
        // It goes on trying: the group may come, and the journal may do meanwhile.
        refused(as_user("carol", "timeout --signal INT 15 t3-trace live --plain")?, "group t3-trace")
    });
    steps.step("t3-trace closes names the group that is missing", || {
        refused(as_user("carol", "t3-trace closes")?, "systemd-journal")
    });
    steps.step("t3-dispatch, the user, may register", || {
        let (ok, text) = as_user("t3-dispatch", &format!("{KNOCK} dispatch"))?;
        must(ok, "a welcome", text).map(|()| "")
    });
    steps.step("a member of t3-trace may watch and not register", || {
        shell("usermod -aG t3-trace dave")?;
        let (ok, text) = as_user("dave", &format!("{KNOCK} subscriber"))?;
        must(ok, "a welcome", text)?;
        refused(as_user("dave", &format!("{KNOCK} dispatch"))?, "")
    });
    steps.step("a member of t3-trace sees a close live", || live(fixture));
    steps.step("a member of systemd-journal finds closes", || {
        let (ok, text) = as_user("erin", "t3-trace closes --since -1h")?;
        must(ok && text.contains("client_closed"), "the closes so far", text).map(|()| "")
    });
    steps.step("nobody may read the credentials' socket but dispatch", || {
        let text = shell("stat -c '%U %a' /run/t3-mint.sock")?;
        must(text == "t3-dispatch 600", "t3-dispatch 600", &text).map(|()| text)
    });
}

/// An attempt that must have failed, and said this.
fn refused((ok, text): (bool, String), said: &str) -> Result<String> {
    must(!ok && text.contains(said), &format!("a refusal that says {said:?}"), &text)?;
    Ok(text)
}

fn live(fixture: &mut Fixture) -> Result<String> {
    let mut command = user_command("dave");
    command.args(["timeout", "300", "t3-trace", "live", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut live = command.spawn().attempt(|| "start t3-trace live".to_owned())?;
    let stdout = live.stdout.take();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut stdout = stdout?;
        let mut piece = [0; 4096];
        while let Ok(length) = stdout.read(&mut piece) {
            let text = String::from_utf8_lossy(piece.get(..length).unwrap_or_default()).into_owned();
            if length == 0 || tell.send(text).is_err() {
                break;
            }
        }
        Some(())
    });
    let mut seen = String::new();
    let mut watch = |part: &str| {
        wait::until("the record in t3-trace live", Duration::from_secs(15), || {
            seen.extend(told.try_iter());
            seen.contains(part).then_some(())
        })
    };
    // It says nothing of itself when it is ready: sessions are tried until one is seen.
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
