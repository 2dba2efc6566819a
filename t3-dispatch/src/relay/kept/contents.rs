//! What a slot has besides the positions: the identity, written once; the checkpoint, small,
//! written with each heartbeat; the details, written when the session is ending and before a
//! planned restart.
//!
//! Identity and checkpoint have a compact format (postcard), the details JSON: they are rare, and
//! their types have one for the evidence socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use t3_record::{
    evidence::{Heartbeat, Nanos, RelayFacts},
    vocabulary::Side,
    wire,
};

use crate::relay::{kept::positions::index, liveness::Liveness, session::Session};

/// The client's address: an IP address in few bytes if its text is the usual one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Address {
    Ip(IpAddr),
    Text(String),
}

impl Address {
    fn of(text: String) -> Self {
        match text.parse::<IpAddr>() {
            Ok(ip) if ip.to_string() == text => Self::Ip(ip),
            _ => Self::Text(text),
        }
    }

    fn into_text(self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// What never changes after the 101.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    conn: String,
    user: String,
    ip: Address,
    ray: Option<String>,
    started_at: Nanos,
    /// Nanoseconds from the start to the 101, which take fewer bytes than a time.
    opened_after: Option<u64>,
    down: Option<wire::Leg>,
    up: Option<wire::Leg>,
    serve_port: u16,
    /// Extensions that serve accepted.
    pub extensions: Option<String>,
    peer_uid: Option<u32>,
    /// The kernel's counters less those of the session: read from the client, from serve; written
    /// from the client, from serve.
    pub baseline: [u64; 4],
}

impl Identity {
    /// The identity of a session.
    #[must_use]
    pub fn of(session: &Session, baseline: [u64; 4]) -> Self {
        let wire::Session { conn, user, ip, ray, opened_at, down, up, serve_port, .. } =
            session.identity.clone();
        let started_at = session.facts.started_at;
        Self {
            conn,
            user,
            ip: Address::of(ip),
            ray,
            started_at,
            opened_after: opened_at.map(|at| at.wrapping_sub(started_at)),
            down,
            up,
            serve_port,
            extensions: session.facts.extensions.as_deref().map(ToOwned::to_owned),
            peer_uid: session.facts.peer_uid,
            baseline,
        }
    }

    /// Whether t3-trace accepts the id of the session.
    #[must_use]
    pub fn has_valid_id(&self) -> bool {
        (1..=wire::MOST_ID).contains(&self.conn.len())
    }

    /// Cookies of the sockets: downstream and upstream.
    #[must_use]
    pub fn cookies(&self) -> Option<[u64; 2]> {
        Some([self.down?.cookie, self.up?.cookie])
    }

    /// The session at its opening; `None` if it never opened.
    #[must_use]
    pub fn session(self) -> Option<Session> {
        let opened_at = self.started_at.wrapping_add(self.opened_after?);
        let identity = wire::Session {
            conn: self.conn,
            user: self.user,
            ip: self.ip.into_text(),
            ray: self.ray,
            opened_at: Some(opened_at),
            down: self.down,
            up: self.up,
            serve_port: self.serve_port,
            kept: true,
            resumed: 0,
        };
        let mut session = Session::new(identity, self.started_at);
        session.opened(opened_at, self.extensions);
        session.facts.peer_uid = self.peer_uid;
        Some(session)
    }
}

/// The heartbeat, for a process that is killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Bytes read from both peers.
    pub read: [u64; 2],
    /// [`t3_record::evidence::LegFacts::last_byte_at`] of both legs.
    pub last_byte_at: [Option<Nanos>; 2],
    /// [`t3_record::evidence::LegFacts::last_frame_at`] of both legs.
    pub last_frame_at: [Option<Nanos>; 2],
    /// The heartbeat so far.
    pub heartbeat: Option<Heartbeat>,
}

impl Checkpoint {
    /// The checkpoint of a session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let (down, up) = (&session.facts.down, &session.facts.up);
        Self {
            read: [down.bytes, up.bytes],
            last_byte_at: [down.last_byte_at, up.last_byte_at],
            last_frame_at: [down.last_frame_at, up.last_frame_at],
            heartbeat: session.heartbeat.facts(),
        }
    }
}

/// The rest of one direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowDetails {
    /// Payload that the scanner keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<u8>,
    /// [`crate::relay::session::Flow::close_end`].
    pub close_end: Option<u64>,
    /// [`crate::relay::session::Flow::blocked_since`].
    pub blocked_since: Option<Nanos>,
    /// [`crate::relay::session::Flow::backed_up_since`].
    pub backed_up_since: Option<Nanos>,
    /// [`crate::relay::session::Flow::sent_before_notice`].
    pub sent_before_notice: Option<(u64, Nanos)>,
}

