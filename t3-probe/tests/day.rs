//! A day of simulated time: three legs over streams in memory, with thousands of known faults. Each
//! disconnect is counted once with its reason, no connection leaks, and memory stays bounded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

mod raw_peer;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use raw_peer::Answers;
use t3_probe::{
    dial::Dial,
    leg::{Address, Leg, Timeouts},
    leg_states::LegStates,
    metrics::Metrics,
    progress::{Failure, Progress},
    run,
};
use t3_record::probe::{Disconnect, Phase, Reason, Way};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep},
};
use tokio_tungstenite::{
    accept_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Behaviour of the far end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NoAddress,
    Refused,
    Blackhole,
    Status(u16),
    /// After this number of echoes.
    Silent(u32),
    NoPong(u32),
    Close(u32),
    End(u32),
    Binary(u32),
    Garbage(u32),
}

/// Pseudo-random numbers (splitmix64), for repeatable runs.
#[derive(Debug)]
struct Rng(AtomicU64);

impl Rng {
    fn below(&self, bound: u64) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Expected disconnects by leg and reason, and the number of open far ends.
#[derive(Debug, Default)]
struct Expected {
    disconnects: Mutex<BTreeMap<(String, String), u64>>,
    alive: AtomicI64,
}

impl Expected {
    fn disconnected(&self, leg: &Leg, reason: Reason) {
        *self.disconnects.lock().unwrap().entry((leg.name.clone(), reason.to_string())).or_default() += 1;
    }
}

#[derive(Debug, Clone)]
struct Memory {
    rng: Arc<Rng>,
    expected: Arc<Expected>,
}

impl Dial for Memory {
    type Stream = DuplexStream;

