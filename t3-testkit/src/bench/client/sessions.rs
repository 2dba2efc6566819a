//! All sessions of the client in one epoll instance.

use std::{os::fd::OwnedFd, time::Instant};

use rustix::event::{
    Timespec,
    epoll::{self, EventData, EventFlags},
};

use super::{
    Load, Seen, TIMEOUT, nanoseconds,
    open::open,
    pace::{Schedule, Timer},
    seen,
    session::Session,
};
use crate::{
    error::{Attempt, Result, TestError},
    frame::{self, opcode},
};

/// Bytes per read.
const SCRATCH: usize = 256 * 1024;
/// Token of the timer; sessions have their index.
const TIMER: u64 = u64::MAX;

pub(super) struct Sessions {
    sessions: Vec<Session>,
    poll: OwnedFd,
    message: Vec<u8>,
    answer: u64,
    scratch: Vec<u8>,
    events: Vec<epoll::Event>,
}

impl Sessions {
    pub(super) fn open(load: &Load) -> Result<Self> {
        let payload = match load.payload {
            length if length == frame::HEARTBEAT.len() => frame::HEARTBEAT.as_bytes().to_vec(),
            length => vec![b'x'; length],
        };
        let poll =
            epoll::create(epoll::CreateFlags::CLOEXEC).attempt(|| "make an epoll instance".to_owned())?;
        let mut all = Self {
            sessions: Vec::with_capacity(load.sessions),
            poll,
            message: frame::from_client(opcode::TEXT, &payload),
            answer: load.answer,
            scratch: vec![0; SCRATCH],
            events: Vec::with_capacity(256),
        };
        for index in 0..load.sessions {
            let what = || format!("open session {index} of {} at {}", load.sessions, load.address);
            let stream = open(load.address, &load.target).attempt(what)?;
            stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).attempt(what)?;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            epoll::add(&all.poll, &stream, EventData::new_u64(index as u64), flags).attempt(what)?;
            all.sessions.push(Session::new(stream));
        }
        Ok(all)
    }

    /// Sends `total` messages, distributed evenly, the next one of a session after each reply, and
    /// waits for all replies.
    pub(super) fn exchange(&mut self, total: u64) -> Result<Seen> {
        let share = |index: u64, of: u64| total / of + u64::from(index < total % of);
        let count = self.sessions.len() as u64;
        let mut times = times(total);
        let begin = Instant::now();
        for (index, session) in (0..).zip(&mut self.sessions) {
            session.left = share(index, count);
            if session.left > 0 {
                session.left -= 1;
                session.begin(&self.message, Instant::now())?;
            }
        }
        while (times.len() as u64) < total {
            self.wait()?;
            for event in &self.events {
                let Some(session) = at(&mut self.sessions, event) else { continue };
                let Some(time) = session.proceed(&self.message, self.answer, &mut self.scratch)? else {
                    continue;
                };
                times.push(nanoseconds(time));
                if session.left > 0 {
                    session.left -= 1;
                    session.begin(&self.message, Instant::now())?;
                }
            }
        }
        Ok(seen(times, begin.elapsed()))
    }

    /// Sends `total` messages at a constant rate, one session after the other, and waits for all
    /// replies.
    pub(super) fn paced(&mut self, total: u64, rate: u64) -> Result<Seen> {
        let mut times = times(total);
        let begin = Instant::now();
        let timer = Timer::start(rate)?;
        epoll::add(&self.poll, &timer, EventData::new_u64(TIMER), EventFlags::IN)
            .attempt(|| "watch the timer".to_owned())?;
        // None when all messages are due: its events would hide that no reply arrives.
        let mut timer = Some(timer);
        let mut schedule = Schedule::new(begin, rate, total);
        let count = self.sessions.len() as u64;
        while (times.len() as u64) < total {
            self.wait()?;
            for event in &self.events {
                if event.data.u64() == TIMER {
                    timer.iter().for_each(Timer::rearm);
                    continue;
                }
                let Some(session) = at(&mut self.sessions, event) else { continue };
                let Some(time) = session.proceed(&self.message, self.answer, &mut self.scratch)? else {
                    continue;
                };
                times.push(nanoseconds(time));
                if let Some(due) = session.waiting.pop_front() {
                    session.begin(&self.message, due)?;
                }
            }
            while let Some((number, due)) = schedule.next_due(Instant::now()) {
                let index = usize::try_from(number % count).unwrap_or(usize::MAX);
                let Some(session) = self.sessions.get_mut(index) else { continue };
                if session.is_busy() {
                    session.waiting.push_back(due);
                } else {
                    session.begin(&self.message, due)?;
                }
            }
            if schedule.is_done() {
                timer = None;
            }
        }
        Ok(seen(times, begin.elapsed()))
    }

    /// Waits for events of sockets or of the timer.
    fn wait(&mut self) -> Result<()> {
        self.events.clear();
        let limit = Timespec { tv_sec: TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut self.events), Some(&limit)) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            Ok(0) => Err(TestError::Timeout { what: "a reply".to_owned(), after: TIMEOUT }),
            outcome => outcome.map(drop).attempt(|| "wait for sockets".to_owned()),
        }
    }
}

fn times(total: u64) -> Vec<u64> {
    Vec::with_capacity(usize::try_from(total).unwrap_or(0))
}

fn at<'a>(sessions: &'a mut [Session], event: &epoll::Event) -> Option<&'a mut Session> {
    sessions.get_mut(usize::try_from(event.data.u64()).unwrap_or(usize::MAX))
}
