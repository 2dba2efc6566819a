//! Random behaviour of the two peers of a relayed connection, and the model that every relay must
//! fulfil: what a peer sent before its end arrives at the other one, then its end.
//!
//! The model knows nothing of the relay. It makes exceptions only where TCP has them: bytes that
//! were not acknowledged before an RST, and everything after the other peer has reset.

use std::{sync::LazyLock, time::Duration};

use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::frame;

/// Pseudo-random numbers (xorshift), the same for the same seed.
#[derive(Debug, Clone)]
pub struct Numbers(u64);

impl Numbers {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn size(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap_or(0)
    }
}

/// Part of what a peer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Send(Vec<u8>),
    Pause(Duration),
}

/// End of a peer's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEnd {
    Fin,
    Rst,
    /// FIN once the other peer's end has arrived.
    FinAfterOther,
}

/// All that one peer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub steps: Vec<Step>,
    pub end: PeerEnd,
    /// After this many bytes the peer reads nothing for that time.
    pub blocked: Option<(usize, Duration)>,
    /// Size of the receive buffer, to fill it soon.
    pub receive_buffer: Option<u32>,
}

impl Script {
    /// Scripts of client and serve.
    #[must_use]
    pub fn pair(seed: u64) -> (Self, Self) {
        let mut numbers = Numbers::new(seed);
        let (client, mut serve) = (Self::random(&mut numbers, true), Self::random(&mut numbers, false));
        if client.end == PeerEnd::FinAfterOther && serve.end == PeerEnd::FinAfterOther {
            serve.end = PeerEnd::Fin;
        }
        (client, serve)
    }

    fn random(numbers: &mut Numbers, masked: bool) -> Self {
        // Most cases are small, so that many can run; some exceed every buffer of the relay.
        let largest = [200, 5_000, 40_000, 300_000][numbers.size(4)];
        let mut steps = Vec::new();
        for _ in 0..numbers.below(6) {
            steps.push(match numbers.below(8) {
                0 => Step::Pause(Duration::from_millis(numbers.below(4))),
                1 => Step::Send(content(numbers, largest).to_vec()),
                _ => Step::Send(frame::raw(0x82, content(numbers, largest), masked)),
            });
        }
        if numbers.below(3) == 0 {
            let code = [1000_u16, 1001, 1011][numbers.size(3)];
            steps.push(Step::Send(frame::raw(0x88, &code.to_be_bytes(), masked)));
        }
        let end = [PeerEnd::Fin, PeerEnd::Rst, PeerEnd::FinAfterOther][numbers.size(3)];
        let blocked = (numbers.below(3) == 0)
            .then(|| (numbers.size(largest), Duration::from_millis(5 + numbers.below(40))));
        let receive_buffer = (numbers.below(2) == 0).then_some(4_096);
        Self { steps, end, blocked, receive_buffer }
    }

    /// All bytes that the peer sends.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let sent = self.steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.as_slice()),
            Step::Pause(_) => None,
        });
        sent.collect::<Vec<_>>().concat()
    }
}

/// Fewer than `largest` bytes in which each position has a value of its own, so that bytes in
/// another order are noticed.
fn content(numbers: &mut Numbers, largest: u64) -> &'static [u8] {
    const LENGTH: u64 = 600_000;
    static RANDOM: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut numbers = Numbers::new(1);
        (0..LENGTH / 4).flat_map(|_| numbers.below(1 << 32).to_le_bytes().into_iter().take(4)).collect()
    });
    let start = numbers.size(LENGTH - largest);
    &RANDOM[start..start + numbers.size(largest)]
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrivedEnd {
    Fin,
    Rst,
    /// The peer reset before an end arrived.
    None,
}

/// What happened to one peer.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub got: Vec<u8>,
    pub arrived: ArrivedEnd,
    /// Bytes that the peer sent and the relay's kernel acknowledged before the peer's end.
    pub acknowledged: usize,
    /// The end that the peer sent; `None` if its connection failed before.
    pub end: Option<PeerEnd>,
}

impl Outcome {
    fn failed(got: Vec<u8>) -> Self {
        Self { got, arrived: ArrivedEnd::None, acknowledged: 0, end: None }
    }
}

