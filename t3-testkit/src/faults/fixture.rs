//! Fixture of one fault: the running stack, its users, and the processes that it has started.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use t3_record::KernelSource;

use super::expected_record::{Expect, ExpectedRecord};
use crate::{
    client::{Client, Config, TIMEOUT},
    error::{Attempt, Result, TestError},
    harness::{self, Body, Cgroup, Firewall, Netns, Process, Serve, Stack},
    sys, wait,
};

/// Heartbeat period in faults: short, because all limits are relative to it, but above the delays
/// of a busy host.
pub const PERIOD: Duration = Duration::from_millis(400);

/// The same in compressed sessions: above the shortest period that is recognised.
pub(super) const QUICK_PERIOD: Duration = Duration::from_millis(1_150);

/// Number of answered heartbeats before a fault in compressed sessions: one more than `proven`
/// needs, because the first can be too late to be recognised.
pub(super) const SURE_HEARTBEATS: u64 = 13;

/// Number of answered heartbeats before a fault, enough to determine the period.
pub(super) const HEARTBEATS: u64 = 3;

/// Name of the n-th user of a fault.
pub(super) fn user(first: &str, number: usize) -> String {
    if number == 0 { first.to_owned() } else { format!("{first}-{number}") }
}

/// Whether `user` is one of the users of the fault with this first user.
pub(super) fn owns(first: &str, user: &str) -> bool {
    user.strip_prefix(first).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok())
    })
}

#[derive(Debug)]
pub struct Fixture<'a> {
    pub stack: &'a mut Stack,
    /// First user of this fault; other faults have other users.
    pub user: String,
    /// Expectations that are known only while the fault runs.
    pub learned: Vec<(&'static str, Expect)>,
    /// Number of `ws burst` lines before the fault.
    pub(super) bursts: usize,
    /// Kept until the record has been read, so that the ports of closed clients are not reused.
    pub(super) clients: Vec<Client>,
    pub(super) serves: Vec<(String, Serve)>,
    /// Rays of sessions that the fault does not affect.
    pub(super) unaffected: BTreeSet<String>,
    cgroup: Option<Cgroup>,
    netns: Option<Netns>,
    forwarder: Option<Process>,
    /// Rule of the host's firewall until the record has been read.
    pub(super) firewall: Option<Firewall>,
    own_pressure: bool,
    /// Sessions are compressed, and their heartbeats slower ([`QUICK_PERIOD`]).
    is_compressed: bool,
}

impl<'a> Fixture<'a> {
    pub fn new(stack: &'a mut Stack, user: String) -> Self {
        // A unit has its own cgroup. Without one, serve shares that of the test.
        let cgroup = if stack.units() { None } else { Cgroup::new().ok() };
        let bursts = stack.journal.bursts().map_or(0, |bursts| bursts.len());
        Self {
            stack,
            user,
            learned: Vec::new(),
            bursts,
            unaffected: BTreeSet::new(),
            clients: Vec::new(),
            serves: Vec::new(),
            cgroup,
            netns: None,
            forwarder: None,
            firewall: None,
            is_compressed: false,
            own_pressure: false,
        }
    }

    /// Starts the serve of the first user.
    pub fn serve(&mut self, arguments: &[&str]) -> Result<()> {
        self.serve_of(0, arguments)
    }

    /// Starts the serve of the fault's n-th user.
    pub fn serve_of(&mut self, number: usize, arguments: &[&str]) -> Result<()> {
        let user = user(&self.user, number);
        let mut arguments = arguments.to_vec();
        if self.is_compressed {
            arguments.push("--deflate");
        }
        let serve = self.stack.serve(&user, &arguments, self.cgroup.as_ref())?;
        self.add_serve(user, serve);
        Ok(())
    }

    /// Starts the serve of the first user on another port than dispatch connects to.
    pub fn serve_on(&mut self, port: u16, arguments: &[&str]) -> Result<()> {
        let serve = self.stack.serve_on(&self.user, port, arguments, self.cgroup.as_ref())?;
        self.add_serve(self.user.clone(), serve);
        Ok(())
    }

    /// Starts a forwarder from the first user's port to `target`.
    pub fn forward_to(&mut self, target: u16) -> Result<()> {
        self.forwarder = Some(harness::forward(self.stack.port(&self.user)?, target)?);
        Ok(())
    }

    pub fn kill_forwarder(&self) -> Result<()> {
        self.forwarder.as_ref().map_or(Ok(()), |forwarder| forwarder.signal(libc::SIGKILL))
    }

