//! The play: opens the sessions, ends each in its way, waits for its record, and goes on. Knows
//! nothing of how verdicts come about.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use t3_record::CloseRecord;

use super::{
    records::Records,
    report::{Outcome, Report},
    scenario::{Ending, Needs},
    screen::Screen,
    setup::Fixture,
    stop::Stop,
};
use crate::{
    client::{Client, Config, Seen},
    error::{Result, TestError},
};

/// The browsers' heartbeat; the real one beats every 5 s.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long serve holds its event loop: longer than three heartbeats.
const BUSY: &str = "busy 5000";
/// Limit of the cgroup in which serve is to die, and what serve then takes.
const MEMORY: (u64, &str) = (64 << 20, "alloc 1073741824");
/// For anything that should happen by itself.
const TIMEOUT: Duration = Duration::from_secs(20);
/// For `live` to print what t3-dispatch has written.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Somebody pressed Ctrl-C.
    #[error("stopped")]
    Stopped,
    /// It could not be carried out.
    #[error(transparent)]
    Failed(#[from] TestError),
}

/// The play on its stage.
#[derive(Debug)]
pub struct DemoRunner<'a> {
    fixture: &'a mut Fixture,
    screen: &'a Screen,
    records: &'a Records,
    stop: &'a Stop,
    sessions: BTreeMap<Ending, Client>,
}

impl<'a> DemoRunner<'a> {
    /// Nothing has happened yet.
    pub fn new(fixture: &'a mut Fixture, screen: &'a Screen, records: &'a Records, stop: &'a Stop) -> Self {
        Self { fixture, screen, records, stop, sessions: BTreeMap::new() }
    }

    /// Plays all of it, with a pause before each ending.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn run(mut self, pause: Duration) -> Result<Report, Ended> {
        let mut outcomes = Vec::new();
        // alice has a session for each of her endings from the start; bob's end with his serve, so
        // his come one by one.
        let first = [Ending::CloseFrame, Ending::TabGone, Ending::Reset, Ending::Vanished, Ending::Killed];
        for ending in
            first.into_iter().filter(|ending| self.fixture.cannot(*ending).is_none()).collect::<Vec<_>>()
        {
            self.open(ending)?;
        }
        for ending in Ending::ALL {
            if let Some(why) = self.fixture.cannot(ending) {
                outcomes.push((ending, Outcome::NotShown(why)));
                continue;
            }
            self.fixture.runs()?;
            if !self.sessions.contains_key(&ending) {
                self.open(ending)?;
            }
            self.healthy(ending)?;
            self.pause(pause)?;
            self.screen.dim(ending.saying());
            let shown = self.screen.shown();
            self.end(ending)?;
            let records = self.record(ending)?;
            self.until_shown(shown)?;
            outcomes.push((ending, Outcome::Records(records)));
            if ending.ends_serve() {
                self.fixture.serve(ending.user())?.process.wait(TIMEOUT)?;
                self.fixture.start_serve(ending.user())?;
            }
            self.sessions.remove(&ending);
        }
        // One more than one record would be wrong too; a late one shows only now.
        for (ending, outcome) in &mut outcomes {
            if let Outcome::Records(records) = outcome {
                *records = self.records.of(&ending.ray());
            }
        }
        Ok(Report { kernel: self.fixture.kernel, outcomes })
    }

    fn open(&mut self, ending: Ending) -> Result<(), Ended> {
        let ip = if ending.user() == "alice" { "203.0.113.7" } else { "198.51.100.23" };
        let config = Config::new(self.fixture.address, ending.user());
        let mut config = config.header("Cf-Ray", &ending.ray()).header("X-Forwarded-For", ip);
        config.heartbeat = Some(HEARTBEAT);
        if ending.needs() == Needs::Network
            && let Some(network) = &self.fixture.network
        {
            config.namespace = Some(network.descriptor()?);
        }
        self.sessions.insert(ending, Client::connect(config)?);
        Ok(())
    }

    fn client(&self, ending: Ending) -> Result<&Client, TestError> {
        let missing =
            || TestError::Unexpected { what: format!("a session for {ending:?}"), got: "none".to_owned() };
        self.sessions.get(&ending).ok_or_else(missing)
    }

    /// Waits until serve has answered three heartbeats, so that there is a rhythm that can be lost.
    fn healthy(&self, ending: Ending) -> Result<(), Ended> {
        self.until_seen(ending, "three answered heartbeats", |seen| seen.pongs >= 3)
    }

    /// Acts right after an answered heartbeat, so that nothing unread turns a FIN into a RST.
    fn end(&mut self, ending: Ending) -> Result<(), Ended> {
        let pongs = self.client(ending)?.seen().pongs;
        self.until_seen(ending, "an answered heartbeat", |seen| seen.pongs > pongs)?;
        match ending {
            Ending::CloseFrame => self.client(ending)?.close(Some(1001), ""),
            Ending::TabGone => self.client(ending)?.fin(),
            Ending::Reset => self.client(ending)?.reset(),
            Ending::Vanished => self.fixture.network.as_ref().map_or(Ok(()), |network| network.cut())?,
            Ending::Killed => self.fixture.serve(ending.user())?.process.signal(libc::SIGKILL)?,
            Ending::Restarted => self.fixture.serve(ending.user())?.order("exit 0")?,
            Ending::Stalled => {
                self.fixture.serve(ending.user())?.begin(BUSY)?;
                self.until_seen(ending, "three unanswered heartbeats", |seen| seen.pings >= seen.pongs + 3)?;
                self.client(ending)?.close(Some(1000), "");
            }
            Ending::Oom => {
                if let Some(cgroup) = self.fixture.cgroups.get(ending.user()) {
                    cgroup.limit_memory(MEMORY.0)?;
                }
                self.fixture.serve(ending.user())?.begin(MEMORY.1)?;
            }
        }
        Ok(())
    }

    /// The session's records, as soon as there is one; none after a while is a finding too.
    fn record(&self, ending: Ending) -> Result<Vec<CloseRecord>, Ended> {
        let ray = ending.ray();
        self.until(TIMEOUT, || !self.records.of(&ray).is_empty())?;
        Ok(self.records.of(&ray))
    }

    fn until_shown(&self, before: usize) -> Result<(), Ended> {
        let shown = self.until(SHOWN_WITHIN, || self.screen.shown() > before)?;
        if shown { Ok(()) } else { Err(unexpected("a line of t3-trace live", &self.fixture.stderr())) }
    }

    fn until_seen(&self, ending: Ending, what: &str, enough: impl Fn(&Seen) -> bool) -> Result<(), Ended> {
        let client = self.client(ending)?;
        let seen = self.until(TIMEOUT, || enough(&client.seen()) || client.seen().ended.is_some())?;
        if seen && enough(&client.seen()) {
            return Ok(());
        }
        let what = format!("{what} before \"{}\"", ending.name());
        Err(unexpected(&what, &format!("{:?}\n{}", client.seen(), self.fixture.stderr())))
    }

    fn pause(&self, pause: Duration) -> Result<(), Ended> {
        self.until(pause, || false).map(drop)
    }

    /// Polls; gives whether it came in time. Ctrl-C ends every wait.
    fn until(&self, limit: Duration, mut look: impl FnMut() -> bool) -> Result<bool, Ended> {
        let deadline = Instant::now() + limit;
        loop {
            if self.stop.wanted() {
                return Err(Ended::Stopped);
            }
            if look() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn unexpected(what: &str, got: &str) -> Ended {
    Ended::Failed(TestError::Unexpected { what: what.to_owned(), got: got.to_owned() })
}
