//! One session of the client: sends a message, and reads its reply.

use std::{
    collections::VecDeque,
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::error::{Attempt, Result, TestError};

pub(super) struct Session {
    pub(super) stream: TcpStream,
    /// Messages to send after the one in flight.
    pub(super) left: u64,
    /// Due times of messages that wait for the one in flight.
    pub(super) waiting: VecDeque<Instant>,
    /// Begin of the message in flight.
    since: Option<Instant>,
    sent: usize,
    got: u64,
}

impl Session {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self { stream, left: 0, waiting: VecDeque::new(), since: None, sent: 0, got: 0 }
    }

    pub(super) const fn is_busy(&self) -> bool {
        self.since.is_some()
    }

    /// Begins a message, whose time counts from `since`.
    pub(super) fn begin(&mut self, message: &[u8], since: Instant) -> Result<()> {
        (self.sent, self.got, self.since) = (0, 0, Some(since));
        self.push(message)
    }

    fn push(&mut self, message: &[u8]) -> Result<()> {
        while self.is_busy() && self.sent < message.len() {
            match send(&self.stream, message.get(self.sent..).unwrap_or_default(), SendFlags::NOSIGNAL) {
                Ok(length) => self.sent += length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error).attempt(|| "send a message".to_owned()),
            }
        }
        Ok(())
    }

    /// Sends and reads until the socket would block. Returns the time of the message in flight when
    /// its reply of `answer` bytes is complete.
    pub(super) fn proceed(
        &mut self,
        message: &[u8],
        answer: u64,
        scratch: &mut [u8],
    ) -> Result<Option<Duration>> {
        self.push(message)?;
        loop {
            let length = match recv(&self.stream, &mut *scratch, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error).attempt(|| "read a reply".to_owned()),
            };
            self.got += length as u64;
            let Some(since) = self.since.filter(|_| length > 0 && self.got <= answer) else {
                let got = format!("{length} bytes, {} in all", self.got);
                return Err(TestError::Unexpected { what: format!("a reply of {answer} bytes"), got });
            };
            // No other reply is on its way, so that nothing is left to read.
            if self.got == answer {
                self.since = None;
                return Ok(Some(since.elapsed()));
            }
            if length < scratch.len() {
                return Ok(None);
            }
        }
    }
}