/// Plays a script on a connection.
pub async fn play(stream: TcpStream, script: &Script) -> Outcome {
    let (mut reading, mut writing) = stream.into_split();
    let mut got = Vec::new();
    let mut sent = 0;
    let (arrived, written) = {
        let read = async {
            let mut buffer = vec![0; 16 * 1024];
            let mut blocked = script.blocked;
            loop {
                if let Some((at, time)) = blocked
                    && got.len() >= at
                {
                    sleep(time).await;
                    blocked = None;
                }
                match reading.read(&mut buffer).await {
                    Ok(0) => return ArrivedEnd::Fin,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(_) => return ArrivedEnd::Rst,
                }
            }
        };
        let write = async {
            for step in &script.steps {
                match step {
                    Step::Pause(time) => sleep(*time).await,
                    Step::Send(bytes) => {
                        let mut rest = bytes.as_slice();
                        while !rest.is_empty() {
                            let Ok(count) = writing.write(rest).await else { return false };
                            sent += count;
                            rest = &rest[count..];
                        }
                    }
                }
            }
            match script.end {
                PeerEnd::Fin => writing.shutdown().await.is_ok(),
                PeerEnd::Rst | PeerEnd::FinAfterOther => true,
            }
        };
        tokio::pin!(read);
        tokio::pin!(write);
        let (mut arrived, mut written) = (None, None);
        while arrived.is_none() || written.is_none() {
            tokio::select! {
                end = &mut read, if arrived.is_none() => arrived = Some(end),
                done = &mut write, if written.is_none() => {
                    written = Some(done);
                    if done && script.end == PeerEnd::Rst {
                        break;
                    }
                }
            }
            if arrived == Some(ArrivedEnd::Rst) {
                break;
            }
        }
        (arrived, written)
    };
    let complete = written == Some(true) && (arrived.is_some() || script.end == PeerEnd::Rst);
    // Dropping the halves would send a FIN before the RST.
    let Ok(stream) = reading.reunite(writing) else { return Outcome::failed(got) };
    let queued = unacknowledged(&stream);
    if complete && script.end == PeerEnd::Rst {
        // Fails only on a connection that has ended.
        let _ = set_socket_linger(&stream, Some(Duration::ZERO));
    }
    let arrived = match arrived {
        // The write took the error of the socket, so that the read reports an end of the stream.
        Some(ArrivedEnd::Fin) if written == Some(false) => ArrivedEnd::Rst,
        arrived => arrived.unwrap_or(ArrivedEnd::None),
    };
    let is_reset = arrived == ArrivedEnd::Rst;
    let end = (complete && !(is_reset && script.end == PeerEnd::FinAfterOther)).then_some(script.end);
    Outcome { got, arrived, acknowledged: sent.saturating_sub(queued), end }
}

fn unacknowledged(stream: &TcpStream) -> usize {
    use std::os::fd::AsRawFd as _;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, to which the pointer is valid. SIOCOUTQ is TIOCOUTQ.
    #[expect(unsafe_code, reason = "no safe wrapper knows SIOCOUTQ")]
    unsafe {
        libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes);
    }
    usize::try_from(bytes).unwrap_or(0)
}

/// What `script` made its peer send arrived at the other one, then its end. `from` is the outcome
/// of the sender, `to` that of the receiver.
///
/// # Errors
/// Says what did not.
pub fn check(script: &Script, from: &Outcome, to: &Outcome) -> Result<(), String> {
    let bytes = script.bytes();
    if !bytes.starts_with(&to.got) {
        return Err(format!("{} bytes arrived that were not sent so", to.got.len()));
    }
    if to.arrived == ArrivedEnd::None {
        // The receiver reset its connection: it wanted no more.
        return Ok(());
    }
    let (least, end) = match from.end {
        Some(PeerEnd::Fin | PeerEnd::FinAfterOther) => (bytes.len(), ArrivedEnd::Fin),
        Some(PeerEnd::Rst) => (from.acknowledged, ArrivedEnd::Rst),
        // The receiver's end came first.
        None => return Ok(()),
    };
    if to.got.len() < least {
        return Err(format!(
            "{} of {least} bytes arrived before {:?} of {:?}",
            to.got.len(),
            to.arrived,
            from.end
        ));
    }
    if to.arrived != end {
        return Err(format!("{:?} arrived for {:?}", to.arrived, from.end));
    }
    Ok(())
}
