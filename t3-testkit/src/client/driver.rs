//! The thread that owns a client's socket: reads, sends heartbeats, executes the test's orders.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use super::{Act, Config, Ended, Ping, Shared, TIMEOUT, Watchdog, handshake};
use crate::{
    deflate::{COMPRESSED, Codec},
    error::{Attempt, Result, TestError},
    frame::{self, HEARTBEAT, HEARTBEAT_ANSWER, Reader, opcode},
    sys,
};

/// Maximum delay of an order.
const TICK: Duration = Duration::from_millis(2);

struct Driver<'a> {
    socket: Socket,
    shared: &'a Shared,
    reader: Reader,
    codec: Option<Codec>,
    heartbeat: Option<Duration>,
    ping: Ping,
    next_beat: Instant,
    watchdog: Option<Watchdog>,
    last_ping: Instant,
    /// Time at which the last frame reached the page.
    last_frame: Instant,
    reading: bool,
    throttle: Option<Throttle>,
    closes_on_fin: bool,
    /// The server's FIN was read.
    finished: bool,
    answered_close: bool,
}

/// Time that a frame takes from the edge to the page: a tick that is later than this fires the
/// watchdog of effect 4.0.2 without an unanswered ping.
const PATH: Duration = Duration::from_millis(100);

/// Upper limit of reading.
struct Throttle {
    /// Bytes per second.
    rate: u64,
    since: Instant,
    read: u64,
}

impl Throttle {
    /// Bytes that may be read now.
    fn allowance(&self) -> usize {
        let due = self.since.elapsed().as_millis() * u128::from(self.rate) / 1_000;
        usize::try_from(due.saturating_sub(u128::from(self.read))).unwrap_or(usize::MAX)
    }
}

