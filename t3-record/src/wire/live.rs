//! Open sessions and live stats for subscribers: types, and their division into messages. The
//! protocol is in docs/EVIDENCE-SOCKET.md.

use serde::{Deserialize, Serialize};

use super::{MAX_MESSAGE, is_zero};
use crate::{evidence::Nanos, value::Percent, vocabulary::HeartbeatSource};

/// Limit of sessions in a reply: those with the longest unanswered ping first, then the youngest.
pub const MOST_SESSIONS: usize = 1000;

/// Limit of reports per message; each is shorter than 300 bytes.
pub const MOST_PULSES: usize = 200;

/// Seconds of pressure in a reply.
pub const STRAIN_SECONDS: usize = 30;

/// Live stats of an open session, counted by dispatch. Times are of the monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsReport {
    /// The session.
    pub conn: String,
    /// Bytes received from the client.
    pub down_bytes: u64,
    /// Bytes received from serve.
    pub up_bytes: u64,
    /// RTT of the last answered heartbeat, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ns: Option<Nanos>,
    /// Time of the oldest unanswered ping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Nanos>,
    /// How its heartbeats are recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hb_by: Option<HeartbeatSource>,
}

/// A part of the reply to [`super::ToTrace::Sessions`]: as many sessions as fit into a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Time of the reply, monotonic clock.
    pub at: Nanos,
    /// Number of open sessions; up to [`MOST_SESSIONS`] are in the reply.
    pub open: u64,
    /// A dispatch is connected; without one the stats are not updated.
    pub dispatch: bool,
    /// Pressure of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<PressureStats>,
    /// More parts of this reply follow.
    pub more: bool,
    /// Sessions of this part.
    pub sessions: Vec<OpenSession>,
}

/// An open session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Its id.
    pub conn: String,
    /// The OS user.
    pub user: String,
    /// The client's address.
    pub ip: String,
    /// Age since the 101, in milliseconds.
    pub age_ms: u64,
    /// Closing: dispatch has queried the evidence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
    /// Number of times a restarted dispatch continued the session.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resumed: u32,
    /// Live stats of dispatch; `None` before the first report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<SessionStats>,
    /// Pressure of the user's cgroup, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strain: Option<PressureStats>,
}

/// Live stats for a subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStats {
    /// Bytes received from the client.
    pub down_bytes: u64,
    /// Bytes received from serve.
    pub up_bytes: u64,
    /// RTT of the last answered heartbeat, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Age of the oldest unanswered ping, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How its heartbeats are recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hb_by: Option<HeartbeatSource>,
}

/// Pressure of a cgroup: PSI some over the last 10 s in percent, and per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureStats {
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<Percent>,
    /// IO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Percent>,
    /// CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Percent>,
    /// Maximum of the three for each of the last seconds, in percent, oldest first; up to
    /// [`STRAIN_SECONDS`].
    pub seconds: Vec<u8>,
}

impl Sessions {
    /// Divides a reply into messages within the limit. A session that is too long alone is omitted;
    /// `open` still counts it.
    #[must_use]
    pub fn parts(mut self) -> Vec<Self> {
        /// Upper bound of the message without its sessions.
        const AROUND: usize = 512;
        let sessions = std::mem::take(&mut self.sessions);
        let mut parts = vec![self.clone()];
        let mut room = MAX_MESSAGE - AROUND;
        for session in sessions {
            let Ok(length) = serde_json::to_string(&session).map(|text| text.len() + 1) else { continue };
            if length > MAX_MESSAGE - AROUND {
                continue;
            }
            if length > room {
                parts.push(self.clone());
                room = MAX_MESSAGE - AROUND;
            }
            room -= length;
            if let Some(part) = parts.last_mut() {
                part.sessions.push(session);
            }
        }
        let last = parts.len() - 1;
        for (n, part) in parts.iter_mut().enumerate() {
            part.more = n < last;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FromTrace, ToTrace};

    fn strain() -> PressureStats {
        PressureStats {
            mem: Some(Percent(12.3)),
            io: Some(Percent(99.9)),
            cpu: Some(Percent(0.0)),
            seconds: vec![100; STRAIN_SECONDS],
        }
    }

    fn answer(sessions: Vec<OpenSession>) -> Sessions {
        Sessions { at: u64::MAX, open: 4000, dispatch: true, host: Some(strain()), more: true, sessions }
    }

    fn session(n: usize, user: &str) -> OpenSession {
        let live = SessionStats {
            down_bytes: u64::MAX,
            up_bytes: u64::MAX,
            rtt_us: Some(u64::MAX),
            wait_ms: Some(u64::MAX),
            hb_by: Some(HeartbeatSource::Rhythm),
        };
        OpenSession {
            conn: format!("conn-{n}"),
            user: user.to_owned(),
            ip: "2001:db8:1111:2222:3333:4444:5555:6666".to_owned(),
            age_ms: u64::MAX,
            ending: true,
            resumed: u32::MAX,
            live: Some(live),
            strain: Some(strain()),
        }
    }

    #[test]
    fn an_answer_is_cut_into_messages_that_fit_and_nothing_is_lost() {
        let long = "u".repeat(MAX_MESSAGE / 3);
        let awkward = "\"\\\n".repeat(MAX_MESSAGE / 16);
        for (users, kept, least_parts) in [
            (vec![], 0, 1),
            (vec!["wizard"; MOST_SESSIONS], MOST_SESSIONS, 2),
            (vec![long.as_str(); 7], 7, 4),
            (vec![awkward.as_str(); 3], 3, 2),
        ] {
            let sessions: Vec<_> = users.iter().enumerate().map(|(n, user)| session(n, user)).collect();
            let parts = answer(sessions).parts();
            assert!(parts.len() >= least_parts, "{}", parts.len());
            assert_eq!(parts.iter().map(|part| part.sessions.len()).sum::<usize>(), kept);
            assert_eq!(parts.iter().filter(|part| !part.more).count(), 1);
            assert!(parts.last().is_some_and(|last| !last.more));
            for part in parts {
                assert_eq!((part.open, part.dispatch, &part.host), (4000, true, &Some(strain())));
                let message = serde_json::to_vec(&FromTrace::Sessions(Box::new(part.clone()))).unwrap();
                assert!(message.len() <= MAX_MESSAGE, "{}", message.len());
                let read: FromTrace = serde_json::from_slice(&message).unwrap();
                assert_eq!(read, FromTrace::Sessions(Box::new(part)));
            }
        }
    }

    #[test]
    fn one_session_that_is_too_long_does_not_take_the_others_with_it() {
        let monster = "u".repeat(MAX_MESSAGE);
        let sessions = vec![session(1, "a"), session(2, &monster), session(3, "b")];
        let parts = answer(sessions).parts();
        let sent: Vec<_> = parts.iter().flat_map(|part| &part.sessions).map(|s| s.conn.as_str()).collect();
        assert_eq!(sent, ["conn-1", "conn-3"]);
    }

    #[test]
    fn a_full_message_of_pulses_fits() {
        let pulse = StatsReport {
            conn: "c".repeat(64),
            down_bytes: u64::MAX,
            up_bytes: u64::MAX,
            rtt_ns: Some(u64::MAX),
            waiting_since: Some(u64::MAX),
            hb_by: Some(HeartbeatSource::Rhythm),
        };
        let message = ToTrace::Pulses { pulses: vec![pulse; MOST_PULSES] };
        assert!(serde_json::to_vec(&message).unwrap().len() <= MAX_MESSAGE);
    }
}
