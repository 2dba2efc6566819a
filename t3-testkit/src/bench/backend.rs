//! Backend of the benchmark: one thread, edge-triggered epoll, one read and one write per message.
//!
//! After `GET /echo` the reply to each message is a text frame of the same length (to a heartbeat,
//! a heartbeat reply); after `GET /push/LENGTH/COUNT` it is COUNT text frames of LENGTH bytes.
//! Replies are built once and shared; payloads are not read.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, RawFd},
    rc::Rc,
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    net::{RecvFlags, SendFlags, recv, send},
};

use super::wire::Skipper;
use crate::{
    error::{Attempt, Result},
    frame::{self, opcode},
    handshake,
};

/// Bytes per read, at least one write of a proxy.
const SCRATCH: usize = 256 * 1024;
/// Maximum length of a request head in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// Runs until it is killed.
pub fn run(port: u16) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).attempt(|| format!("listen on port {port}"))?;
    // std sets a backlog of 128; the proxies use the kernel's limit too.
    rustix::net::listen(&listener, 4096).attempt(|| "lengthen the accept queue".to_owned())?;
    listener.set_nonblocking(true).attempt(|| "make the listener non-blocking".to_owned())?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).attempt(|| "make an epoll instance".to_owned())?;
    watch(&poll, &listener, EventFlags::IN)?;
    let (mut sessions, mut answers) = (HashMap::<RawFd, Session>::new(), Answers::default());
    let mut scratch = vec![0; SCRATCH];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            outcome => outcome.attempt(|| "wait for sockets".to_owned())?,
        };
        for event in &events {
            let fd = RawFd::try_from(event.data.u64()).unwrap_or(-1);
            if fd == listener.as_raw_fd() {
                while let Ok((stream, _)) = listener.accept() {
                    let session = Session::new(stream)?;
                    watch(&poll, &session.stream, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
                    sessions.insert(session.stream.as_raw_fd(), session);
                }
            } else if sessions
                .get_mut(&fd)
                .is_some_and(|session| session.proceed(&mut scratch, &mut answers).is_err())
            {
                // The client reports a session that ended early.
                sessions.remove(&fd);
            }
        }
    }
}

fn watch(
    poll: &impl std::os::fd::AsFd,
    what: &(impl std::os::fd::AsFd + std::os::fd::AsRawFd),
    flags: EventFlags,
) -> Result<()> {
    let data = EventData::new_u64(u64::try_from(what.as_raw_fd()).unwrap_or(u64::MAX));
    epoll::add(poll, what, data, flags).attempt(|| "watch a socket".to_owned())
}

/// Reply frames by payload length.
#[derive(Default)]
struct Answers(HashMap<u64, Rc<[u8]>>);

impl Answers {
    fn of(&mut self, length: u64) -> Rc<[u8]> {
        let make = || {
            let heartbeat = frame::HEARTBEAT_ANSWER.as_bytes();
            let payload = match usize::try_from(length).unwrap_or(0) {
                length if length == heartbeat.len() => heartbeat.to_vec(),
                length => vec![b'x'; length],
            };
            frame::from_server(opcode::TEXT, &payload).into()
        };
        Rc::clone(self.0.entry(length).or_insert_with(make))
    }
}

/// Kind of the replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Echo,
    Push { length: u64, count: u64 },
}

struct Session {
    stream: TcpStream,
    /// The received part of the request head; `None` after the response.
    head: Option<Vec<u8>>,
    manner: Manner,
    skipper: Skipper,
    /// Bytes to send, with the number of repetitions.
    owed: VecDeque<(Rc<[u8]>, u64)>,
    /// Number of bytes sent of the first entry of `owed`.
    sent: usize,
}

impl Session {
    fn new(stream: TcpStream) -> Result<Self> {
        let what = || "prepare an accepted socket".to_owned();
        stream.set_nonblocking(true).attempt(what)?;
        stream.set_nodelay(true).attempt(what)?;
        Ok(Self {
            stream,
            head: Some(Vec::new()),
            manner: Manner::Echo,
            skipper: Skipper::default(),
            owed: VecDeque::new(),
            sent: 0,
        })
    }

    /// Reads and writes until the socket would block. An error ends the session.
    fn proceed(&mut self, scratch: &mut [u8], answers: &mut Answers) -> io::Result<()> {
        self.pay()?;
        loop {
            let length = match recv(&self.stream, &mut *scratch, RecvFlags::empty()) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.arrived(scratch.get(..length).unwrap_or_default(), answers)?;
            self.pay()?;
            if length < scratch.len() {
                return Ok(());
            }
        }
    }

    fn arrived(&mut self, bytes: &[u8], answers: &mut Answers) -> io::Result<()> {
        let Some(head) = &mut self.head else {
            let (owed, manner) = (&mut self.owed, self.manner);
            self.skipper.feed(bytes, |length| {
                owed.push_back(match manner {
                    Manner::Echo => (answers.of(length), 1),
                    Manner::Push { length, count } => (answers.of(length), count),
                });
            });
            return Ok(());
        };
        head.extend_from_slice(bytes);
        if head.len() > HEAD_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some((manner, answer)) = answer_head(head) {
            self.manner = manner;
            self.owed.push_back((answer.into_bytes().into(), 1));
            self.head = None;
        }
        Ok(())
    }

    fn pay(&mut self) -> io::Result<()> {
        while let Some((bytes, times)) = self.owed.front_mut() {
            match send(&self.stream, bytes.get(self.sent..).unwrap_or_default(), SendFlags::NOSIGNAL) {
                Ok(length) => self.sent += length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.sent >= bytes.len() {
                self.sent = 0;
                *times -= 1;
                if *times == 0 {
                    self.owed.pop_front();
                }
            }
        }
        Ok(())
    }
}

/// Returns the response to a complete head; `None` while it is incomplete. No data follows a head
/// before the response.
fn answer_head(head: &[u8]) -> Option<(Manner, String)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let target = text.split(' ').nth(1)?;
    let key = handshake::field(text, "sec-websocket-key").unwrap_or_default();
    let mut words = target.trim_start_matches('/').split('/');
    let manner = match (words.next(), words.next(), words.next()) {
        (Some("push"), Some(length), Some(count)) => {
            Manner::Push { length: length.parse().ok()?, count: count.parse().ok()? }
        }
        _ => Manner::Echo,
    };
    Some((manner, handshake::response(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_selects_the_replies() {
        let head = "GET /push/65536/16 HTTP/1.1\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let (manner, answer) = answer_head(head.as_bytes()).unwrap();
        assert_eq!(manner, Manner::Push { length: 65536, count: 16 });
        assert_eq!(answer, handshake::response("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(answer_head(&head.as_bytes()[..head.len() - 1]).is_none());
        let (manner, _) = answer_head(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(manner, Manner::Echo);
    }
}
