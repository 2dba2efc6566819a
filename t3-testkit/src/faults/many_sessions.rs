//! Helpers for faults with several users and sessions.

use std::{net::SocketAddr, time::Duration};

use t3_record::CloseRecord;

use super::{
    Fixture,
    fixture::{self, HEARTBEATS},
};
use crate::{
    client::{Client, Config, TIMEOUT},
    error::{Result, TestError},
    wait,
};

/// Heartbeat period with many sessions: longer than it takes to stop twenty of them one after the
/// other, or to wait for twenty replies.
const RELAXED: Duration = Duration::from_secs(1);

/// Longer than the second of a burst and the evidence timeout: then its `ws burst` line is written.
const BURST_WRITTEN: Duration = Duration::from_millis(2_500);

impl Fixture<'_> {
    /// Configuration of the client of this user's `number`-th session.
    #[must_use]
    pub fn config_of(&self, user: usize, number: usize, address: SocketAddr) -> Config {
        let user = fixture::user(&self.user, user);
        let mut config = Config::new(address, &user).header("Cf-Ray", &ray(&user, number));
        config.heartbeat = Some(RELAXED);
        config.header("X-Forwarded-For", "203.0.113.7")
    }

    /// Starts a serve for each of the first `users` and opens `sessions`, distributed over them;
    /// waits for heartbeats. Session `n` is [`Fixture::nth`] `n`.
    pub fn open_many(&mut self, sessions: usize, users: usize, address: SocketAddr) -> Result<()> {
        for user in 0..users {
            self.serve_of(user, &[])?;
        }
        for number in 0..sessions {
            let client = Client::connect(self.config_of(number % users, number, address))?;
            self.clients.push(client);
        }
        for number in 0..sessions {
            // The total, because the heartbeats of all sessions run at the same time.
            self.nth(number).wait("enough answered heartbeats", TIMEOUT, |seen| seen.pongs >= HEARTBEATS)?;
        }
        Ok(())
    }

    /// The client of the n-th session.
    ///
    /// # Panics
    /// There are fewer: a mistake in the catalogue.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "a mistake in the catalogue, not something from outside")]
    pub fn nth(&self, number: usize) -> &Client {
        &self.clients[number]
    }

    /// Stops all heartbeats and waits for the last replies, so that nothing is in flight when the
    /// connections are cut.
    pub fn stop_heartbeats(&self) -> Result<()> {
        for client in &self.clients {
            client.heartbeat(None);
        }
        for client in &self.clients {
            client.wait("the last heartbeat reply", TIMEOUT, |seen| seen.pings == seen.pongs)?;
        }
        Ok(())
    }

    /// Marks this user's `number`-th session as not affected by the fault.
    pub fn set_unaffected(&mut self, user: usize, number: usize) {
        self.unaffected.insert(ray(&fixture::user(&self.user, user), number));
    }

    /// Whether the session of this record is marked as not affected.
    #[must_use]
    pub fn is_unaffected(&self, record: &CloseRecord) -> bool {
        record.ray.as_ref().is_some_and(|ray| self.unaffected.contains(ray))
    }

    /// Checks that this fault caused exactly one `ws burst` line, with these numbers.
    pub fn one_burst(&self, sessions: u64, users: u64) -> Result<()> {
        let new = || Ok(self.stack.journal.bursts()?.into_iter().skip(self.bursts).collect::<Vec<_>>());
        wait::until("a `ws burst` line", TIMEOUT, || {
            new().is_ok_and(|bursts: Vec<_>| !bursts.is_empty()).then_some(())
        })?;
        std::thread::sleep(BURST_WRITTEN);
        let bursts = new()?;
        let got: Vec<_> = bursts.iter().map(|(burst, _)| (burst.n, burst.users)).collect();
        if got == [(sessions, users)] {
            return Ok(());
        }
        let what = format!("one `ws burst` line of {sessions} sessions of {users} users");
        Err(TestError::Unexpected { what, got: format!("{got:?}") })
    }

    /// Checks that this fault caused no `ws burst` line.
    pub fn no_burst(&self) -> Result<()> {
        std::thread::sleep(BURST_WRITTEN);
        let got = self.stack.journal.bursts()?.len() - self.bursts;
        if got == 0 {
            return Ok(());
        }
        Err(TestError::Unexpected { what: "no `ws burst` line".to_owned(), got: got.to_string() })
    }
}

fn ray(user: &str, number: usize) -> String {
    format!("ray-{user}-n{number}")
}