/// All that the verdict needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// [`Session::facts`].
    pub facts: RelayFacts,
    /// [`Session::heartbeat`].
    pub heartbeat: Liveness,
    /// From the client, and from serve.
    pub flows: [FlowDetails; 2],
}

impl Details {
    /// The details of a session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let flow = |side| {
            let flow = session.flow(side);
            FlowDetails {
                kept: flow.scanner.kept().to_vec(),
                close_end: flow.close_end,
                blocked_since: flow.blocked_since,
                backed_up_since: flow.backed_up_since,
                sent_before_notice: flow.sent_before_notice,
            }
        };
        let mut flows = [FlowDetails::default(), FlowDetails::default()];
        for side in [Side::Down, Side::Up] {
            flows[index(side)] = flow(side);
        }
        Self { facts: session.facts.clone(), heartbeat: session.heartbeat.clone(), flows }
    }
}

#[cfg(test)]
mod tests {
    use t3_record::vocabulary::HeartbeatSource;

    use super::*;
    use crate::fd_store::layout::slot as at;

    const DAY: Nanos = 86_400_000_000_000;

    fn session(ip: &str) -> Session {
        let leg = |cookie, local: &str, remote: &str| {
            Some(wire::Leg { cookie, local: local.parse().unwrap(), remote: remote.parse().unwrap() })
        };
        let identity = wire::Session {
            conn: "abcdefghijklm".to_owned(),
            user: "firstname.lastname".to_owned(),
            ip: ip.to_owned(),
            ray: Some("8f2a4b6c8d0e1f23-FRA".to_owned()),
            opened_at: None,
            down: leg(3_000_000, "192.168.10.20:3780", "192.168.10.1:50123"),
            up: leg(3_000_001, "127.0.0.1:43210", "127.0.0.1:37801"),
            serve_port: 37_801,
            kept: true,
            resumed: 0,
        };
        let mut session = Session::new(identity, 200 * DAY);
        session.opened(200 * DAY + 8_000_000, Some("permessage-deflate".to_owned()));
        session.facts.peer_uid = Some(1_000);
        session
    }

    #[test]
    fn an_identity_is_read_as_written() {
        for ip in ["203.0.113.7", "2001:db8::7", "2001:DB8:0::7", "unknown", "", "::ffff:203.0.113.7"] {
            let session = session(ip);
            let identity = Identity::of(&session, [1, 2, 3, u64::MAX]);
            let bytes = postcard::to_stdvec(&identity).unwrap();
            let read: Identity = postcard::from_bytes(&bytes).unwrap();
            assert_eq!((&read, read.baseline), (&identity, [1, 2, 3, u64::MAX]));
            let read = read.session().unwrap();
            assert_eq!(read.identity, session.identity);
            assert_eq!(read.facts, session.facts);
        }
    }

    /// A longer part takes a page of memory for as long as the session is open.
    #[test]
    fn the_parts_of_an_ordinary_session_fit_in_the_slot() {
        let session = session("2001:db8:1234:5678:9abc:def0:1234:5678");
        let identity = postcard::to_stdvec(&Identity::of(&session, [900, 250, 1_100, 250])).unwrap();
        assert!(identity.len() <= at::IDENTITY.room, "{}", identity.len());
        let now = 200 * DAY + 5 * DAY;
        let checkpoint = Checkpoint {
            read: [3_000_000, 2_000_000_000],
            last_byte_at: [Some(now), Some(now)],
            last_frame_at: [Some(now), Some(now)],
            heartbeat: Some(Heartbeat {
                source: Some(HeartbeatSource::Text),
                is_by_serve: false,
                silent_since: None,
                is_regular: true,
                pings: 86_400,
                pongs: 86_400,
                rtt_ns: Some(2_000_000),
                rtt_max_ns: Some(900_000_000),
                last_ping_at: Some(now),
                last_pong_at: Some(now),
                waiting_since: Some(now),
                unanswered: 1,
                period_ns: Some(5_000_000_000),
                last_interval_ns: Some(5_000_000_000),
                survived: 0,
            }),
        };
        let checkpoint = postcard::to_stdvec(&checkpoint).unwrap();
        assert!(checkpoint.len() <= at::CHECKPOINT.room, "{}", checkpoint.len());
    }
}
