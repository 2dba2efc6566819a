//! Entries of the ledger as the daemon uses them, and as the spool keeps them.

use serde::{Deserialize, Serialize};
use t3_record::{CloseRecord, logfmt::BadLine, reconcile::UnclosedSession};

use super::{
    boot_moment::BootMoment,
    dispatch_id::DispatchId,
    ledger::{self, State},
};

/// Entry of the ledger.
pub(crate) type Entry = ledger::Entry<Origin, Kept>;

/// A session and its dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) session: UnclosedSession,
    pub(crate) dispatch: DispatchId,
    /// dispatch keeps it in a descriptor store.
    #[serde(default)]
    pub(crate) is_kept: bool,
}

/// A record that is kept until the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its line: smaller than the record.
    line: String,
    /// Time at which it was made.
    pub(crate) made: BootMoment,
    /// Subscribers have it.
    pub(crate) is_published: bool,
}

impl Kept {
    pub(crate) fn new(record: &CloseRecord, made: BootMoment, is_published: bool) -> Self {
        Self { line: record.to_line(), made, is_published }
    }

    /// The record.
    pub(crate) fn record(&self) -> Result<CloseRecord, BadLine> {
        CloseRecord::from_line(&self.line)
    }
}

/// Entry as the spool has it. A sent record may not have arrived: a later process searches for it
/// as for a pending one.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Stored {
    Open { origin: Origin },
    Unkept { origin: Origin },
    Reported { origin: Origin, record: Kept },
    Pending { origin: Origin, record: Kept },
}

/// Encodes an entry for the spool.
pub(crate) fn encode(entry: &Entry) -> Result<Vec<u8>, serde_json::Error> {
    let origin = entry.session.clone();
    serde_json::to_vec(&match &entry.state {
        State::Open | State::Claimed => Stored::Open { origin },
        State::Unkept => Stored::Unkept { origin },
        State::Reported(record) => Stored::Reported { origin, record: record.clone() },
        State::Pending(record) | State::Sent { record, .. } => {
            Stored::Pending { origin, record: record.clone() }
        }
    })
}

/// Decodes an entry of the spool.
pub(crate) fn decode(bytes: &[u8]) -> Result<Entry, serde_json::Error> {
    Ok(match serde_json::from_slice(bytes)? {
        Stored::Open { origin } => Entry::new(origin, State::Open),
        Stored::Unkept { origin } => Entry::new(origin, State::Unkept),
        Stored::Reported { origin, record } => Entry::new(origin, State::Reported(record)),
        Stored::Pending { origin, record } => Entry::new(origin, State::Pending(record)),
    })
}

#[cfg(test)]
mod tests {
    use t3_record::reconcile::{Moment, UnclosedEnd, reconcile};

    use super::*;

    const AT: Moment = Moment { wall_us: 7, monotonic: 9 };

    #[test]
    fn an_entry_reads_back_from_the_spool() {
        let session = UnclosedSession {
            conn: "a1".into(),
            user: "wizard".into(),
            ip: "192.0.2.1".into(),
            ray: None,
            opened: AT,
        };
        let record = reconcile(&session, UnclosedEnd::Reboot, None);
        let made = BootMoment { boot: "b".into(), at: AT };
        let kept = Kept::new(&record, made, true);
        assert_eq!(kept.record(), Ok(record));
        let origin = Origin {
            session,
            dispatch: DispatchId { boot: "b".into(), pid: Some(7), ran_at: 9 },
            is_kept: true,
        };
        for (state, read) in [
            (State::Open, State::Open),
            (State::Claimed, State::Open),
            (State::Unkept, State::Unkept),
            (State::Reported(kept.clone()), State::Reported(kept.clone())),
            (State::Pending(kept.clone()), State::Pending(kept.clone())),
            (State::Sent { record: kept.clone(), accepted: true, is_missing: true }, State::Pending(kept)),
        ] {
            let bytes = encode(&Entry::new(origin.clone(), state)).unwrap();
            assert_eq!(decode(&bytes).unwrap(), Entry::new(origin.clone(), read));
        }
        assert!(decode(b"{}").is_err() && decode(b"\xff").is_err());
    }
}