    fn add_serve(&mut self, user: String, serve: Serve) {
        if let Body::Unit(unit) = &serve.process {
            self.cgroup = Some(Cgroup::of_unit(unit));
        }
        // Checked now, because systemd removes a cgroup with its last process.
        self.own_pressure =
            self.cgroup.as_ref().is_some_and(|cgroup| cgroup.v2.join("memory.pressure").exists());
        self.serves.push((user, serve));
    }

    /// Configuration of a healthy client of the first user.
    #[must_use]
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.stack.address, &self.user).header("Cf-Ray", &self.ray());
        config.heartbeat = Some(self.period());
        config.is_compressed = self.is_compressed;
        config.header("X-Forwarded-For", "203.0.113.7")
    }

    fn ray(&self) -> String {
        format!("ray-{}", self.user)
    }

    /// Starts serve, opens a session and waits for heartbeats.
    pub fn session(&mut self) -> Result<()> {
        self.serve(&[])?;
        self.open(self.config())
    }

    /// Like [`Self::session`], with stopped heartbeat and a client that does not close after a FIN.
    pub fn session_ignoring_fin(&mut self) -> Result<()> {
        self.serve(&[])?;
        let mut config = self.config();
        config.closes_on_fin = false;
        self.open(config)?;
        self.stop_heartbeat()
    }

    /// Opens a session and waits for heartbeats.
    pub fn open(&mut self, config: Config) -> Result<()> {
        self.open_with(config, if self.is_compressed { SURE_HEARTBEATS } else { HEARTBEATS })
    }

    /// Period of the heartbeat.
    #[must_use]
    pub fn period(&self) -> Duration {
        if self.is_compressed { QUICK_PERIOD } else { PERIOD }
    }

    /// Opens a session and waits for so many answered heartbeats.
    pub fn open_with(&mut self, config: Config, heartbeats: u64) -> Result<()> {
        let client = Client::connect(config)?;
        client.heartbeats(heartbeats)?;
        self.clients.push(client);
        Ok(())
    }

    /// A separate link, and the configuration of a client at its other end.
    pub fn link(&self) -> Result<(Netns, Config)> {
        let netns = Netns::new()?;
        let mut config = self.config();
        config.address = (netns.near, self.stack.address.port()).into();
        config.namespace = Some(netns.descriptor()?);
        Ok((netns, config))
    }

    /// Opens a session over a separate link; `change` adjusts its configuration.
    pub fn session_over_link(&mut self, change: impl FnOnce(&mut Config)) -> Result<Netns> {
        self.serve(&[])?;
        let (netns, mut config) = self.link()?;
        change(&mut config);
        self.open(config)?;
        Ok(netns)
    }

    /// Client of the last session.
    ///
    /// # Panics
    /// No session has been opened: an error in the catalogue.
    #[must_use]
    #[expect(clippy::expect_used, reason = "an error in the catalogue, not outside input")]
    pub fn client(&self) -> &Client {
        self.clients.last().expect("the fault opens a session first")
    }

    /// The last started serve.
    ///
    /// # Panics
    /// No serve has been started: an error in the catalogue.
    #[must_use]
    #[expect(clippy::expect_used, reason = "an error in the catalogue, not outside input")]
    pub fn last_serve(&mut self) -> &mut Serve {
        self.serves.last_mut().map(|(_, serve)| serve).expect("the fault starts a serve first")
    }

    /// Sends an order to the last serve.
    pub fn order(&mut self, order: &str) -> Result<()> {
        self.last_serve().order(order)
    }

    /// Stops the heartbeat and waits for the last reply, so that nothing is in flight when a
    /// process ends: unread bytes would turn its FIN into RST. Takes far less than a period.
    pub fn stop_heartbeat(&self) -> Result<()> {
        let client = self.client();
        client.heartbeat(None);
        client.wait("the last heartbeat reply", TIMEOUT, |seen| seen.pings == seen.pongs).map(drop)
    }

    /// Waits for the end of the client's connection.
    pub fn wait_end(&self) -> Result<()> {
        self.client().wait_end().map(drop)
    }

    /// The client sends Close 1000 and drops its socket without waiting for a reply.
    pub fn close_and_drop(&self) {
        self.client().close(Some(1000), "");
        std::thread::sleep(PERIOD);
        self.client().drop_socket();
    }

    /// Passes the client's socket to an idle process and kills that process.
    pub fn client_process_killed(&self) -> Result<()> {
        let mut holder = Command::new("sleep");
        holder.arg("600").stdin(Stdio::from(self.client().surrender()?));
        holder.stdout(Stdio::null()).stderr(Stdio::null());
        sys::dies_with_us(&mut holder);
        let mut child = holder.spawn().attempt(|| "start sleep with the client's socket".to_owned())?;
        // This process must close its copy first, or the kill would not close the socket.
        drop(holder);
        let killed = child.kill().attempt(|| "kill the client's process".to_owned());
        let _ = child.wait();
        killed
    }

    /// The cgroup of serve.
    ///
    /// # Errors
    /// [`TestError::Missing`]: it could not be created.
    pub fn cgroup(&self) -> Result<&Cgroup> {
        self.cgroup.as_ref().ok_or_else(|| TestError::Missing {
            what: "a cgroup for serve".to_owned(),
            remedy: "run as root on a host with cgroup v2".to_owned(),
        })
    }

    /// Waits for an OOM kill in that cgroup.
    pub fn until_oom_kill(&self) -> Result<()> {
        let events = self.cgroup()?.v2.join("memory.events");
        wait::until("an OOM kill in the cgroup", TIMEOUT, || {
            let text = std::fs::read_to_string(&events).ok()?;
            text.lines()
                .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
                .then_some(())
        })
    }

    /// Keeps a namespace until the record has been read.
    pub fn keep_netns(&mut self, netns: Netns) -> &Netns {
        self.netns.insert(netns)
    }

    /// The same with sessions that are compressed, or not.
    #[must_use]
    pub(super) fn compressed(self, is_compressed: bool) -> Self {
        Self { is_compressed, ..self }
    }

    /// stderr of this fault's serves.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.serves.iter().map(|(_, serve)| serve.process.stderr()).collect()
    }

    /// Adds the expectations that depend on the user, the host and the stack.
    #[must_use]
    pub fn complete(&self, expected: ExpectedRecord, kernel: KernelSource, user: &str) -> ExpectedRecord {
        let traced = !matches!(kernel, KernelSource::Off | KernelSource::Timeout);
        let percent = || Expect::Range(0, 100);
        let mut expected = expected
            .is("user", user)
            .key("ray", Expect::Begins(format!("ray-{user}")))
            .is("ip", "203.0.113.7");
        expected = expected.is("kernel", kernel.as_str());
        if self.stack.units() && expected.of("lost") == Some(&Expect::Absent) {
            // Under emulation a program is often interrupted by an event of the same program, which
            // is then lost. The verdict must still be correct.
            expected = expected.key("lost", Expect::AbsentOr(1, 10));
        }
        for (key, expect) in &self.learned {
            expected = expected.if_free(key, expect.clone());
        }
        let host = traced && Path::new("/proc/pressure/memory").exists();
        for key in ["host_psi_mem", "host_psi_io", "host_psi_cpu"] {
            expected = expected.if_free(key, if host { percent() } else { Expect::Absent });
        }
        // Only an existing serve has a cgroup, and so pressure.
        let pids = self.serves.iter().filter(|(whose, _)| whose == user);
        let pids: Vec<_> = pids.map(|(_, serve)| serve.process.pid().to_string()).collect();
        let served = !pids.is_empty();
        if self.stack.trace.is_some() && served {
            expected = expected.if_free("peer_pid", Expect::OneOf(pids));
        }
        // PSI is sampled every second: a failed open may have fewer than two samples.
        let opened = expected.of("dur_ms") != Some(&Expect::Is("0".to_owned()));
        if traced && served && self.own_pressure && opened {
            // systemd removes a unit's cgroup with its last process, possibly before the second
            // sample.
            let gone =
                self.stack.units() && expected.of("peer_exit") != Some(&Expect::Is("alive".to_owned()));
            for key in ["psi_mem", "psi_io", "psi_cpu"] {
                expected = expected.if_free(key, if gone { Expect::AbsentOr(0, 100) } else { percent() });
            }
        }
        if !traced {
            for key in ["peer_pid", "peer_comm", "peer_exit", "psi_mem", "psi_io", "psi_cpu"] {
                expected = expected.key(key, Expect::Absent);
            }
            // Without kernel events dispatch has only the results of its own calls.
            expected = expected.one_of("confidence", &["proven", "likely"]).key("chain", Expect::Free);
            if expected.of("dur_ms") == Some(&Expect::Is("0".to_owned())) {
                expected = expected.key("down_end", Expect::Free);
            }
        }
        if traced && served {
            expected.if_free("peer_comm", Expect::Begins("t3-serve-standi".to_owned()))
        } else {
            expected
        }
    }
}
