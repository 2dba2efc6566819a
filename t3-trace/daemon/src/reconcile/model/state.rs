//! State of the model: the processes with their queues, the disks, and what an observer knows.

use std::collections::BTreeMap;

use super::super::ledger::{Entry, Ledger, State as Progress};

/// Rules of the protocol that can be switched off, to show that the model finds the consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// A pass searches the journal before it writes.
    pub(super) search: bool,
    /// A pass waits for journald before it reads.
    pub(super) sync: bool,
    /// A close that a scan found removes its session only when it is on disk.
    pub(super) sync_after_scan: bool,
    /// A reported record is kept until the journal has it.
    pub(super) keep_reported: bool,
    /// t3-trace begins with the spool of an earlier one.
    pub(super) restore: bool,
    /// dispatch reports its records again to a new t3-trace.
    pub(super) report_again: bool,
    /// Records that the spool holds.
    pub(super) room: usize,
    /// A full disk stays full.
    pub(super) stays_full: bool,
}

/// Failures that are left on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Left {
    /// SIGKILL of any process, and ends of the connection while both run.
    pub(super) kills: u8,
    /// Power losses and reboots.
    pub(super) power: u8,
    /// Times at which the disk of the journal fills.
    pub(super) fills: u8,
    /// Records that do not fit into the queue of a writer.
    pub(super) drops: u8,
}

impl Left {
    pub(super) fn sum(self) -> u8 {
        self.kills + self.power + self.fills + self.drops
    }
}

/// Session in the memory of its dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Session {
    New,
    Open,
    /// Its close is in the queue to journald.
    Closing,
    /// The queue has an outcome, which t3-trace does not have.
    Written {
        lost: bool,
    },
    /// Handed to the connection to t3-trace.
    Reported {
        lost: bool,
    },
    /// Its dispatch is dead.
    Gone,
}

impl Session {
    /// dispatch registers it.
    pub(super) fn is_held(self) -> bool {
        matches!(self, Self::Open | Self::Closing | Self::Written { .. })
    }
}

/// Entry of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Open(u8),
    Close(u8),
}

impl Item {
    pub(super) fn session(self) -> u8 {
        match self {
            Self::Open(at) | Self::Close(at) => at,
        }
    }
}

/// Message of dispatch to t3-trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Register(u8),
    Done(u8, bool),
}

impl Message {
    pub(super) fn session(self) -> u8 {
        match self {
            Self::Register(at) | Self::Done(at, _) => at,
        }
    }
}

/// Entry of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stored {
    Open,
    Reported,
    Unkept,
    Pending,
}

/// Content of the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Spool {
    pub(super) entries: BTreeMap<u8, Stored>,
    /// Entries of the journal that a pass has read.
    pub(super) cursor: usize,
}

/// Next step of a pass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    Idle,
    Sync,
    Scan,
    /// With the closes of the scan.
    SyncAgain {
        cursor: usize,
        seen: Vec<u8>,
    },
    Reconcile {
        cursor: usize,
    },
    Search {
        cursor: usize,
    },
    Finish {
        cursor: usize,
        recorded: Vec<u8>,
    },
}

/// Process of t3-trace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Trace {
    pub(super) ledger: Ledger<u8, ()>,
    /// Sessions that the connected dispatch registered.
    pub(super) registered: Vec<u8>,
    pub(super) pass: Pass,
    /// Queue to journald.
    pub(super) writer: Vec<u8>,
    /// Outcomes that the ledger does not have.
    pub(super) outcomes: Vec<u8>,
    /// The spool once its thread has written everything.
    pub(super) spool: Spool,
}

/// Step after which nothing named a session any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cause {
    DispatchKilled,
    TraceKilled,
    JournaldKilled,
    DiskFull,
    PowerLost,
    /// No failure: a fault of the protocol.
    Forgotten,
}

