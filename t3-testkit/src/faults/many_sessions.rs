//! Several users with several sessions: what the faults of shared segments are made of.

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

/// Period of the heartbeats of a crowd: stopping twenty of them one after the other, or waiting for
/// twenty answers, must take less.
const RELAXED: Duration = Duration::from_secs(1);

/// Longer than a burst's second and the patience of its members: then it has been summed up.
const SUMMED_UP: Duration = Duration::from_millis(2_500);

impl Fixture<'_> {
    /// How the browser of this user's `number`-th session connects, through what listens at
    /// `address`.
    #[must_use]
    pub fn config_of(&self, user: usize, number: usize, address: SocketAddr) -> Config {
        let user = fixture::user(&self.user, user);
        let mut config = Config::new(address, &user).header("Cf-Ray", &ray(&user, number));
        config.heartbeat = Some(RELAXED);
        config.header("X-Forwarded-For", "203.0.113.7")
    }

    /// A serve for each of the first `users`, and `sessions` dealt out to them in turn, each with
    /// enough heartbeats behind it. Session `n` is [`Fixture::nth`] `n`.
    pub fn crowd(&mut self, sessions: usize, users: usize, address: SocketAddr) -> Result<()> {
        for user in 0..users {
            self.serve_of(user, &[])?;
        }
        for number in 0..sessions {
            let client = Client::connect(self.config_of(number % users, number, address))?;
            self.clients.push(client);
        }
        for number in 0..sessions {
            // In all, not each after the one before: they beat at the same time.
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

    /// Stops all heartbeats and waits for the last answers, so that nothing is on its way when the
    /// connections are cut.
    pub fn all_quiet(&self) -> Result<()> {
        for client in &self.clients {
            client.heartbeat(None);
        }
        for client in &self.clients {
            client.wait("the last answer", TIMEOUT, |seen| seen.pings == seen.pongs)?;
        }
        Ok(())
    }

    /// The fault does not hit this user's `number`-th session: the truth aside is its.
    pub fn set_aside(&mut self, user: usize, number: usize) {
        self.aside.insert(ray(&fixture::user(&self.user, user), number));
    }

    /// Whether the fault does not hit this record's session.
    #[must_use]
    pub fn is_aside(&self, record: &CloseRecord) -> bool {
        record.ray.as_ref().is_some_and(|ray| self.aside.contains(ray))
    }

    /// Exactly so many `ws burst` lines came of this fault, and the last says so.
    pub fn one_burst(&self, sessions: u64, users: u64) -> Result<()> {
        let new = || Ok(self.stack.journal.bursts()?.into_iter().skip(self.bursts).collect::<Vec<_>>());
        wait::until("a `ws burst` line", TIMEOUT, || {
            new().is_ok_and(|bursts: Vec<_>| !bursts.is_empty()).then_some(())
        })?;
        std::thread::sleep(SUMMED_UP);
        let bursts = new()?;
        let got: Vec<_> = bursts.iter().map(|(burst, _)| (burst.n, burst.users)).collect();
        if got == [(sessions, users)] {
            return Ok(());
        }
        let what = format!("one `ws burst` line of {sessions} sessions of {users} users");
        Err(TestError::Unexpected { what, got: format!("{got:?}") })
    }

    /// No `ws burst` line came of this fault.
    pub fn no_burst(&self) -> Result<()> {
        std::thread::sleep(SUMMED_UP);
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
