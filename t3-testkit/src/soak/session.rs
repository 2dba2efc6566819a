//! The client of a held session: opens, sends heartbeats until the end is due, ends as planned.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    chaos::{
        client::{self, Seen},
        plan::{Plan, Rng},
        socket::Peer,
    },
    frame::{self, opcode},
};

/// Period of the heartbeat, as in t3.
pub(super) const PERIOD: Duration = Duration::from_secs(5);
/// Longer than a browser's watchdog.
const GIVES_UP: Duration = Duration::from_secs(20);
/// Timeout for opening and ending.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A session ends at least this long before its next heartbeat, or after the reply to it: a Close
/// in place of a heartbeat is a watchdog's (facts: t3 client, "False alarm").
const CLEAR: Duration = Duration::from_secs(1);

fn is_clear(end: Instant, beat: Instant) -> bool {
    end + CLEAR <= beat
}

/// Counters while sessions are held.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub open: AtomicU32,
    /// Sessions that did not open.
    pub unopened: AtomicU32,
    /// Sessions that ended too early or got no reply to a heartbeat.
    pub dropped: AtomicU32,
    /// Heartbeats with a reply.
    pub beats: AtomicU64,
}

/// Start and duration of the ends; `None` until then.
pub(super) type Ending = watch::Receiver<Option<(Instant, Duration)>>;

/// Observations of one session.
#[derive(Debug)]
pub(super) struct Held {
    pub seen: Seen,
    /// RTT of each heartbeat, in microseconds.
    pub rtts_us: Vec<u64>,
}

/// State shared by all sessions.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub address: SocketAddr,
    pub seed: u64,
    pub counts: Arc<Counts>,
    /// Limit on concurrent openings.
    pub places: Arc<Semaphore>,
}

/// Opens a session, holds it and ends it.
pub(super) async fn run(common: Common, user: String, plan: Plan, ending: Ending) -> Held {
    let mut held = Held { seen: Seen::nothing(plan), rtts_us: Vec::new() };
    let opened = {
        let _place = common.places.acquire().await;
        timeout(TIMEOUT, client::open(common.address, &user, &mut held.seen)).await
    };
    let Ok(Ok(Some(mut peer))) = opened else {
        common.counts.unopened.fetch_add(1, Ordering::Relaxed);
        return held;
    };
    common.counts.open.fetch_add(1, Ordering::Relaxed);
    let mut rng = Rng(common.seed ^ u64::from(plan.id).rotate_left(17));
    let life = plan.life;
    if hold(&mut peer, &mut held.rtts_us, &common.counts, &mut rng, ending, life).await.is_err() {
        common.counts.dropped.fetch_add(1, Ordering::Relaxed);
        return held;
    }
    held.seen.plan.messages = held.rtts_us.len() as u64;
    held.seen.finished = matches!(timeout(TIMEOUT, client::end(peer, &mut held.seen)).await, Ok(Ok(())));
    held
}

/// Sends heartbeats until it is time for an end that takes `life` to come. Error: the session ended
/// early, or a reply is missing.
async fn hold(
    peer: &mut Peer,
    rtts_us: &mut Vec<u64>,
    counts: &Counts,
    rng: &mut Rng,
    mut ending: Ending,
    life: Duration,
) -> io::Result<()> {
    let gone = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
    // Spread over the period, as in reality.
    let mut beat = Instant::now() + part(PERIOD, rng);
    let mut end = None;
    loop {
        tokio::select! {
            // Nothing may arrive between heartbeats.
            early = peer.next() => {
                early.map_err(gone)?;
                return Err(io::ErrorKind::InvalidData.into());
            }
            () = sleep_until(end.filter(|end| is_clear(*end + life, beat)).unwrap_or(beat)) => {}
            order = ending.wait_for(Option::is_some), if end.is_none() => {
                let order = order.ok().and_then(|order| *order);
                end = order.map(|(begin, span)| begin + part(span, rng));
                if end.is_none() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                continue;
            }
        }
        let now = Instant::now();
        if end.is_some_and(|end| is_clear(end.max(now) + life, beat)) {
            return Ok(());
        }
        if now < beat {
            // A busy host woke it too late; it ends after the heartbeat.
            end = Some(beat);
            continue;
        }
        let sent = Instant::now();
        peer.text(frame::HEARTBEAT.as_bytes()).await?;
        let answer = timeout(GIVES_UP, peer.next()).await?.map_err(gone)?;
        if answer.opcode != opcode::TEXT || answer.payload != frame::HEARTBEAT_ANSWER.as_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        rtts_us.push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
        counts.beats.fetch_add(1, Ordering::Relaxed);
        beat += PERIOD;
    }
}

fn part(span: Duration, rng: &mut Rng) -> Duration {
    Duration::from_micros(rng.below(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
}
