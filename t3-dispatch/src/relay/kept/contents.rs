//! What a slot has besides the positions: the identity, written once; the checkpoint, small,
//! written with each heartbeat; the details, written when the session is ending and before a
//! planned restart.
//!
//! Identity and checkpoint have a compact format (postcard), the details JSON: they are rare, and
//! their types have one for the evidence socket.

use serde::{Deserialize, Serialize};
use t3_record::{
    evidence::{Heartbeat, Nanos, RelayFacts},
    vocabulary::Side,
    wire,
};

use crate::relay::{kept::positions::index, liveness::Liveness, session::Session};

/// What never changes after the 101.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    conn: String,
    user: String,
    ip: String,
    ray: Option<String>,
    opened_at: Option<Nanos>,
    down: Option<wire::Leg>,
    up: Option<wire::Leg>,
    serve_port: u16,
    started_at: Nanos,
    /// Extensions that serve accepted.
    pub extensions: Option<String>,
    peer_uid: Option<u32>,
}

impl Identity {
    /// The identity of a session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let wire::Session { conn, user, ip, ray, opened_at, down, up, serve_port, .. } =
            session.identity.clone();
        Self {
            conn,
            user,
            ip,
            ray,
            opened_at,
            down,
            up,
            serve_port,
            started_at: session.facts.started_at,
            extensions: session.facts.extensions.clone(),
            peer_uid: session.facts.peer_uid,
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
        let opened_at = self.opened_at?;
        let identity = wire::Session {
            conn: self.conn,
            user: self.user,
            ip: self.ip,
            ray: self.ray,
            opened_at: self.opened_at,
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