/// Knowledge of an observer about one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Observed {
    /// Generation of its dispatch.
    pub(super) dispatch: u8,
    /// Its open is in the socket of journald, or its registration in the spool.
    pub(super) is_opened: bool,
    /// The connection or t3-trace ended before the report of its record was in the spool.
    pub(super) is_report_lost: bool,
    /// t3-trace had no room for its record, and counted it as lost.
    pub(super) is_counted_lost: bool,
    /// The spool had it, or a spool or journal that a power loss leaves.
    pub(super) was_in_spool: bool,
    pub(super) was_on_disk: bool,
    pub(super) lost_by: Option<Cause>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) sessions: Vec<Session>,
    pub(super) observed: Vec<Observed>,
    pub(super) is_dispatch_alive: bool,
    /// Of the present or the last dispatch.
    pub(super) generation: u8,
    /// Queue of dispatch to journald.
    pub(super) records: Vec<Item>,
    /// dispatch has a connection; after its death until t3-trace has noticed.
    pub(super) is_connected: bool,
    /// What t3-trace has not read of it.
    pub(super) messages: Vec<Message>,
    /// Reports without a connection.
    pub(super) undelivered: Vec<Message>,
    pub(super) trace: Option<Trace>,
    /// The spool as the kernel has it, and as the disk has it.
    pub(super) cached: Spool,
    pub(super) synced: Spool,
    /// Buffer of the socket of journald; it survives journald.
    pub(super) socket: Vec<Item>,
    pub(super) journal: Vec<Item>,
    /// Entries of it that are on disk.
    pub(super) journal_synced: usize,
    pub(super) is_full: bool,
    pub(super) left: Left,
}

/// Name of a session in the ledger.
pub(super) fn name(at: u8) -> &'static str {
    ["a", "b"][usize::from(at)]
}

/// Session of a name.
pub(super) fn session(name: &str) -> u8 {
    u8::from(name == "b")
}

impl State {
    /// Both processes run, nothing is open.
    pub(super) fn new(sessions: usize, left: Left) -> Self {
        Self {
            sessions: vec![Session::New; sessions],
            observed: vec![Observed::default(); sessions],
            is_dispatch_alive: true,
            generation: 1,
            records: Vec::new(),
            is_connected: true,
            messages: Vec::new(),
            undelivered: Vec::new(),
            trace: Some(Trace::start(&Spool::default())),
            cached: Spool::default(),
            synced: Spool::default(),
            socket: Vec::new(),
            journal: Vec::new(),
            journal_synced: 0,
            is_full: false,
            left,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u8> + use<> {
        (0..2).take(self.sessions.len())
    }

    /// Number of closes in the journal.
    pub(super) fn closes(&self, at: u8) -> usize {
        self.journal.iter().filter(|item| **item == Item::Close(at)).count()
    }

    /// dispatch has the session, and it has not ended.
    pub(super) fn is_open(&self, at: u8) -> bool {
        self.is_dispatch_alive && self.sessions[usize::from(at)] == Session::Open
    }

    /// A process, a queue or a disk names the session.
    pub(super) fn is_known(&self, at: u8, rules: Rules) -> bool {
        let session = self.sessions[usize::from(at)];
        let is_reported = rules.report_again && matches!(session, Session::Reported { .. });
        let in_spool = || match &self.trace {
            Some(trace) => trace.ledger.get(name(at)).is_some(),
            None => self.cached.entries.contains_key(&at),
        };
        self.is_dispatch_alive && (session.is_held() || is_reported)
            || self.messages.iter().chain(&self.undelivered).any(|message| message.session() == at)
            || self.socket.iter().chain(&self.journal).any(|item| item.session() == at)
            || in_spool()
    }
}

impl Trace {
    /// A new process with what an earlier one left in the spool.
    pub(super) fn start(spool: &Spool) -> Self {
        let entry = |(at, stored): (&u8, &Stored)| {
            let state = match stored {
                Stored::Open => Progress::Open,
                Stored::Reported => Progress::Reported(()),
                Stored::Unkept => Progress::Unkept,
                Stored::Pending => Progress::Pending(()),
            };
            (name(*at).to_owned(), Entry::new(*at, state))
        };
        Self {
            ledger: Ledger::restore(spool.entries.iter().map(entry)),
            registered: Vec::new(),
            pass: Pass::Idle,
            writer: Vec::new(),
            outcomes: Vec::new(),
            spool: spool.clone(),
        }
    }

    pub(super) fn has_room(&self, rules: Rules) -> bool {
        self.ledger.records() < rules.room
    }

    /// Hands the changes of the ledger to the thread of the spool.
    pub(super) fn persist(&mut self) {
        for (conn, entry) in self.ledger.take_changes() {
            let stored = entry.map(|entry| match entry.state {
                Progress::Open | Progress::Claimed => Stored::Open,
                Progress::Reported(()) => Stored::Reported,
                Progress::Unkept => Stored::Unkept,
                Progress::Pending(()) | Progress::Sent { .. } => Stored::Pending,
            });
            match stored {
                Some(stored) => self.spool.entries.insert(session(&conn), stored),
                None => self.spool.entries.remove(&session(&conn)),
            };
        }
    }
}
