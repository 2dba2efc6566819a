//! Which sessions are open, for those who watch: one answer a second at most, made once for all of
//! them, from what the daemon holds and what dispatch counts. Reads no file, and asks dispatch for
//! its numbers only while somebody watches.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use t3_record::{
    evidence::{Nanos, Stall},
    value::Percent,
    wire::{
        FromTrace,
        live::{
            MOST_SESSIONS, OpenSession, PressureStats, STRAIN_SECONDS, SessionStats, Sessions, StatsReport,
        },
    },
};
use t3_trace_host::clock::{SECOND, monotonic};

use crate::{locked::lock, pressure::Recent, sessions::Entry, state::Shared};

/// No viewer is answered more often.
pub(crate) const EVERY: Duration = Duration::from_millis(900);
/// Viewers that ask within this time of each other are given the same answer.
const FRESH: Nanos = SECOND / 2;
/// For how long dispatch is asked to count aloud; asked again when half of it has passed.
const WISH: Nanos = 10 * SECOND;

/// The answer of this moment, in parts.
pub(crate) async fn answer(shared: &Arc<Shared>) -> Arc<Vec<Sessions>> {
    let mut kept = shared.watching.kept.lock().await;
    if let Some((at, parts)) = &*kept
        && at + FRESH > monotonic()
    {
        return Arc::clone(parts);
    }
    shared.want_pulses(monotonic());
    let theirs = Arc::clone(shared);
    // With very many sessions it takes a while, and an event loop has other things to do.
    let made = tokio::task::spawn_blocking(move || Arc::new(look(&theirs).parts())).await;
    let parts = made.unwrap_or_else(|error| {
        tracing::error!(%error, "the open sessions could not be listed");
        Arc::default()
    });
    *kept = Some((monotonic(), Arc::clone(&parts)));
    parts
}

fn look(shared: &Shared) -> Sessions {
    let now = monotonic();
    let (open, mut told) = shared.sessions().open(MOST_SESSIONS, |entry| open_session(entry, now));
    let mut strains: HashMap<PathBuf, Option<PressureStats>> = HashMap::new();
    for (session, port, began_at) in &mut told {
        let Some(dir) = shared.owners.at(*port, *began_at).and_then(|owner| owner.cgroup.clone()) else {
            continue;
        };
        session.strain = strains.entry(dir).or_insert_with_key(|dir| strain(shared, Some(dir))).clone();
    }
    Sessions {
        at: now,
        open,
        dispatch: lock(&shared.connections).values().any(|connection| connection.pid.is_some()),
        host: strain(shared, None),
        more: false,
        sessions: told.into_iter().map(|(session, ..)| session).collect(),
    }
}

/// A session as a viewer is told it, still without its pressure; its serve's port, and when it
/// began.
fn open_session(entry: &Entry, now: Nanos) -> (OpenSession, u16, Nanos) {
    let session = &entry.session;
    let told = OpenSession {
        conn: session.conn.clone(),
        user: session.user.clone(),
        ip: session.ip.clone(),
        age_ms: now.saturating_sub(session.opened_at.unwrap_or(now)) / 1_000_000,
        ending: entry.asked_at.is_some(),
        // What was counted before the connection broke is not how it is now.
        live: entry.pulse.as_ref().filter(|_| entry.detached_at.is_none()).map(|pulse| live(pulse, now)),
        strain: None,
    };
    (told, session.serve_port, entry.began_at())
}

fn live(pulse: &StatsReport, now: Nanos) -> SessionStats {
    SessionStats {
        down_bytes: pulse.down_bytes,
        up_bytes: pulse.up_bytes,
        rtt_us: pulse.rtt_ns.map(|rtt| rtt / 1000),
        wait_ms: pulse.waiting_since.map(|since| now.saturating_sub(since) / 1_000_000),
    }
}

fn strain(shared: &Shared, cgroup: Option<&Path>) -> Option<PressureStats> {
    shared.sampler.recent(cgroup, STRAIN_SECONDS).and_then(told)
}

/// `None` where the kernel measures nothing.
fn told(recent: Recent) -> Option<PressureStats> {
    let pressure = recent.pressure?;
    let percent = |stall: Option<Stall>| stall.map(|stall| Percent(stall.some));
    Some(PressureStats {
        mem: percent(pressure.mem),
        io: percent(pressure.io),
        cpu: percent(pressure.cpu),
        seconds: recent.seconds.into_iter().map(whole).collect(),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100")]
fn whole(percent: f32) -> u8 {
    percent.clamp(0.0, 100.0).round() as u8
}

impl Shared {
    /// Asks every dispatch that is connected to count aloud, unless it was asked a moment ago.
    /// Never waits: one whose queue is full has more important things to read.
    fn want_pulses(&self, now: Nanos) {
        for connection in lock(&self.connections).values_mut() {
            let Some(answers) =
                connection.answers.as_ref().filter(|_| connection.wanted_until < now + WISH / 2)
            else {
                continue;
            };
            if answers.try_send(FromTrace::WantPulses { ms: WISH / 1_000_000 }).is_ok() {
                connection.wanted_until = now + WISH;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::Pressure;

    use super::*;

    #[test]
    fn what_is_not_measured_is_not_told_as_zero() {
        assert_eq!(told(Recent { pressure: None, seconds: vec![] }), None);
        let io = Stall { some: 12.34, full: None, peak: 0.0, some30: 0.0 };
        let pressure = Some(Pressure { io: Some(io), ..Pressure::default() });
        let strain = told(Recent { pressure, seconds: vec![0.4, 99.6, 250.0, f32::NAN] }).unwrap();
        assert_eq!((strain.io, strain.mem, strain.cpu), (Some(Percent(12.34)), None, None));
        assert_eq!(strain.seconds, [0, 100, 100, 0]);
    }
}