pub(super) fn run(
    config: Config,
    inbox: &Receiver<(Act, Sender<()>)>,
    opened: &Sender<Result<SocketAddr>>,
    shared: &Arc<Shared>,
) {
    let (socket, early, local) = match open(&config) {
        Ok(open) => open,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let mut driver = Driver {
        socket,
        shared,
        reader: Reader::default(),
        codec: config.is_compressed.then(Codec::default),
        heartbeat: config.heartbeat,
        ping: config.ping,
        next_beat: Instant::now(),
        watchdog: None,
        last_ping: Instant::now(),
        last_frame: Instant::now(),
        reading: true,
        throttle: None,
        closes_on_fin: config.closes_on_fin,
        finished: false,
        answered_close: false,
    };
    let _ = opened.send(Ok(local));
    driver.take(&early);
    driver.drive(inbox);
}

fn open(config: &Config) -> Result<(Socket, Vec<u8>, SocketAddr)> {
    if let Some(namespace) = &config.namespace {
        sys::enter_net(namespace).attempt(|| "enter the client's network namespace".to_owned())?;
    }
    let domain = Domain::for_address(config.address);
    let mut socket = Socket::new(domain, Type::STREAM, None).attempt(|| "make a socket".to_owned())?;
    if let Some(bytes) = config.receive_buffer {
        socket.set_recv_buffer_size(bytes).attempt(|| format!("set SO_RCVBUF to {bytes}"))?;
    }
    let connect = || format!("connect to {}", config.address);
    socket.connect_timeout(&config.address.into(), TIMEOUT).attempt(connect)?;
    socket.set_read_timeout(Some(config.open_timeout)).attempt(connect)?;
    let _ = socket.set_tcp_nodelay(true);
    if let Some(barrier) = &config.before_handshake {
        barrier.wait();
    }
    let early = handshake::shake(&mut socket, config)?;
    socket.set_nonblocking(true).attempt(connect)?;
    let local = socket.local_addr().attempt(connect)?.as_socket().ok_or_else(|| TestError::Unexpected {
        what: "an IP address".to_owned(),
        got: "another family".to_owned(),
    })?;
    Ok((socket, early, local))
}

impl Driver<'_> {
    fn drive(mut self, inbox: &Receiver<(Act, Sender<()>)>) {
        loop {
            match inbox.try_recv() {
                Ok((Act::Surrender(give), done)) => {
                    self.end(Ended::Ours);
                    let _ = give.send(OwnedFd::from(self.socket));
                    let _ = done.send(());
                    return;
                }
                Ok((act, done)) => {
                    if let Some(ended) = self.obey(act) {
                        self.end(ended);
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    let _ = done.send(());
                }
                Err(TryRecvError::Empty) => {}
                // The test has dropped the client, so the socket closes.
                Err(TryRecvError::Disconnected) => return,
            }
            if self.heartbeat.is_some() && Instant::now() >= self.next_beat {
                self.tick();
            }
            if let Some(ended) = self.read() {
                return self.end(ended);
            }
        }
    }

    fn obey(&mut self, act: Act) -> Option<Ended> {
        match act {
            Act::Write(bytes) => {
                // The server replies to this Close frame; the client must not send a second one.
                self.answered_close |= bytes.first().is_some_and(|first| first & 0x0f == opcode::CLOSE);
                self.write(&bytes);
            }
            Act::Heartbeat(period) => {
                self.heartbeat = period;
                self.next_beat = Instant::now();
            }
            Act::Watchdog(watchdog) => self.watchdog = Some(watchdog),
            Act::DelayTick(delay) => self.next_beat += delay,
            Act::Text(text) => self.text(text.as_bytes()),
            Act::Reading(reading) => self.reading = reading,
            Act::Throttle(rate) => {
                self.throttle = rate.map(|rate| Throttle { rate, since: Instant::now(), read: 0 });
            }
            Act::Fin => {
                let _ = self.socket.shutdown(Shutdown::Write);
                if self.finished {
                    return Some(Ended::Ours);
                }
            }
            Act::Reset => {
                let _ = self.socket.set_linger(Some(Duration::ZERO));
                return Some(Ended::Ours);
            }
            Act::Drop | Act::Surrender(_) => return Some(Ended::Ours),
        }
        None
    }

    fn tick(&mut self) {
        if self.watchdog.is_some_and(|watchdog| self.is_silent(watchdog)) {
            self.heartbeat = None;
            self.answered_close = true;
            self.write(&frame::from_client(opcode::CLOSE, &frame::close_payload(Some(1000), "")));
            self.shared.update(|seen| seen.gave_up = true);
        } else {
            self.beat();
        }
    }

    fn is_silent(&self, watchdog: Watchdog) -> bool {
        let period = self.heartbeat.unwrap_or(TIMEOUT);
        let is_late = self.last_frame.elapsed() > period;
        match watchdog {
            Watchdog::Pongs(misses) => {
                let mut unanswered = 0;
                self.shared.update(|seen| unanswered = seen.pings - seen.pongs);
                unanswered >= misses
            }
            Watchdog::Frames => is_late,
            Watchdog::FramesSincePing => is_late && self.last_ping > self.last_frame,
        }
    }

    fn beat(&mut self) {
        self.last_ping = Instant::now();
        self.next_beat = Instant::now() + self.heartbeat.unwrap_or(TIMEOUT);
        match self.ping {
            Ping::Text => self.text(HEARTBEAT.as_bytes()),
            Ping::Frame => self.write(&frame::from_client(opcode::PING, b"beat")),
        }
        self.shared.update(|seen| seen.pings += 1);
    }

    fn text(&mut self, text: &[u8]) {
        let message = match &mut self.codec {
            Some(codec) => frame::raw(0x80 | COMPRESSED | opcode::TEXT, &codec.compress(text), true),
            None => frame::from_client(opcode::TEXT, text),
        };
        self.write(&message);
    }

    /// Writes all bytes; the next read returns the error.
    fn write(&mut self, mut bytes: &[u8]) {
        let deadline = Instant::now() + TIMEOUT;
        while !bytes.is_empty() && Instant::now() < deadline {
            match self.socket.write(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.poll(PollFlags::OUT),
                Err(_) => return,
            }
        }
    }

    fn poll(&self, what: PollFlags) {
        let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&self.socket, what)], Some(&tick));
    }

    fn read(&mut self) -> Option<Ended> {
        if !self.reading || self.finished {
            std::thread::sleep(TICK);
            return None;
        }
        let mut bytes = [0; 16 << 10];
        let allowance = self.throttle.as_ref().map_or(usize::MAX, Throttle::allowance).min(bytes.len());
        if allowance == 0 {
            std::thread::sleep(TICK);
            return None;
        }
        self.poll(PollFlags::IN);
        match self.socket.read(bytes.get_mut(..allowance).unwrap_or_default()) {
            Ok(0) => {
                self.finished = true;
                let mid_frame = self.reader.inside_frame();
                self.shared.update(|seen| seen.mid_frame = mid_frame);
                // Otherwise the client keeps its side open and waits.
                self.closes_on_fin.then_some(Ended::Fin)
            }
            Ok(n) => {
                if let Some(throttle) = &mut self.throttle {
                    throttle.read += n as u64;
                }
                self.take(bytes.get(..n).unwrap_or_default());
                None
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(Ended::Reset),
            Err(error) => Some(Ended::Errno(error.raw_os_error().unwrap_or(0))),
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let frames = self.reader.feed(bytes);
        self.shared.update(|seen| seen.bytes += bytes.len() as u64);
        for mut frame in frames {
            self.last_frame = Instant::now() + PATH;
            if let Some(codec) = self.codec.as_mut().filter(|_| frame.is_compressed) {
                frame.payload = codec.decompress(&frame.payload).unwrap_or_default();
            }
            match frame.opcode {
                opcode::TEXT if frame.payload == HEARTBEAT_ANSWER.as_bytes() => {
                    self.shared.update(|seen| seen.pongs += 1);
                }
                opcode::CLOSE => {
                    let close = frame.close();
                    self.shared.update(|seen| seen.close = seen.close.take().or(close));
                    if !std::mem::replace(&mut self.answered_close, true) {
                        self.heartbeat = None;
                        let echo = frame.payload.get(..2).unwrap_or_default();
                        self.write(&frame::from_client(opcode::CLOSE, echo));
                    }
                }
                opcode::PING => self.write(&frame::from_client(opcode::PONG, &frame.payload)),
                opcode::PONG if self.ping == Ping::Frame => self.shared.update(|seen| seen.pongs += 1),
                opcode::PONG => {}
                _ => self.shared.update(|seen| seen.messages.push(frame.payload.clone())),
            }
        }
    }

    fn end(&self, ended: Ended) {
        self.shared.update(|seen| seen.ended = Some(ended));
    }
}
