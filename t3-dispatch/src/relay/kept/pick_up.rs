//! Takes over the session of a slot: reads the slot and the counters of both sockets, decides, and
//! does what the process before had not committed.

use std::time::Duration;

use t3_record::{evidence::Nanos, vocabulary::Side, wire};

use crate::{
    fd_store::{descriptors::DescriptorStore, layout::BUFFER, slot::Slot},
    relay::{
        Legs,
        kept::{
            Kept,
            contents::{Checkpoint, Details, Identity},
            decide::{Lost, Uncommitted, decide},
            positions::Positions,
            restore::{self, Stored},
        },
        session::Session,
    },
    sys::tcp_counters,
};

/// Longest time without a dispatch. Shorter than t3-trace waits, by the time for the registration.
const MAX_GAP: Duration = wire::SUCCESSOR_WAIT.saturating_sub(Duration::from_secs(2));

/// Why a session was not continued.
#[derive(Debug, thiserror::Error)]
pub enum NotContinued {
    /// Bytes are missing.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The content of the slot cannot be read.
    #[error("its state cannot be read")]
    Unreadable,
    /// One or both sockets are not in the store.
    #[error("its sockets are not in the descriptor store")]
    NoSockets,
    /// t3-trace has written its record.
    #[error("no dispatch ran for {0} s, longer than t3-trace waits")]
    Late(u64),
    /// A socket has no counters.
    #[error("cannot read the counters of a socket: {0}")]
    Counters(std::io::Error),
}

/// A session that is continued.
#[derive(Debug)]
pub struct PickedUp {
    /// The session.
    pub session: Session,
    /// Its sockets.
    pub legs: Legs,
    /// Its slot.
    pub kept: Kept,
}

/// A session that is not continued.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub why: NotContinued,
    /// What is known of it.
    pub session: Option<Box<Session>>,
}

/// The identity in a slot; `None` if it cannot be read, or if t3-trace would refuse it and so all
/// messages after it.
#[must_use]
pub fn identity(slot: &Slot) -> Option<Identity> {
    let identity: Identity = postcard::from_bytes(&slot.identity()?).ok()?;
    identity.has_valid_id().then_some(identity)
}

/// Reads the content of a slot; `None` if it cannot be decoded.
#[must_use]
pub fn read(slot: &Slot) -> Option<Stored> {
    let positions = Positions::decode(&slot.positions()?)?;
    let pending = |n: usize| slot.pending(n, positions.flows[n].pending as usize);
    let details = slot.details(positions.commit).and_then(|(commit, details)| {
        let details: Details = serde_json::from_slice(&details).ok()?;
        Some((commit, details))
    });
    Some(Stored {
        identity: identity(slot)?,
        positions,
        checkpoint: slot
            .checkpoint()
            .and_then(|checkpoint| postcard::from_bytes::<Checkpoint>(&checkpoint).ok()),
        details,
        pending: [pending(0)?, pending(1)?],
    })
}

/// Takes over a session with its sockets. `died_at`: last time at which the process before is known
/// to have run, `existed_at`: to have existed. `now`: the current time.
///
/// # Errors
/// [`Ended`]: the slot is free again and the sockets are closed.
pub fn pick_up(
    slot: Slot,
    store: &DescriptorStore,
    legs: Option<Legs>,
    [died_at, existed_at]: [Nanos; 2],
    now: Nanos,
) -> Result<PickedUp, Ended> {
    let stored = read(&slot);
    let session = |stored: &Option<Stored>| {
        let session = stored.clone().and_then(|stored| restore::session(stored, now));
        session.map(|mut session| {
            session.facts.resumed = slot.resumed();
            Box::new(session)
        })
    };
    let gap = now.saturating_sub(existed_at);
    if u128::from(gap) > MAX_GAP.as_nanos() {
        return Err(Ended { why: NotContinued::Late(gap / 1_000_000_000), session: session(&stored) });
    }
    let Some(legs) = legs else {
        return Err(Ended { why: NotContinued::NoSockets, session: session(&stored) });
    };
    let Some(found) = stored.clone() else {
        return Err(Ended { why: NotContinued::Unreadable, session: None });
    };
    let decided = match (tcp_counters::read(&legs.down), tcp_counters::read(&legs.up)) {
        (Ok(down), Ok(up)) => {
            let reading = slot.reading().map(|reading| reading.direction);
            decide(&found.positions, found.identity.baseline, [down, up], reading, BUFFER)
                .map_err(NotContinued::from)
        }
        (Err(error), _) | (_, Err(error)) => Err(NotContinued::Counters(error)),
    };
    let uncommitted = match decided {
        Ok(uncommitted) => uncommitted,
        Err(why) => return Err(Ended { why, session: session(&stored) }),
    };
    let commit = found.positions.commit;
    let pending = found.positions.flows.map(|flow| flow.pending);
    let continued = restore::session(found, now).and_then(|mut session| {
        catch_up(&mut session, &slot, uncommitted, [died_at, now])?;
        session.facts.resumed = slot.resumed().saturating_add(1);
        session.facts.resumed_at = Some(now);
        session.identity.resumed = session.facts.resumed;
        Some(session)
    });
    let Some(session) = continued else {
        return Err(Ended { why: NotContinued::Unreadable, session: None });
    };
    slot.set_resumed(session.facts.resumed);
    let kept = Kept::take_over(slot, store.clone(), &session, commit, pending);
    Ok(PickedUp { session, legs, kept })
}

/// Does what the process before had not committed: receives what it had read, and notes what it
/// had written. It read after its last commit and hardly after `died_at`: a reply that is given the
/// time of the pick-up would have the restart in its RTT.
fn catch_up(
    session: &mut Session,
    slot: &Slot,
    uncommitted: Uncommitted,
    [died_at, now]: [Nanos; 2],
) -> Option<()> {
    if let Some((direction, length)) = uncommitted.read {
        let bytes = slot.read_bytes(slot.reading()?.buffer, length)?;
        let side = [Side::Down, Side::Up][direction & 1];
        let committed = [session.facts.down.last_byte_at, session.facts.up.last_byte_at];
        let read_at = committed.into_iter().flatten().fold(died_at, Nanos::max).min(now);
        session.received(side, &bytes, read_at);
        if !session.flow(side.other()).failed {
            session.flow_mut(side).pending = bytes;
            session.flow_mut(side).pending_at = 0;
        }
    }
    for (side, written) in [Side::Down, Side::Up].into_iter().zip(uncommitted.written) {
        if written > 0 {
            session.flow_mut(side).pending_at += u32::try_from(written).unwrap_or(0);
            session.wrote(side, written, now);
        }
        if session.flow(side).unwritten().is_empty() {
            session.flow_mut(side).discard();
        }
    }
    Some(())
}
