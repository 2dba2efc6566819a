//! The floor: a relay that does nothing but copy bytes, with the fewest system calls that a relay
//! in user space needs. One thread, edge-triggered epoll, one read and one write per message.
//!
//! It parses no request, writes no record and has no timeouts. It shows what the system calls of a
//! proxy cost on a host.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect, recv,
        send, shutdown, socket_with, sockopt,
    },
};

use crate::error::{Attempt, Result};

/// Bytes per read, as t3-dispatch reads: less than a packet of the loopback.
const SCRATCH: usize = 65_160;
/// Token of the listener; legs have twice the index of their pair, plus one for the upstream leg.
const LISTENER: u64 = u64::MAX;

/// Relays until it is killed.
pub fn run(address: SocketAddr, backend: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).attempt(|| format!("listen on {address}"))?;
    relay(&listener, backend)
}

fn relay(listener: &TcpListener, backend: SocketAddr) -> Result<()> {
    rustix::net::listen(listener, 4096).attempt(|| "lengthen the accept queue".to_owned())?;
    listener.set_nonblocking(true).attempt(|| "make the listener non-blocking".to_owned())?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).attempt(|| "make an epoll instance".to_owned())?;
    epoll::add(&poll, listener, EventData::new_u64(LISTENER), EventFlags::IN)
        .attempt(|| "watch the listener".to_owned())?;
    let mut pairs = Pairs::default();
    let mut scratch = vec![0; SCRATCH];
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            outcome => outcome.attempt(|| "wait for sockets".to_owned())?,
        };
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                // The client reports a session that does not open.
                let _ = pairs.accept(&poll, listener, backend);
            } else {
                pairs.proceed(token, event.flags, &mut scratch);
            }
        }
        pairs.recycle();
    }
}

/// Open pairs by index.
#[derive(Default)]
struct Pairs {
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Ended in this batch of events, which may have further events of them.
    ended: Vec<usize>,
}

/// The two legs of a session.
struct Pair {
    /// Downstream, upstream.
    legs: [OwnedFd; 2],
    /// From the leg with this index to the other one.
    flows: [Flow; 2],
}

#[derive(Default)]
struct Flow {
    /// Read, and not yet written.
    pending: Vec<u8>,
    /// Whether the source may have more to read.
    is_readable: bool,
    /// Whether the end of the source follows the bytes that it still has.
    is_ending: bool,
    /// Whether the source has ended, and the sink got all of it.
    is_done: bool,
}

impl Pairs {
    fn accept(&mut self, poll: &OwnedFd, listener: &TcpListener, backend: SocketAddr) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let downstream = accept_with(listener, flags)?;
        let upstream = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&downstream, true)?;
        sockopt::set_tcp_nodelay(&upstream, true)?;
        match connect(&upstream, &backend) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let token = |leg: u64| EventData::new_u64(index as u64 * 2 + leg);
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(poll, &downstream, token(0), events)?;
        epoll::add(poll, &upstream, token(1), events)?;
        if let Some(place) = self.pairs.get_mut(index) {
            *place = Some(Pair { legs: [downstream, upstream], flows: Default::default() });
        }
        Ok(())
    }

    /// Handles an event of a leg.
    fn proceed(&mut self, token: u64, flags: EventFlags, scratch: &mut [u8]) {
        let index = usize::try_from(token / 2).unwrap_or(usize::MAX);
        let Some(place) = self.pairs.get_mut(index) else { return };
        let Some(pair) = place else { return };
        // An error closes both legs, as does the end of both flows.
        if pair.event(usize::from(token % 2 == 1), flags, scratch).unwrap_or(true) {
            *place = None;
            self.ended.push(index);
        }
    }

    fn recycle(&mut self) {
        self.free.append(&mut self.ended);
    }
}

impl Pair {
    /// Handles an event of a leg. Returns whether both flows have ended.
    fn event(&mut self, leg: usize, flags: EventFlags, scratch: &mut [u8]) -> io::Result<bool> {
        let [downstream, upstream] = &self.legs;
        let [up, down] = &mut self.flows;
        let (own, other, from, to) =
            if leg == 0 { (downstream, upstream, up, down) } else { (upstream, downstream, down, up) };
        if flags.contains(EventFlags::OUT) && !to.pending.is_empty() {
            to.copy(other, own, from.is_done, scratch)?;
        }
        let is_ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if is_ending || flags.contains(EventFlags::IN) {
            from.is_readable = true;
            from.is_ending |= is_ending;
            from.copy(own, other, to.is_done, scratch)?;
        }
        Ok(from.is_done && to.is_done)
    }
}

impl Flow {
    /// Copies until a socket would block. A read that does not fill `scratch` has emptied the
    /// socket (epoll(7)), so that no second one is needed. `is_last`: the other flow has ended.
    fn copy(
        &mut self,
        source: &OwnedFd,
        sink: &OwnedFd,
        is_last: bool,
        scratch: &mut [u8],
    ) -> io::Result<()> {
        if !self.pending.is_empty() {
            let sent = write(sink, &self.pending)?;
            self.pending.drain(..sent);
        }
        while self.pending.is_empty() && self.is_readable {
            let length = match recv(source, &mut *scratch, RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => {
                    self.is_readable = false;
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            if length == 0 {
                (self.is_readable, self.is_done) = (false, true);
                // If both have ended, the close of the sockets ends them.
                return if is_last { Ok(()) } else { Ok(shutdown(sink, Shutdown::Write)?) };
            }
            self.is_readable = length == scratch.len() || self.is_ending;
            let bytes = scratch.get(..length).unwrap_or_default();
            let sent = write(sink, bytes)?;
            self.pending.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        }
        Ok(())
    }
}

/// Returns the number of bytes that the socket accepted.
fn write(sink: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    match send(sink, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN) => Ok(0),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, Shutdown as End, TcpStream},
        thread,
        time::Duration,
    };

    /// A client's connection through a relay, and the accepted one behind it.
    fn session() -> (TcpStream, TcpStream) {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (front, back) = (bind(), bind());
        let address = front.local_addr().unwrap();
        let backend = back.local_addr().unwrap();
        thread::spawn(move || relay(&front, backend));
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = back.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        (client, server)
    }

    #[test]
    fn bytes_are_copied_in_both_directions() {
        let (mut client, mut server) = session();
        let mut buffer = [0; 4];
        for _ in 0..3 {
            client.write_all(b"ping").unwrap();
            server.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"ping");
            server.write_all(b"pong").unwrap();
            client.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"pong");
        }
    }

    #[test]
    fn a_slow_reader_gets_every_byte_and_the_end() {
        let (mut client, mut server) = session();
        let bytes: Vec<u8> = (0..16_u32 << 20).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let sent = bytes.clone();
        let writer = thread::spawn(move || {
            server.write_all(&sent).unwrap();
            server.shutdown(End::Write).unwrap();
            server
        });
        // The sockets fill up meanwhile.
        thread::sleep(Duration::from_millis(200));
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == bytes, "{} of {} bytes, or other ones", got.len(), bytes.len());
        let mut server = writer.join().unwrap();
        // The other direction is still open.
        client.write_all(b"late").unwrap();
        client.shutdown(End::Write).unwrap();
        let mut rest = String::new();
        server.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "late");
    }

    #[test]
    fn a_closed_client_closes_the_upstream_leg() {
        let (client, mut server) = session();
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
}
