//! A session from the slot that the process before left. Pure.
//!
//! With the details of the last commit everything is as it was. Without them the process was
//! killed: the heartbeat is that of the last checkpoint. If the side that replies has sent nothing
//! since, its pings still wait; otherwise a reply may have come and is taken as received, so that
//! no verdict rests on a wait that was not seen.

use t3_record::{evidence::Nanos, vocabulary::Side};

use crate::relay::{
    frames::{FrameScanner, Sender},
    kept::{
        contents::{Checkpoint, Details, Identity},
        positions::{FlowPosition, Positions, index},
    },
    liveness::Liveness,
    session::Session,
};

/// Content of a slot, decoded.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The identity.
    pub identity: Identity,
    /// The positions of the last commit.
    pub positions: Positions,
    /// The last checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The last details, and the number of their commit.
    pub details: Option<(u32, Details)>,
    /// Pending bytes of both directions, with those already written.
    pub pending: [Vec<u8>; 2],
}

/// Returns the session; `None` if its content contradicts itself.
#[must_use]
pub fn session(stored: Stored, now: Nanos) -> Option<Session> {
    let Stored { identity, positions, checkpoint, details, pending } = stored;
    let mut session = identity.session()?;
    let is_exact = details.as_ref().is_some_and(|(commit, _)| *commit == positions.commit);
    let (mut flows, mut kept) = ([None, None], [None, None]);
    if let Some((_, details)) = details {
        if !details.heartbeat.is_possible() {
            return None;
        }
        session.facts = details.facts;
        session.heartbeat = details.heartbeat;
        let [down, up] = details.flows;
        flows = [Some(down), Some(up)];
    }
    if !is_exact && !session.end_started() {
        let read = positions.flows.map(|flow| flow.read);
        since_checkpoint(&mut session, checkpoint, read, now)?;
    }
    for (side, pending) in [Side::Down, Side::Up].into_iter().zip(pending) {
        let position = positions.flows[index(side)];
        if pending.len() != position.pending as usize || position.pending_at > position.pending {
            return None;
        }
        session.leg_mut(side).bytes = position.read;
        session.leg_mut(side).msgs = position.msgs;
        let details = flows[index(side)].take();
        if let Some(details) = details {
            if is_exact {
                kept[index(side)] = Some(details.kept);
            }
            let flow = session.flow_mut(side);
            flow.close_end = details.close_end;
            flow.blocked_since = details.blocked_since;
            flow.backed_up_since = details.backed_up_since;
            flow.sent_before_notice = details.sent_before_notice;
        }
        let scanner = scanner(side, &session, &position, kept[index(side)].as_deref())?;
        let flow = session.flow_mut(side);
        flow.scanner = scanner;
        flow.written = position.written;
        flow.pending_at = position.pending_at;
        if !pending.is_empty() {
            flow.blocked_since.get_or_insert(now);
            flow.backed_up_since.get_or_insert(now);
        }
        flow.pending = pending;
        (flow.ended, flow.failed, flow.end_forwarded) =
            (position.ended, position.failed, position.end_forwarded);
    }
    Some(session)
}

/// Sets the times and the heartbeat of a session without exact details to those of the checkpoint.
/// `read`: bytes that were read from both peers. Of bytes that came after the checkpoint no time is
/// known, and `now` never overstates a silence. `None`: the heartbeat contradicts itself.
fn since_checkpoint(
    session: &mut Session,
    checkpoint: Option<Checkpoint>,
    read: [u64; 2],
    now: Nanos,
) -> Option<()> {
    for side in [Side::Down, Side::Up] {
        let (n, leg) = (index(side), session.leg_mut(side));
        let mut known = leg.bytes;
        if let Some(checkpoint) = &checkpoint {
            leg.last_byte_at = leg.last_byte_at.max(checkpoint.last_byte_at[n]);
            leg.last_frame_at = leg.last_frame_at.max(checkpoint.last_frame_at[n]);
            known = known.max(checkpoint.read[n]);
        }
        if read[n] != known {
            (leg.last_byte_at, leg.last_frame_at) = (Some(now), Some(now));
        }
    }
    let is_compressed = session.facts.extensions.is_some();
    let Some(checkpoint) = checkpoint else {
        // Details can be of any age.
        session.heartbeat = Liveness::new(is_compressed);
        return Some(());
    };
    if let Some(heartbeat) = checkpoint.heartbeat {
        let answers = index(if heartbeat.is_by_serve { Side::Down } else { Side::Up });
        let is_current = checkpoint.read[answers] == read[answers];
        session.heartbeat = Liveness::resume(is_compressed, heartbeat, is_current)?;
    }
    Some(())
}

