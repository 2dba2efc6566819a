//! Two users with their serves, and browsers that come through t3-dispatch as systemd has started
//! it.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use t3_record::CloseRecord;

use super::{shell::shell, steps::must};
use crate::{
    client::{Client, Config},
    error::{Attempt, Result, TestError},
    journald::{Entry, Journal},
    wait,
};

/// Who has a serve: (user, port).
pub(super) const USERS: [(&str, u16); 2] = [("alice", 3773), ("bob", 3774)];
/// Where t3-dispatch listens.
pub(super) const DISPATCH: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3780);
/// `/usr/bin/t3` as the units start it: `t3 serve --host HOST --port PORT --base-dir DIR`.
const T3: &str = "#!/bin/sh\nrm -f \"$HOME/serve.sock\"\n\
    exec /opt/t3/bin/t3-serve-standin --port \"$5\" --control \"$HOME/serve.sock\" --user \"$(id -un)\"\n";
/// `/usr/local/bin/t3-mint`: a credential that the stand-in takes once.
const MINT: &str = "#!/bin/sh\ntest \"$(id -u)\" = 0 || exit 1\nprintf '{\"credential\": \"one-time-%s-%s\"}\\n' \"$1\" \"$$\"\n";
const TIMEOUT: Duration = Duration::from_secs(20);

/// What an operator has before the packages come: the users, their programs.
pub(super) fn furnish() -> Result<()> {
    for user in USERS.map(|(user, _)| user).into_iter().chain(["carol", "dave", "erin"]) {
        shell(&format!("id {user} 2>/dev/null || useradd --create-home --shell /bin/sh {user}"))?;
    }
    shell("usermod -aG systemd-journal erin")?;
    for (path, text) in [("/usr/bin/t3", T3), ("/usr/local/bin/t3-mint", MINT)] {
        std::fs::write(path, text).attempt(|| format!("write {path}"))?;
        shell(&format!("chmod 755 {path}"))?;
    }
    Ok(())
}

/// The configuration that only an operator can write: who is who, and which port.
pub(super) fn configure() -> Result<()> {
    let entries = USERS.map(|(user, port)| format!(r#""{user}": {{"os_user": "{user}", "port": {port}}}"#));
    let table = format!("{{{}}}\n", entries.join(", "));
    let write = |path: &str, text: &str| std::fs::write(path, text).attempt(|| format!("write {path}"));
    write("/etc/t3-serve/dispatch.json", &table)?;
    for (user, port) in USERS {
        write(&format!("/etc/t3-serve/{user}.env"), &format!("T3_PORT={port}\n"))?;
    }
    Ok(())
}

/// Takes it away again.
pub(super) fn clear() -> Result<String> {
    shell(
        "rm -rf /etc/t3-serve/dispatch.json /etc/t3-serve/*.env /etc/systemd/system/multi-user.target.wants/t3-serve@*",
    )
}

/// The journal that the records come to, and how many browsers there were.
#[derive(Debug)]
pub(super) struct Fixture {
    journal: Journal,
    browsers: u32,
}

/// A browser with an open WebSocket, and what its record is known by.
#[derive(Debug)]
pub(super) struct Browser {
    pub(super) client: Client,
    ray: String,
}

impl Fixture {
    /// Entries from now on.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { journal: Journal::system()?, browsers: 0 })
    }

    /// A browser of this user with a few heartbeats behind it.
    pub(super) fn browser(&mut self, user: &str) -> Result<Browser> {
        let mut ray = String::new();
        let mut connect = || {
            self.browsers += 1;
            ray = format!("ray-{user}-{}", self.browsers);
            let mut config = Config::new(DISPATCH, user).header("Cf-Ray", &ray);
            config.heartbeat = Some(Duration::from_millis(500));
            Client::connect(config)
        };
        // serve and dispatch may still be starting.
        let mut last = None;
        let client = wait::until(&format!("a WebSocket of {user}"), TIMEOUT, || match connect() {
            Ok(client) => Some(client),
            Err(error) => {
                last = Some(error.to_string());
                std::thread::sleep(Duration::from_millis(200));
                None
            }
        });
        let client = client.map_err(|error| TestError::Unexpected {
            what: error.to_string(),
            got: last.unwrap_or_default(),
        })?;
        client.heartbeats(3)?;
        Ok(Browser { client, ray })
    }

    /// The browser closes as a tab does; its record.
    pub(super) fn closed(&self, browser: &Browser) -> Result<(CloseRecord, Entry)> {
        browser.client.close(Some(1001), "");
        browser.client.wait_end()?;
        self.record(browser)
    }

    /// The record of this browser's session.
    pub(super) fn record(&self, browser: &Browser) -> Result<(CloseRecord, Entry)> {
        let its = |record: &CloseRecord| record.ray.as_ref() == Some(&browser.ray);
        let mut found = self.journal.wait_closes(1, TIMEOUT, its)?;
        must(found.len() == 1, "one record", found.iter().map(|(r, _)| r.to_line()).collect::<String>())?;
        Ok(found.remove(0))
    }
}

/// Gives a user's stand-in an order, without waiting for it to be carried out.
pub(super) fn order(user: &str, order: &str) -> Result<()> {
    let path = format!("/home/{user}/serve.sock");
    let what = || format!("order {user}'s serve to {order:?}");
    let mut stream = UnixStream::connect(&path).attempt(what)?;
    stream.set_read_timeout(Some(wait::scaled(Duration::from_secs(5)))).attempt(what)?;
    writeln!(stream, "{order}").attempt(what)?;
    let mut answer = String::new();
    // A process that dies of the order does not answer.
    let _ = BufReader::new(stream).read_line(&mut answer);
    must(matches!(answer.trim_end(), "" | "ok"), &what(), answer)
}
