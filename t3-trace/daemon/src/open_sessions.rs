//! List of open sessions for subscribers: one answer per second, built once for all of them, from
//! the registered sessions and the live stats of dispatch. Reads no file, and requests live stats
//! only while a subscriber queries them.

use std::{
    collections::HashMap,
    net::SocketAddr,
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

use crate::{
    locked::lock,
    pressure::Recent,
    sessions::{Entry, serve_address},
    state::Shared,
};

/// Minimum time between answers to one subscriber.
pub(crate) const EVERY: Duration = Duration::from_millis(900);
/// Queries within this time get the same answer.
const FRESH: Nanos = SECOND / 2;
/// Lease for live stats from dispatch; renewed at half-life.
const LEASE: Nanos = 10 * SECOND;

/// Returns the current list, in parts.
pub(crate) async fn answer(shared: &Arc<Shared>) -> Arc<Vec<Sessions>> {
    let mut kept = shared.open_sessions.kept.lock().await;
    if let Some((at, parts)) = &*kept
        && at + FRESH > monotonic()
    {
        return Arc::clone(parts);
    }
    shared.request_live_stats(monotonic());
    let state = Arc::clone(shared);
    // With many sessions this takes too long for the event loop.
    let made = tokio::task::spawn_blocking(move || Arc::new(collect(&state).parts())).await;
    let parts = made.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot list the open sessions");
        Arc::default()
    });
    *kept = Some((monotonic(), Arc::clone(&parts)));
    parts
}

fn collect(shared: &Shared) -> Sessions {
    let now = monotonic();
    let (open, mut listed) = shared.sessions().open(MOST_SESSIONS, |entry| open_session(entry, now));
    let mut strains: HashMap<PathBuf, Option<PressureStats>> = HashMap::new();
    for (session, address, began_at) in &mut listed {
        let Some(dir) = shared.owners.at(*address, *began_at).and_then(|owner| owner.cgroup.clone()) else {
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
        sessions: listed.into_iter().map(|(session, ..)| session).collect(),
    }
}

/// A listed session without its pressure, the address of its serve, and its start.
fn open_session(entry: &Entry, now: Nanos) -> (OpenSession, SocketAddr, Nanos) {
    let session = &entry.session;
    let listed = OpenSession {
        conn: session.conn.clone(),
        user: session.user.clone(),
        ip: session.ip.clone(),
        age_ms: now.saturating_sub(session.opened_at.unwrap_or(now)) / 1_000_000,
        ending: entry.asked_at.is_some(),
        resumed: session.resumed,
        // Live stats from before a disconnect are not current.
        live: entry.live_stats.as_ref().filter(|_| entry.detached_at.is_none()).map(|stats| live(stats, now)),
        strain: None,
    };
    (listed, serve_address(session), entry.began_at())
}

fn live(stats: &StatsReport, now: Nanos) -> SessionStats {
    SessionStats {
        down_bytes: stats.down_bytes,
        up_bytes: stats.up_bytes,
        rtt_us: stats.rtt_ns.map(|rtt| rtt / 1000),
        wait_ms: stats.waiting_since.map(|since| now.saturating_sub(since) / 1_000_000),
        hb_by: stats.hb_by,
    }
}

fn strain(shared: &Shared, cgroup: Option<&Path>) -> Option<PressureStats> {
    shared.sampler.recent(cgroup, STRAIN_SECONDS).and_then(pressure_stats)
}

/// `None` if the kernel has no PSI.
fn pressure_stats(recent: Recent) -> Option<PressureStats> {
    let pressure = recent.pressure?;
    let percent = |stall: Option<Stall>| stall.map(|stall| Percent(stall.some));
    Some(PressureStats {
        mem: percent(pressure.mem),
        io: percent(pressure.io),
        cpu: percent(pressure.cpu),
        seconds: recent.seconds.into_iter().map(rounded).collect(),
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=100")]
fn rounded(percent: f32) -> u8 {
    percent.clamp(0.0, 100.0).round() as u8
}

impl Shared {
    /// Requests live stats from every connected dispatch, unless the lease is recent. Never waits:
    /// a dispatch with a full queue has more important messages to read.
    fn request_live_stats(&self, now: Nanos) {
        for connection in lock(&self.connections).values_mut() {
            let Some(answers) =
                connection.answers.as_ref().filter(|_| connection.leased_until < now + LEASE / 2)
            else {
                continue;
            };
            if answers.try_send(FromTrace::WantPulses { ms: LEASE / 1_000_000 }).is_ok() {
                connection.leased_until = now + LEASE;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use t3_record::evidence::Pressure;

    use super::*;

    #[test]
    fn missing_pressure_is_not_reported_as_zero() {
        assert_eq!(pressure_stats(Recent { pressure: None, seconds: vec![] }), None);
        let io = Stall { some: 12.34, full: None, peak: 0.0, some30: 0.0 };
        let pressure = Some(Pressure { io: Some(io), ..Pressure::default() });
        let strain = pressure_stats(Recent { pressure, seconds: vec![0.4, 99.6, 250.0, f32::NAN] }).unwrap();
        assert_eq!((strain.io, strain.mem, strain.cpu), (Some(Percent(12.34)), None, None));
        assert_eq!(strain.seconds, [0, 100, 100, 0]);
    }
}