fn scanner(
    side: Side,
    session: &Session,
    position: &FlowPosition,
    kept: Option<&[u8]>,
) -> Option<FrameScanner> {
    let sender = match side {
        Side::Down => Sender::Client,
        Side::Up => Sender::Server,
    };
    FrameScanner::resume(sender, session.facts.extensions.is_some(), position.scanner, kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use t3_record::{evidence::SeenEnd, wire};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn opened() -> Session {
        let leg = |cookie| {
            let address = "192.0.2.1:443".parse().unwrap();
            Some(wire::Leg { cookie, local: address, remote: address })
        };
        let identity = wire::Session {
            conn: "c".to_owned(),
            user: "u".to_owned(),
            ip: "203.0.113.7".to_owned(),
            ray: None,
            opened_at: None,
            down: leg(1),
            up: leg(2),
            serve_port: 3773,
            kept: true,
            resumed: 0,
        };
        let mut session = Session::new(identity, SECOND);
        session.opened(2 * SECOND, None);
        session
    }

    fn text(side: Side, payload: &[u8]) -> Vec<u8> {
        frame(side, 1, payload)
    }

    /// A final frame with a short payload; masked with zeros when the client sends it.
    fn frame(side: Side, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut bytes = vec![0x80 | opcode];
        match side {
            Side::Down => bytes.extend([0x80 | length, 0, 0, 0, 0]),
            Side::Up => bytes.push(length),
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    const PING: &[u8] = br#"{"_tag":"Ping"}"#;
    const PONG: &[u8] = br#"{"_tag":"Pong"}"#;

    fn stored(session: &Session, details: Option<u32>, checkpoint: Option<Checkpoint>) -> Stored {
        // Through the formats of a slot.
        let details = details.map(|commit| {
            let json = serde_json::to_vec(&Details::of(session)).unwrap();
            (commit, serde_json::from_slice(&json).unwrap())
        });
        let identity = postcard::to_stdvec(&Identity::of(session, [0; 4])).unwrap();
        Stored {
            identity: postcard::from_bytes(&identity).unwrap(),
            positions: Positions::of(session, 9),
            checkpoint,
            details,
            pending: [Side::Down, Side::Up].map(|side| session.flow(side).pending.clone()),
        }
    }

    /// Five answered pings, one that waits.
    fn waiting() -> Session {
        let mut session = opened();
        for n in 1..=6 {
            let now = (2 + 5 * n) * SECOND;
            session.received(Side::Down, &text(Side::Down, PING), now);
            session.wrote(Side::Down, 21, now);
            if n < 6 {
                session.received(Side::Up, &text(Side::Up, PONG), now + 1000);
                session.wrote(Side::Up, 17, now + 1000);
            }
        }
        session
    }

    #[test]
    fn with_its_details_a_session_is_as_it_was() {
        let mut session = waiting();
        session.flow_mut(Side::Up).pending = b"pending".to_vec();
        session.flow_mut(Side::Up).pending_at = 3;
        session.flow_mut(Side::Up).blocked_since = Some(7);
        session.read_ended(Side::Up, SeenEnd::Eof, 40 * SECOND);
        let restored = super::session(stored(&session, Some(9), None), 50 * SECOND).unwrap();
        assert_eq!(restored.facts_so_far(), session.facts_so_far());
        assert_eq!(restored.heartbeat.facts(), session.heartbeat.facts());
        let (was, is) = (session.flow(Side::Up), restored.flow(Side::Up));
        assert_eq!((is.unwritten(), is.ended, is.blocked_since), (was.unwritten(), true, Some(7)));
    }

    #[test]
    fn without_details_a_ping_waits_until_its_side_has_sent_something() {
        let session = waiting();
        let read = Checkpoint::of(&session).read;
        let now = 50 * SECOND;
        let stale = (Some(now), Some(now));
        let times = |session: &Session, side| {
            let leg = session.facts.leg(side);
            (leg.last_byte_at, leg.last_frame_at)
        };
        for (read, unanswered, side_since) in [
            (read, 1, None),
            ([read[0] - 1, read[1]], 1, Some(Side::Down)),
            ([read[0], read[1] - 1], 0, Some(Side::Up)),
        ] {
            let checkpoint = Checkpoint { read, ..Checkpoint::of(&session) };
            let restored = super::session(stored(&session, None, Some(checkpoint)), now).unwrap();
            let heartbeat = restored.heartbeat.facts().unwrap();
            assert_eq!(heartbeat.unanswered, unanswered);
            let since = (unanswered > 0).then_some(32 * SECOND);
            assert_eq!((heartbeat.waiting_since, heartbeat.silent_since), (since, since));
            assert_eq!((heartbeat.pings, heartbeat.period_ns), (6, Some(5 * SECOND)));
            assert_eq!((restored.facts.down.bytes, restored.facts.down.msgs), (126, 6));
            for side in [Side::Down, Side::Up] {
                let expected = if side_since == Some(side) { stale } else { times(&session, side) };
                assert_eq!(times(&restored, side), expected, "{side:?}");
            }
        }
    }

    #[test]
    fn without_a_checkpoint_the_heartbeat_is_unknown() {
        let session = waiting();
        for details in [None, Some(8)] {
            let restored = super::session(stored(&session, details, None), 50 * SECOND).unwrap();
            assert_eq!(restored.heartbeat.facts(), None, "{details:?}");
        }
    }

    #[test]
    fn the_wait_of_a_session_that_is_ending_is_that_before_its_end() {
        let mut session = waiting();
        session.received(Side::Down, &frame(Side::Down, 8, &1000_u16.to_be_bytes()), 60 * SECOND);
        let later = Checkpoint { heartbeat: None, ..Checkpoint::of(&session) };
        // The details are those of the commit before.
        let restored = super::session(stored(&session, Some(8), Some(later)), 61 * SECOND).unwrap();
        let facts = restored.facts_so_far();
        assert_eq!(facts.down.close_frame.map(|frame| frame.code), Some(Some(1000)));
        assert_eq!(facts.heartbeat.map(|heartbeat| heartbeat.unanswered), Some(1));
    }

    #[test]
    fn contradictions_are_refused() {
        let session = waiting();
        let good = stored(&session, Some(9), None);
        assert!(super::session(good.clone(), 0).is_some());
        let mut bad = good.clone();
        bad.positions.flows[0].pending = 1;
        assert!(super::session(bad, 0).is_none(), "pending bytes are missing");
        let mut bad = good.clone();
        bad.positions.flows[1].pending_at = 1;
        assert!(super::session(bad, 0).is_none(), "more written than pending");
        let mut bad = good;
        bad.positions.flows[0].scanner.header_have = 200;
        assert!(super::session(bad, 0).is_none(), "no such header");
    }

    proptest! {
        /// A session that is restored at any place ends with the same facts.
        #[test]
        fn a_restored_session_goes_on_as_if_nothing_had_happened(
            kinds in prop::collection::vec(0_u8..5, 1..30), cut in any::<prop::sample::Index>(),
        ) {
            let mut chunks: Vec<(Side, Vec<u8>)> = Vec::new();
            for kind in kinds {
                chunks.push(match kind {
                    0 => (Side::Down, text(Side::Down, PING)),
                    1 => (Side::Up, text(Side::Up, PONG)),
                    2 => (Side::Up, frame(Side::Up, 2, &[7; 100])),
                    3 => (Side::Down, frame(Side::Down, 9, b"")),
                    // Half of a frame; the next chunk of its side continues it.
                    _ => (Side::Up, vec![0x82, 1]),
                });
            }
            let feed = |session: &mut Session, range: &[(Side, Vec<u8>)], from: usize| {
                for (n, (side, bytes)) in range.iter().enumerate() {
                    let now = (10 + from + n) as u64 * SECOND;
                    session.received(*side, bytes, now);
                    session.wrote(*side, bytes.len(), now);
                }
            };
            let cut = cut.index(chunks.len());
            let mut whole = opened();
            feed(&mut whole, &chunks, 0);
            let mut first = opened();
            feed(&mut first, &chunks[..cut], 0);
            let mut second = super::session(stored(&first, Some(9), None), SECOND).unwrap();
            feed(&mut second, &chunks[cut..], cut);
            prop_assert!(second.first_end(100 * SECOND) && whole.first_end(100 * SECOND));
            prop_assert_eq!(second.facts, whole.facts);
        }
    }
}