    async fn dial(&self, leg: &Leg, progress: &Progress) -> Result<DuplexStream, Failure> {
        progress.begin(Phase::Dns);
        let fault = self.fault(leg.way);
        let failed = |detail: &str| Failure { reason: Reason::ConnectFailed, detail: detail.to_owned() };
        match fault {
            Fault::NoAddress => return Err(failed("no such name")),
            Fault::Refused => {
                progress.begin(Phase::Tcp);
                return Err(failed("refused"));
            }
            Fault::Blackhole => {
                progress.begin(Phase::Tcp);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        progress.begin(Phase::Tcp);
        let (near, far) = tokio::io::duplex(4096);
        let expected = Arc::clone(&self.expected);
        let way = leg.way;
        expected.alive.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            far_end(far, way, fault).await;
            expected.alive.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(near)
    }
}

impl Memory {
    /// Picks the fault of a connection.
    fn fault(&self, way: Way) -> Fault {
        let after = u32::try_from(self.rng.below(12)).unwrap();
        if way == Way::Serve {
            return match self.rng.below(8) {
                0 => Fault::Refused,
                1 => Fault::Status(500),
                2 => Fault::Silent(0),
                3 => Fault::End(0),
                // A healthy response.
                _ => Fault::Status(200),
            };
        }
        match self.rng.below(10) {
            0 => Fault::NoAddress,
            1 => Fault::Refused,
            2 => Fault::Blackhole,
            3 => Fault::Status(502),
            4 => Fault::Silent(after),
            5 => Fault::Close(after),
            6 => Fault::End(after),
            7 => Fault::Binary(after),
            8 => Fault::NoPong(after),
            _ => Fault::Garbage(after),
        }
    }
}

/// Expected reason of a fault.
fn reason(way: Way, fault: Fault) -> Option<Reason> {
    Some(match fault {
        Fault::NoAddress | Fault::Refused => Reason::ConnectFailed,
        Fault::Blackhole => Reason::ConnectTimeout,
        Fault::Status(200) => return None,
        Fault::Status(status) => Reason::Http(status),
        Fault::Silent(_) => Reason::RttTimeout,
        Fault::NoPong(_) => Reason::PongTimeout,
        Fault::Close(_) => Reason::ClosedClose,
        Fault::End(_) if way == Way::Serve => Reason::IoError,
        Fault::End(_) => Reason::ClosedClosed,
        Fault::Binary(_) => Reason::ClosedBinary,
        Fault::Garbage(_) => Reason::ClosedError,
    })
}

async fn far_end(mut stream: DuplexStream, way: Way, fault: Fault) {
    if way == Way::Serve || matches!(fault, Fault::Status(_)) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        if let Fault::Status(status) = fault {
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        if fault != Fault::End(0) {
            // Until the prober closes.
            let _ = stream.read_u8().await;
        }
        return;
    }
    let Ok(mut socket) = accept_async(stream).await else { return };
    if let Fault::NoPong(complete) = fault {
        let answers = Answers { echo: true, pong: false };
        return raw_peer::answer(socket.into_inner(), complete, answers).await;
    }
    let echoes = match fault {
        Fault::Silent(n) | Fault::Close(n) | Fault::End(n) | Fault::Binary(n) | Fault::Garbage(n) => n,
        _ => 0,
    };
    let mut echoed = 0;
    while echoed < echoes {
        match socket.next().await {
            Some(Ok(message @ Message::Text(_))) => {
                socket.send(message).await.unwrap();
                echoed += 1;
            }
            // The library sends the Pong.
            Some(Ok(Message::Ping(_))) => {}
            Some(Ok(other)) => panic!("expected a ping, got {other:?}"),
            // The day is over.
            Some(Err(_)) | None => return,
        }
    }
    match fault {
        Fault::Close(_) => {
            let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
            let _ = socket.close(Some(frame)).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
        Fault::Binary(_) => {
            let _ = socket.send(Message::binary(vec![1])).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
        Fault::Garbage(_) => {
            // A reserved opcode.
            let mut stream = socket.into_inner();
            let _ = stream.write_all(&[0x83, 0]).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        Fault::Silent(_) => while let Some(Ok(_)) = socket.next().await {},
        _ => {}
    }
}

/// As [`Memory`], and stores the expected reason of each fault.
#[derive(Debug, Clone)]
struct Recorded(Memory, Arc<Mutex<Option<Reason>>>);

impl Dial for Recorded {
    type Stream = DuplexStream;

    async fn dial(&self, leg: &Leg, progress: &Progress) -> Result<DuplexStream, Failure> {
        // The same random number twice: for the expectation and for the fault.
        let before = self.0.rng.0.load(Ordering::Relaxed);
        let ahead = Memory { rng: Arc::new(Rng(AtomicU64::new(before))), ..self.0.clone() };
        *self.1.lock().unwrap() = reason(leg.way, ahead.fault(leg.way));
        self.0.dial(leg, progress).await
    }
}

fn leg(way: Way) -> Leg {
    let url = match way {
        Way::Serve => "http://devvm:3773/api/auth/session",
        _ => "ws://t3.test/probe/ws",
    };
    Leg {
        name: way.to_string(),
        way,
        url: url.parse().unwrap(),
        address: Address::System,
        authorization: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_with_thousands_of_faults_is_counted_exactly() {
    let expected = Arc::new(Expected::default());
    let legs: Vec<Leg> = Way::ALL.iter().map(|way| leg(*way)).collect();
    let states = Arc::new(LegStates::new(&legs, Metrics::new().unwrap(), Duration::from_secs(60)));
    let reported = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut tasks = Vec::new();
    for (n, leg) in legs.iter().enumerate() {
        let seed = 7 + n as u64;
        let memory = Memory { rng: Arc::new(Rng(AtomicU64::new(seed))), expected: Arc::clone(&expected) };
        let dealt = Arc::new(Mutex::new(None));
        let on_disconnect = {
            let (reported, expected, leg, dealt) =
                (Arc::clone(&reported), Arc::clone(&expected), leg.clone(), Arc::clone(&dealt));
            move |disconnect: &Disconnect| {
                reported.fetch_add(1, Ordering::Relaxed);
                let wanted: Option<Reason> = *dealt.lock().unwrap();
                assert_eq!(Some(disconnect.reason), wanted, "{disconnect:?}");
                expected.disconnected(&leg, disconnect.reason);
            }
        };
        let dial = Recorded(memory, dealt);
        tasks.push(tokio::spawn(run::leg(
            leg.clone(),
            dial,
            Timeouts::default(),
            Arc::clone(&states),
            Arc::new(on_disconnect),
        )));
    }
    while begun.elapsed() < DAY {
        sleep(Duration::from_secs(600)).await;
        // One far end per leg, and one that is closing.
        assert!(expected.alive.load(Ordering::Relaxed) <= 2 * 3, "connections pile up");
    }
    for task in &tasks {
        assert!(!task.is_finished(), "a leg gave up");
        task.abort();
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(expected.alive.load(Ordering::Relaxed), 0, "a connection was left behind");

    let disconnects = expected.disconnects.lock().unwrap().clone();
    let all: u64 = disconnects.values().sum();
    assert!(all > 3_000, "only {all} faults");
    assert_eq!(all, reported.load(Ordering::Relaxed));
    let page = String::from_utf8(states.metrics.page().unwrap()).unwrap();
    let mut counted = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("t3probe_disconnects_total{")) {
        let mut quoted = line.split('"').skip(1).step_by(2);
        let (leg, reason) = (quoted.next().unwrap().to_owned(), quoted.next().unwrap().to_owned());
        counted.insert((leg, reason), line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    }
    // Series exist before their first event.
    counted.retain(|_, n| *n > 0);
    assert_eq!(counted, disconnects);
    let reasons = |way: &str| disconnects.keys().filter(|(leg, _)| leg == way).count();
    assert_eq!(
        (reasons("cloudflare"), reasons("internal"), reasons("t3serve")),
        (9, 9, 4),
        "{disconnects:?}"
    );
    // Ages: each disconnect of an established WebSocket, once.
    let established: u64 = (disconnects.iter())
        .filter(|((leg, reason), _)| {
            leg != "t3serve" && !reason.starts_with("connect") && !reason.starts_with("http")
        })
        .map(|(_, n)| n)
        .sum();
    let ages: u64 = page
        .lines()
        .filter(|line| line.starts_with("t3probe_connection_age_seconds_count"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(ages, established);
}
