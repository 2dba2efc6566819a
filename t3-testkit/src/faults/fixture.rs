//! What a fault works with: the running stack, one user of its own, and the parts it has started.

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
    harness::{Body, Cgroup, Netns, Serve, Stack},
    sys, wait,
};

/// Period of the heartbeat in faults: short, as everything that matters is relative to it, and not
/// so short that a busy machine looks like a fault.
pub const PERIOD: Duration = Duration::from_millis(400);

/// Answered heartbeats before a fault: enough to learn the period from.
pub(super) const HEARTBEATS: u64 = 3;

/// The n-th user of a fault.
pub(super) fn user(first: &str, number: usize) -> String {
    if number == 0 { first.to_owned() } else { format!("{first}-{number}") }
}

/// Whether a user is one of those that begin with this one.
pub(super) fn owns(first: &str, user: &str) -> bool {
    user.strip_prefix(first).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok())
    })
}

/// The surroundings of one fault.
#[derive(Debug)]
pub struct Fixture<'a> {
    /// dispatch and t3-trace.
    pub stack: &'a mut Stack,
    /// This fault's user; nobody else's sessions have it.
    pub user: String,
    /// What the fault says about keys that it learns only while it runs.
    pub learned: Vec<(&'static str, Expect)>,
    /// `ws burst` lines before the fault.
    pub(super) bursts: usize,
    /// Kept until the record has been read, as a dead client's port must not be reused meanwhile.
    pub(super) clients: Vec<Client>,
    pub(super) serves: Vec<(String, Serve)>,
    /// Rays of sessions that the fault does not hit.
    pub(super) aside: BTreeSet<String>,
    cgroup: Option<Cgroup>,
    netns: Option<Netns>,
    own_pressure: bool,
}

impl<'a> Fixture<'a> {
    /// For this user.
    pub fn new(stack: &'a mut Stack, user: String) -> Self {
        // A unit brings its own. Without any the stand-in shares ours; then pressure is that of the
        // whole test.
        let cgroup = if stack.units() { None } else { Cgroup::new().ok() };
        let bursts = stack.journal.bursts().map_or(0, |bursts| bursts.len());
        Self {
            stack,
            user,
            learned: Vec::new(),
            bursts,
            aside: BTreeSet::new(),
            clients: Vec::new(),
            serves: Vec::new(),
            cgroup,
            netns: None,
            own_pressure: false,
        }
    }

    /// Starts this user's serve.
    pub fn serve(&mut self, arguments: &[&str]) -> Result<()> {
        self.serve_of(0, arguments)
    }

    /// Starts the serve of the fault's n-th user.
    pub fn serve_of(&mut self, number: usize, arguments: &[&str]) -> Result<()> {
        let user = user(&self.user, number);
        let serve = self.stack.serve(&user, arguments, self.cgroup.as_ref())?;
        if let Body::Unit(unit) = &serve.process {
            self.cgroup = Some(Cgroup::of_unit(unit));
        }
        // Asked now: systemd removes a cgroup together with its last process.
        self.own_pressure =
            self.cgroup.as_ref().is_some_and(|cgroup| cgroup.v2.join("memory.pressure").exists());
        self.serves.push((user, serve));
        Ok(())
    }

