//! Set-up of the package test: two users with their serves, and clients that connect through the
//! installed t3-dispatch.

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

/// Users with a serve, and its port.
pub(super) const USERS: [(&str, u16); 2] = [("alice", 3773), ("bob", 3774)];
/// Address of t3-dispatch.
pub(super) const DISPATCH: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3780);
/// `/usr/bin/t3` as the units start it: `t3 serve --host HOST --port PORT --base-dir DIR`.
const T3: &str = "#!/bin/sh\nrm -f \"$HOME/serve.sock\"\n\
    exec /opt/t3/bin/t3-serve-standin --port \"$5\" --control \"$HOME/serve.sock\" --user \"$(id -un)\"\n";
/// `/usr/local/bin/t3-mint`: prints a credential that the fake serve accepts once.
const MINT: &str = "#!/bin/sh\ntest \"$(id -u)\" = 0 || exit 1\nprintf '{\"credential\": \"one-time-%s-%s\"}\\n' \"$1\" \"$$\"\n";
const TIMEOUT: Duration = Duration::from_secs(20);

/// Creates what an operator has before the installation: the users and their programs.
pub(super) fn prepare() -> Result<()> {
    for user in USERS.map(|(user, _)| user).into_iter().chain(["ann", "carol", "dave", "erin"]) {
        shell(&format!("id {user} 2>/dev/null || useradd --create-home --shell /bin/sh {user}"))?;
    }
    shell("usermod -aG systemd-journal erin")?;
    for (path, text) in [("/usr/bin/t3", T3), ("/usr/local/bin/t3-mint", MINT)] {
        std::fs::write(path, text).attempt(|| format!("write {path}"))?;
        shell(&format!("chmod 755 {path}"))?;
    }
    Ok(())
}

/// Writes the configuration that only an operator can write: the routing table and the ports.
pub(super) fn configure() -> Result<()> {
    configure_with(&[])
}

/// As [`configure`], with further entries of the routing table.
pub(super) fn configure_with(more: &[String]) -> Result<()> {
    let entries = USERS.map(|(user, port)| format!(r#""{user}": {{"os_user": "{user}", "port": {port}}}"#));
    let entries: Vec<_> = entries.into_iter().chain(more.iter().cloned()).collect();
    let table = format!("{{{}}}\n", entries.join(", "));
    let write = |path: &str, text: &str| std::fs::write(path, text).attempt(|| format!("write {path}"));
    write("/etc/t3-serve/dispatch.json", &table)?;
    for (user, port) in USERS {
        write(&format!("/etc/t3-serve/{user}.env"), &format!("T3_PORT={port}\n"))?;
    }
    Ok(())
}

/// Removes that configuration.
pub(super) fn clear() -> Result<String> {
    shell(
        "rm -rf /etc/t3-serve/dispatch.json /etc/t3-serve/*.env /etc/systemd/system/multi-user.target.wants/t3-serve@*",
    )
}

/// The journal of the records, and the number of clients so far.
#[derive(Debug)]
pub(super) struct Fixture {
    journal: Journal,
    browsers: u32,
}

/// A client with an open WebSocket, and the `ray` of its record.
#[derive(Debug)]
pub(super) struct Browser {
    pub(super) client: Client,
    ray: String,
}

impl Fixture {
    /// Reads the journal from now on.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { journal: Journal::system()?, browsers: 0 })
    }

    /// Opens a WebSocket of this user and waits for three heartbeats.
    pub(super) fn browser(&mut self, user: &str) -> Result<Browser> {
        self.browser_with(user, &[])
    }

    /// As [`Self::browser`], with further header fields.
    pub(super) fn browser_with(&mut self, user: &str, fields: &[(&str, &str)]) -> Result<Browser> {
        let mut ray = String::new();
        let mut connect = || {
            self.browsers += 1;
            ray = format!("ray-{user}-{}", self.browsers);
            let mut config = Config::new(DISPATCH, user).header("Cf-Ray", &ray);
            for (name, value) in fields {
                config = config.header(name, value);
            }
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

    /// Closes with 1001, as a closed tab does; returns the record.
    pub(super) fn closed(&self, browser: &Browser) -> Result<(CloseRecord, Entry)> {
        browser.client.close(Some(1001), "");
        browser.client.wait_end()?;
        self.record(browser)
    }

    /// Waits for the record of this client's session.
    pub(super) fn record(&self, browser: &Browser) -> Result<(CloseRecord, Entry)> {
        let its = |record: &CloseRecord| record.ray.as_ref() == Some(&browser.ray);
        let mut found = self.journal.wait_closes(1, TIMEOUT, its)?;
        must(found.len() == 1, "one record", found.iter().map(|(r, _)| r.to_line()).collect::<String>())?;
        Ok(found.remove(0))
    }
}

/// Sends an order to the fake serve of a user; does not wait until it is executed.
pub(super) fn order(user: &str, order: &str) -> Result<()> {
    let path = format!("/home/{user}/serve.sock");
    let what = || format!("order {user}'s serve to {order:?}");
    let mut stream = UnixStream::connect(&path).attempt(what)?;
    stream.set_read_timeout(Some(wait::scaled(Duration::from_secs(5)))).attempt(what)?;
    writeln!(stream, "{order}").attempt(what)?;
    let mut answer = String::new();
    // A process that the order kills does not reply.
    let _ = BufReader::new(stream).read_line(&mut answer);
    must(matches!(answer.trim_end(), "" | "ok"), &what(), answer)
}
