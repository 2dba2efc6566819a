//! Relay between two raw sockets: bytes, FIN, RST and Close frames are forwarded and recorded.
//! Needs loopback only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, TIMEOUT, exactly, frame, reset, rest};
use t3_record::{
    Side,
    evidence::{Breach, OwnEnd, SeenEnd},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Pseudo-random bytes, the same in each run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Returns the socket of `side` first, so that a test can run in both directions.
fn ends(side: Side, client: TcpStream, serve: TcpStream) -> (TcpStream, TcpStream) {
    match side {
        Side::Down => (client, serve),
        Side::Up => (serve, client),
    }
}

const BOTH: [Side; 2] = [Side::Down, Side::Up];

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_pass_unmodified_in_both_directions() {
    let mut fixture = Fixture::new(&[]).await;
    let (client, serve) = fixture.open().await;
    let bytes = noise(8 << 20);
    let mirrored: Vec<u8> = bytes.iter().rev().copied().collect();
    let exchange = async |stream: TcpStream, send: &[u8]| {
        let (mut reading, mut writing) = stream.into_split();
        let mut got = Vec::new();
        let write = async {
            writing.write_all(send).await?;
            writing.shutdown().await
        };
        tokio::try_join!(write, reading.read_to_end(&mut got)).unwrap();
        got
    };
    let both = async { tokio::join!(exchange(client, &bytes), exchange(serve, &mirrored)) };
    let (at_client, at_serve) = timeout(TIMEOUT, both).await.expect("no end");
    assert!(at_serve == bytes && at_client == mirrored);
    let facts = fixture.facts().await;
    assert_eq!((facts.down.bytes, facts.up.bytes), (8 << 20, 8 << 20));
    assert!(facts.down.breach.is_some() && facts.up.breach.is_some(), "noise is not a WebSocket");
    fixture.no_more_records().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_101_are_forwarded_and_scanned() {
    let mut fixture = Fixture::new(&[]).await;
    let mut client = fixture.send_upgrade("ann", "").await;
    let (mut serve, _) = fixture.accept().await;
    let hello = frame(0x81, b"hello", false);
    serve.write_all(&[fixture::switching().as_bytes(), &hello].concat()).await.unwrap();
    fixture::head(&mut client).await;
    assert_eq!(exactly(&mut client, hello.len()).await, hello);
    drop((client, serve));
    let facts = fixture.facts().await;
    assert_eq!((facts.up.msgs, facts.up.bytes), (1, hello.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn close_frames_of_both_peers_are_recorded_with_code_and_reason() {
    for side in BOTH {
        let mut fixture = Fixture::new(&[]).await;
        let (client, serve) = fixture.open().await;
        let (mut first, mut second) = ends(side, client, serve);
        let close = frame(0x88, b"\x0f\xa1why \"x=1\"", side == Side::Down);
        first.write_all(&close).await.unwrap();
        assert_eq!(exactly(&mut second, close.len()).await, close);
        let reply = frame(0x88, b"\x0f\xa1", side == Side::Up);
        second.write_all(&reply).await.unwrap();
        assert_eq!(exactly(&mut first, reply.len()).await, reply);
        drop(first);
        assert_eq!(rest(&mut second).await.unwrap(), b"");
        drop(second);
        let facts = fixture.facts().await;
        let (one, other) = (facts.leg(side), facts.leg(side.other()));
        let seen = one.close_frame.as_ref().unwrap();
        assert_eq!((seen.code, seen.reason.as_str()), (Some(4001), "why \"x=1\""));
        assert!(other.close_frame.as_ref().unwrap().at > seen.at);
        assert!(other.close_forwarded_at.unwrap() >= seen.at && one.close_forwarded_at.is_some());
        assert_eq!(one.end.unwrap().0, SeenEnd::Eof);
        assert_eq!((one.breach, other.breach), (None, None));
        fixture.no_more_records().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_close_is_forwarded_and_the_other_direction_continues() {
    for side in BOTH {
        let mut fixture = Fixture::new(&[]).await;
        let (client, serve) = fixture.open().await;
        let (mut first, mut second) = ends(side, client, serve);
        first.shutdown().await.unwrap();
        assert_eq!(rest(&mut second).await.unwrap(), b"");
        let bytes = noise(1 << 20);
        let (got, ()) = tokio::join!(rest(&mut first), async {
            second.write_all(&bytes).await.unwrap();
            second.shutdown().await.unwrap();
        });
        assert!(got.unwrap() == bytes);
        let facts = fixture.facts().await;
        let (one, other) = (facts.leg(side), facts.leg(side.other()));
        assert_eq!((one.end.unwrap().0, other.end.unwrap().0), (SeenEnd::Eof, SeenEnd::Eof));
        assert!(one.end.unwrap().1 < other.end.unwrap().1);
        assert_eq!(facts.ended_at, one.end.unwrap().1);
        assert_eq!(other.own_end.unwrap().0, OwnEnd::Fin);
        assert!(one.tcp.is_some() && other.tcp.is_some());
        fixture.no_more_records().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_session_without_progress_times_out() {
    let mut fixture = Fixture::new(&["--close-timeout", "300ms"]).await;
    let (mut client, mut serve) = fixture.open().await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut serve).await.unwrap(), b"");
    assert_eq!(rest(&mut client).await.unwrap(), b"");
    let facts = fixture.facts().await;
    assert_eq!((facts.down.end.map(|end| end.0), facts.up.end), (Some(SeenEnd::Eof), None));
    assert_eq!(facts.down.own_end.map(|end| end.0), Some(OwnEnd::Fin));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_passed_to_the_other_leg() {
    for side in BOTH {
        let mut fixture = Fixture::new(&[]).await;
        let (client, serve) = fixture.open().await;
        let (first, mut second) = ends(side, client, serve);
        reset(first);
        assert_eq!(rest(&mut second).await.unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
        let facts = fixture.facts().await;
        assert_eq!(facts.leg(side).end.unwrap().0, SeenEnd::Reset);
        assert_eq!(facts.leg(side.other()).own_end.unwrap().0, OwnEnd::Rst);
        assert_eq!(facts.leg(side.other()).end, None);
        fixture.no_more_records().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_half_close_is_detected_without_reading() {
    for side in BOTH {
        let mut fixture = Fixture::new(&[]).await;
        let (client, serve) = fixture.open().await;
        let (mut first, mut second) = ends(side, client, serve);
        first.shutdown().await.unwrap();
        assert_eq!(rest(&mut second).await.unwrap(), b"");
        reset(first);
        let started = Instant::now();
        let facts = fixture.facts().await;
        assert!(started.elapsed() < TIMEOUT / 2);
        assert_eq!(facts.leg(side).end.unwrap().0, SeenEnd::Eof);
        // The kernel reports a reset after a FIN as EPIPE (tcp_reset in net/ipv4/tcp_input.c).
        assert_eq!(facts.leg(side).write_error.unwrap().0, SeenEnd::Pipe);
        assert_eq!(facts.leg(side.other()).own_end.unwrap().0, OwnEnd::Fin);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_blocks_the_writer_and_memory_stays_bounded() {
    for side in BOTH {
        let mut fixture = Fixture::new(&[]).await;
        let (client, serve) = fixture.open().await;
        let (mut writer, reader) = ends(side, client, serve);
        let chunk = noise(64 << 10);
        let mut sent = 0_u64;
        while let Ok(count) = timeout(Duration::from_millis(700), writer.write(&chunk)).await {
            sent += count.unwrap() as u64;
            assert!(sent < 256 << 20, "the writer was never blocked");
        }
        // A reset must end the session even while the relay does not read from its sender.
        reset(writer);
        let facts = fixture.facts().await;
        let blocked = facts.leg(side.other());
        assert!(blocked.pending_bytes > 0 && blocked.pending_bytes <= 64 << 10, "{}", blocked.pending_bytes);
        assert!(blocked.blocked_since.is_some_and(|since| since < facts.ended_at));
        assert_eq!(facts.leg(side).end.unwrap().0, SeenEnd::Reset);
        drop(reader);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_every_byte() {
    let mut fixture = Fixture::new(&[]).await;
    let (mut client, mut serve) = fixture.open().await;
    let bytes = noise(16 << 20);
    let sent = bytes.clone();
    let writer = tokio::spawn(async move {
        serve.write_all(&sent).await.unwrap();
        serve
    });
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        if got.len() % 7 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let read = timeout(TIMEOUT, client.read_buf(&mut got)).await.expect("stuck").unwrap();
        assert!(read > 0);
    }
    assert!(got == bytes);
    drop((client, writer.await.unwrap()));
    fixture.facts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_inside_a_frame_and_a_breach_are_recorded() {
    let mut fixture = Fixture::new(&[]).await;
    let (mut client, serve) = fixture.open().await;
    client.write_all(&frame(0x81, b"half of it", true)[..9]).await.unwrap();
    drop((client, serve));
    let facts = fixture.facts().await;
    assert!(facts.down.mid_frame && !facts.up.mid_frame);

    let (mut client, mut serve) = fixture.open().await;
    let bad = frame(0x81, b"not masked", false);
    client.write_all(&bad).await.unwrap();
    assert_eq!(exactly(&mut serve, bad.len()).await, bad, "a breach is forwarded unchanged");
    drop((client, serve));
    let facts = fixture.facts().await;
    assert_eq!((facts.down.breach, facts.up.breach), (Some(Breach::Unmasked), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_measured_and_an_unanswered_ping_waits() {
    let mut fixture = Fixture::new(&[]).await;
    let (mut client, mut serve) = fixture.open().await;
    let ping = frame(0x81, br#"{"_tag":"Ping"}"#, true);
    let pong = frame(0x81, br#"{"_tag":"Pong"}"#, false);
    for answered in [true, true, true, false] {
        client.write_all(&ping).await.unwrap();
        exactly(&mut serve, ping.len()).await;
        sleep(Duration::from_millis(40)).await;
        if answered {
            serve.write_all(&pong).await.unwrap();
            exactly(&mut client, pong.len()).await;
        }
    }
    drop((client, serve));
    let facts = fixture.facts().await;
    let heartbeat = facts.heartbeat.unwrap();
    assert_eq!((heartbeat.pings, heartbeat.pongs, heartbeat.unanswered), (4, 3, 1));
    assert!(heartbeat.rtt_ns.unwrap() >= 35_000_000 && heartbeat.rtt_max_ns >= heartbeat.rtt_ns);
    assert_eq!(heartbeat.waiting_since, heartbeat.last_ping_at);
    assert!(heartbeat.period_ns.unwrap() >= 35_000_000);
    // Each reply was acknowledged before the next ping, so no silence is longer than one period;
    // the wait at the end is for serve.
    assert!(facts.samples.len() >= 4, "{:?}", facts.samples);
    for pair in facts.samples.windows(2) {
        assert!(pair[1].silence_ns <= pair[1].at - pair[0].at, "{:?}", facts.samples);
    }
    assert!(facts.samples.iter().all(|sample| sample.lost == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sessions_each_have_one_record() {
    const SESSIONS: usize = 2000;
    t3_dispatch::process::fd_limit::raise_descriptor_limit();
    let mut fixture = Fixture::new(&["--max-sessions-per-user", "100000", "--upgrade-rate", "0"]).await;
    fixture.drain_messages();
    let mut open = Vec::new();
    for _ in 0..SESSIONS {
        open.push(fixture.open().await);
    }
    for (n, (client, _)) in open.iter_mut().enumerate() {
        client.write_all(&frame(0x82, &n.to_be_bytes(), true)).await.unwrap();
    }
    for (n, (client, serve)) in open.iter_mut().enumerate() {
        let expected = frame(0x82, &n.to_be_bytes(), true);
        assert_eq!(exactly(serve, expected.len()).await, expected);
        let answer = frame(0x82, &n.to_be_bytes(), false);
        serve.write_all(&answer).await.unwrap();
        assert_eq!(exactly(client, answer.len()).await, answer);
    }
    let mut kept = Vec::new();
    for (n, (client, serve)) in open.into_iter().enumerate() {
        let (first, second) = ends(BOTH[n % 2], client, serve);
        if n % 4 < 2 {
            drop(first);
        } else {
            reset(first);
        }
        kept.push(second);
    }
    // Dropped only after the end of the other socket has arrived, so that the order is certain.
    for (n, mut second) in kept.into_iter().enumerate() {
        assert_eq!(rest(&mut second).await.is_err(), n % 4 >= 2, "session {n}");
    }
    let mut conns = std::collections::HashSet::new();
    let mut seen = std::collections::HashMap::new();
    for _ in 0..SESSIONS {
        let (evidence, record) = fixture.judgement().await;
        let facts = evidence.relay.unwrap();
        assert_eq!((facts.down.msgs, facts.up.msgs), (1, 1));
        assert!(conns.insert(record.conn));
        let first = [(Side::Down, facts.down.end), (Side::Up, facts.up.end)]
            .into_iter()
            .filter_map(|(side, end)| end.map(|(how, at)| (at, side, how)))
            .min_by_key(|(at, ..)| *at);
        let (_, side, how) = first.unwrap();
        *seen.entry(format!("{side} {how:?}")).or_insert(0) += 1;
    }
    for end in ["down Eof", "down Reset", "up Eof", "up Reset"] {
        assert_eq!(seen.get(end), Some(&(SESSIONS / 4)), "{end}: {seen:?}");
    }
    fixture.no_more_records().await;
}