    /// How a healthy browser of this user connects.
    #[must_use]
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.stack.address, &self.user).header("Cf-Ray", &self.ray());
        config.heartbeat = Some(PERIOD);
        config.header("X-Forwarded-For", "203.0.113.7")
    }

    fn ray(&self) -> String {
        format!("ray-{}", self.user)
    }

    /// A serve, and a session on it with enough heartbeats behind it.
    pub fn session(&mut self) -> Result<()> {
        self.serve(&[])?;
        self.open(self.config())
    }

    /// The same, at rest, with a browser that does not close when serve's side does.
    pub fn patient_session(&mut self) -> Result<()> {
        self.serve(&[])?;
        let mut config = self.config();
        config.closes_on_fin = false;
        self.open(config)?;
        self.quiet()
    }

    /// A session with enough heartbeats behind it.
    pub fn open(&mut self, config: Config) -> Result<()> {
        let client = Client::connect(config)?;
        client.heartbeats(HEARTBEATS)?;
        self.clients.push(client);
        Ok(())
    }

    /// A session over a link of its own, changed by `change` before it opens.
    pub fn session_over_link(&mut self, change: impl FnOnce(&mut Config)) -> Result<Netns> {
        let netns = Netns::new()?;
        self.serve(&[])?;
        let mut config = self.config();
        config.address = (netns.near, self.stack.address.port()).into();
        config.namespace = Some(netns.descriptor()?);
        change(&mut config);
        self.open(config)?;
        Ok(netns)
    }

    /// The session opened last.
    ///
    /// # Panics
    /// Before a session was opened: a mistake in the catalogue.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a mistake in the catalogue, not something from outside")]
    pub fn client(&self) -> &Client {
        self.clients.last().expect("the fault opens a session first")
    }

    /// The serve started last.
    ///
    /// # Panics
    /// Before one was started: a mistake in the catalogue.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a mistake in the catalogue, not something from outside")]
    pub fn the_serve(&mut self) -> &mut Serve {
        self.serves.last_mut().map(|(_, serve)| serve).expect("the fault starts a serve first")
    }

    /// Gives the serve an order.
    pub fn order(&mut self, order: &str) -> Result<()> {
        self.the_serve().order(order)
    }

    /// Stops the heartbeat and waits for the last answer, so that nothing is on its way when a
    /// process dies: unread bytes would turn its FIN into a RST. The pause is far below a period.
    pub fn quiet(&self) -> Result<()> {
        let client = self.client();
        client.heartbeat(None);
        client.wait("the last answer", TIMEOUT, |seen| seen.pings == seen.pongs).map(drop)
    }

    /// Waits for the client's end, whichever way.
    pub fn ended(&self) -> Result<()> {
        self.client().wait_end().map(drop)
    }

    /// Lets a browser that has sent its close frame go away without an answer.
    pub fn gives_up(&self) {
        self.client().close(Some(1000), "");
        std::thread::sleep(PERIOD);
        self.client().drop_socket();
    }

    /// Hands the client's socket to a process that does nothing, and kills that process.
    pub fn client_process_killed(&self) -> Result<()> {
        let mut holder = Command::new("sleep");
        holder.arg("600").stdin(Stdio::from(self.client().surrender()?));
        holder.stdout(Stdio::null()).stderr(Stdio::null());
        sys::dies_with_us(&mut holder);
        let mut child = holder.spawn().attempt(|| "start sleep with the client's socket".to_owned())?;
        // Ours must be closed before, or the kill would close nothing.
        drop(holder);
        let killed = child.kill().attempt(|| "kill the client's process".to_owned());
        let _ = child.wait();
        killed
    }

    /// The cgroup of this user's serve.
    ///
    /// # Errors
    /// [`TestError::Missing`]: none could be made.
    pub fn limits(&self) -> Result<&Cgroup> {
        self.cgroup.as_ref().ok_or_else(|| TestError::Missing {
            what: "a cgroup for serve".to_owned(),
            remedy: "run as root on a machine with cgroup v2".to_owned(),
        })
    }

    /// Waits until the kernel has killed something in that cgroup.
    pub fn until_oom_kill(&self) -> Result<()> {
        let events = self.limits()?.v2.join("memory.events");
        wait::until("an OOM kill in the cgroup", TIMEOUT, || {
            let text = std::fs::read_to_string(&events).ok()?;
            text.lines()
                .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
                .then_some(())
        })
    }

    /// Keeps a namespace until the record has been read.
    pub fn keep(&mut self, netns: Netns) -> &Netns {
        self.netns.insert(netns)
    }

    /// stderr of this fault's serves.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.serves.iter().map(|(_, serve)| serve.process.stderr()).collect()
    }

    /// A truth about this user's session, with everything filled in that the surroundings decide.
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
            // An emulated CPU is long enough in a program to be interrupted by what would run the
            // same one. It is said, and the verdict must be right all the same.
            expected = expected.key("lost", Expect::AbsentOr(1, 10));
        }
        for (key, expect) in &self.learned {
            expected = expected.unless_said(key, expect.clone());
        }
        let host = traced && Path::new("/proc/pressure/memory").exists();
        for key in ["host_psi_mem", "host_psi_io", "host_psi_cpu"] {
            expected = expected.unless_said(key, if host { percent() } else { Expect::Absent });
        }
        // The pressure of a serve's cgroup is known while the process is; one that was never there
        // has none.
        let pids = self.serves.iter().filter(|(whose, _)| whose == user);
        let pids: Vec<_> = pids.map(|(_, serve)| serve.process.pid().to_string()).collect();
        let served = !pids.is_empty();
        if self.stack.trace.is_some() && served {
            expected = expected.unless_said("peer_pid", Expect::OneOf(pids));
        }
        // Pressure is sampled once a second: a serve that failed at once may have no two samples
        // yet.
        let opened = expected.of("dur_ms") != Some(&Expect::Is("0".to_owned()));
        if traced && served && self.own_pressure && opened {
            // systemd takes a unit's cgroup away with its last process, which a short session's
            // second sample may be too late for.
            let gone =
                self.stack.units() && expected.of("peer_exit") != Some(&Expect::Is("alive".to_owned()));
            for key in ["psi_mem", "psi_io", "psi_cpu"] {
                expected = expected.unless_said(key, if gone { Expect::AbsentOr(0, 100) } else { percent() });
            }
        }
        if !traced {
            for key in ["peer_pid", "peer_comm", "peer_exit", "psi_mem", "psi_io", "psi_cpu"] {
                expected = expected.key(key, Expect::Absent);
            }
            // dispatch alone cannot always be sure, and sees only what its own calls answered.
            expected = expected.one_of("confidence", &["proven", "likely"]).key("chain", Expect::Free);
            if expected.of("dur_ms") == Some(&Expect::Is("0".to_owned())) {
                expected = expected.key("down_end", Expect::Free);
            }
        }
        if traced && served {
            expected.unless_said("peer_comm", Expect::Begins("t3-serve-standi".to_owned()))
        } else {
            expected
        }
    }
}
