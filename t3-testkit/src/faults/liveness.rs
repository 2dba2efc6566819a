//! Heartbeats of other clients, frames without heartbeat replies, and sessions without heartbeats.

use std::time::Duration;

use t3_record::{
    Cause::{Graceful, UpstreamClosed},
    ClosedBy, LegEnd, Segment, Verdict,
};

use super::{Expect, ExpectedRecord, Fault, Fixture, upstream::stalled};
use crate::{
    client::{Client, Ping, TIMEOUT},
    error::Result,
};

/// Longer than a watchdog timeout at the heartbeat period of these tests.
const STALL: Duration = Duration::from_secs(4);

/// Period of serve's Ping frames.
const SERVE_PERIOD: Duration = Duration::from_millis(1_200);

/// Reason of a client library whose Ping frames are not answered (python-websockets, "keepalive").
const KEEPALIVE: &str = "keepalive ping timeout";

/// Pauses between the messages of a user, in milliseconds; together longer than the shortest
/// watchdog.
const TYPED: [u64; 6] = [700, 1_900, 350, 1_250, 420, 800];

fn closed(code: &str, reason: &str) -> ExpectedRecord {
    let how = format!("ws_close:{code}");
    ExpectedRecord::opened(Verdict::ClientClosed, Segment::Downstream, Graceful, &how, ClosedBy::Downstream)
        .is("peer_exit", "alive")
        .close_frame("down", code, reason)
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

/// serve sends frames and answers no heartbeat.
fn streaming(code: &str) -> ExpectedRecord {
    closed(code, "").key("hb_wait_ms", Expect::Range(3_000, 60_000)).key("hb_n", Expect::Range(8, 100))
}

fn without_heartbeat(code: &str) -> ExpectedRecord {
    let keys = ["hb_n", "hb_rtt_ms", "hb_rtt_max_ms", "hb_gap_ms", "hb_wait_ms", "hb_period_ms"];
    keys.into_iter()
        .fold(closed(code, "").is("hb_by", "none"), |expected, key| expected.key(key, Expect::Absent))
}

pub(super) fn faults() -> Vec<Fault> {
    let faults = vec![
        Fault::new(
            "ping_frames_unanswered",
            stalled().is("hb_by", "ping").close_frame("down", "1011", KEEPALIVE),
            |fx| {
                ping_frames(fx)?;
                fx.last_serve().process.signal(libc::SIGSTOP)?;
                std::thread::sleep(STALL);
                fx.client().close(Some(1011), KEEPALIVE);
                fx.client().drop_socket();
                Ok(())
            },
        ),
        Fault::new("ping_frames_answered", closed("1011", "out of memory").is("hb_by", "ping"), |fx| {
            ping_frames(fx)?;
            fx.client().close(Some(1011), "out of memory");
            fx.wait_end()
        }),
        // serve terminates a client that is silent.
        Fault::new(
            "serve_pings_unanswered",
            ExpectedRecord::opened(
                Verdict::PathStalled,
                Segment::Downstream,
                UpstreamClosed,
                "heartbeat_lost",
                ClosedBy::Upstream,
            )
            .is("confidence", "likely")
            .is("peer_exit", "alive")
            .is("hb_by", "ping")
            .ends(LegEnd::FinOut, LegEnd::FinIn)
            .key("hb_wait_ms", Expect::Range(1_000, 3_000))
            .key("down_idle_ms", Expect::Range(1_000, 5_000)),
            |fx| {
                pinged(fx)?;
                fx.client().reading(false);
                std::thread::sleep(SERVE_PERIOD * 2);
                fx.client().drop_socket();
                Ok(())
            },
        ),
        Fault::new("serve_pings_answered", ended_by_serve().is("hb_by", "ping"), |fx| {
            pinged(fx)?;
            fx.order("fin")?;
            fx.wait_end()
        }),
        Fault::new("stream_without_pongs_1001", streaming("1001"), |fx| stream(fx, 1001)),
        Fault::new("stream_without_pongs_1000", streaming("1000"), |fx| stream(fx, 1000)),
        // A stall that ended in a watchdog would look the same.
        Fault::new("no_heartbeat_1000", without_heartbeat("1000").is("confidence", "likely"), |fx| {
            typed(fx, 1000)
        }),
        Fault::new("no_heartbeat_1001", without_heartbeat("1001"), |fx| typed(fx, 1001)),
    ];
    faults.into_iter().map(|fault| fault.lane(4)).collect()
}

/// Record of a session that serve ended with FIN.
fn ended_by_serve() -> ExpectedRecord {
    ExpectedRecord::opened(Verdict::ServeLeft, Segment::Serve, UpstreamClosed, "fin", ClosedBy::Upstream)
        .is("peer_exit", "alive")
        .ends(LegEnd::FinOut, LegEnd::FinIn)
}

/// A client without heartbeats and a serve that sends Ping frames, three of them answered.
fn pinged(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.heartbeat = None;
    let client = Client::connect(config)?;
    fx.clients.push(client);
    echo(fx, "hello")?;
    fx.order(&format!("ping {}", SERVE_PERIOD.as_millis()))?;
    std::thread::sleep(SERVE_PERIOD * 5 / 2);
    Ok(())
}

/// A client that sends Ping frames, and one message.
fn ping_frames(fx: &mut Fixture<'_>) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.ping = Ping::Frame;
    fx.open(config)?;
    echo(fx, "hello")
}

/// serve stops replying to heartbeats and sends a message every 0.5 s.
fn stream(fx: &mut Fixture<'_>, code: u16) -> Result<()> {
    fx.session()?;
    fx.order("mute")?;
    fx.order("stream 500")?;
    std::thread::sleep(STALL);
    fx.client().close(Some(code), "");
    fx.wait_end()
}

/// A user without heartbeats types at odd times, and closes.
fn typed(fx: &mut Fixture<'_>, code: u16) -> Result<()> {
    fx.serve(&[])?;
    let mut config = fx.config();
    config.heartbeat = None;
    let client = Client::connect(config)?;
    fx.clients.push(client);
    for pause in TYPED {
        echo(fx, "typed")?;
        std::thread::sleep(Duration::from_millis(pause));
    }
    fx.client().close(Some(code), "");
    fx.wait_end()
}

/// Sends a message and waits for its echo.
fn echo(fx: &Fixture<'_>, text: &str) -> Result<()> {
    let before = fx.client().seen().messages.len();
    fx.client().text(text);
    fx.client().wait("an echo", TIMEOUT, |seen| seen.messages.len() > before).map(drop)
}
