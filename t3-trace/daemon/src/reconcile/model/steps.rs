//! Steps of the model: one atomic action of one process, of the disk, or of a failure.

use std::collections::BTreeSet;

use super::{
    super::ledger::State as Progress,
    state::{Cause, Item, Message, Pass, Rules, Session, Spool, State, Stored, Trace, name, session},
};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    // dispatch
    Open(u8),
    End(u8),
    /// Its queue is full.
    EndWithoutRoom(u8),
    /// The socket of journald accepts the first record of the queue.
    Send,
    Report(u8),
    Connect,
    /// t3-trace did not read for too long: what it has not read is lost.
    Disconnect,
    KillDispatch {
        /// Messages that the socket to t3-trace had accepted.
        sent: usize,
    },
    StartDispatch,
    // t3-trace
    Read,
    /// The connection ended, and dispatch is gone.
    Claim,
    /// The evidence of a claimed session is there.
    Abandon(u8),
    StartPass,
    Sync,
    Scan,
    SyncAgain,
    Reconcile,
    Search,
    Finish,
    AbortPass,
    SendRewritten,
    DropRewritten,
    Outcome,
    /// The thread of the spool has written.
    Flush,
    SyncSpool,
    KillTrace,
    StartTrace,
    // journald
    Write,
    /// Killed with this many entries taken from the socket and not written; the socket itself stays
    /// with systemd. If it does not, all are lost.
    KillJournald {
        lost: usize,
    },
    Fill,
    Free,
    // The host
    LosePower {
        /// Entries that the journal keeps.
        journal: usize,
        /// The spool keeps what was not synced: a reboot, or luck.
        cached: bool,
    },
}

impl State {
    /// Steps that are possible now.
    pub(super) fn steps(&self) -> Vec<Step> {
        if self.sessions.len() > 1
            && let Some(step) = self.follow_up()
        {
            return vec![step];
        }
        let mut steps = Vec::new();
        let left = self.left;
        if self.is_dispatch_alive {
            self.steps_of_dispatch(&mut steps);
        } else if !self.is_connected && self.sessions.contains(&Session::New) {
            steps.push(Step::StartDispatch);
        }
        match &self.trace {
            Some(trace) => self.steps_of_trace(trace, &mut steps),
            None => steps.push(Step::StartTrace),
        }
        if self.cached != self.synced {
            steps.push(Step::SyncSpool);
        }
        if !self.socket.is_empty() {
            steps.push(Step::Write);
            if left.kills > 0 {
                steps.extend((1..=self.socket.len()).map(|lost| Step::KillJournald { lost }));
            }
        }
        if self.is_full {
            steps.push(Step::Free);
        } else if left.fills > 0 {
            steps.push(Step::Fill);
        }
        if left.power > 0 {
            for journal in self.journal_synced..=self.journal.len() {
                steps.push(Step::LosePower { journal, cached: true });
                if self.cached != self.synced {
                    steps.push(Step::LosePower { journal, cached: false });
                }
            }
        }
        steps
    }

    /// With two sessions, some steps of one process that follow each other are one step, or there
    /// are too many states.
    fn follow_up(&self) -> Option<Step> {
        let written = |at: &u8| matches!(self.sessions[usize::from(*at)], Session::Written { .. });
        if let Some(at) = self.ids().find(written) {
            return Some(Step::Report(at));
        }
        let trace = self.trace.as_ref()?;
        match trace.pass {
            _ if !trace.outcomes.is_empty() => Some(Step::Outcome),
            Pass::SyncAgain { .. } => Some(Step::SyncAgain),
            Pass::Reconcile { .. } => Some(Step::Reconcile),
            Pass::Finish { .. } => Some(Step::Finish),
            _ => None,
        }
    }

    fn steps_of_dispatch(&self, steps: &mut Vec<Step>) {
        for at in self.ids() {
            match self.sessions[usize::from(at)] {
                // In order: the sessions are alike.
                Session::New if at == 0 || self.sessions[0] != Session::New => steps.push(Step::Open(at)),
                Session::Open => {
                    steps.push(Step::End(at));
                    if self.left.drops > 0 {
                        steps.push(Step::EndWithoutRoom(at));
                    }
                }
                Session::Written { .. } => steps.push(Step::Report(at)),
                Session::New | Session::Closing | Session::Reported { .. } | Session::Gone => {}
            }
        }
        if !self.records.is_empty() {
            steps.push(Step::Send);
        }
        if !self.is_connected && self.trace.is_some() {
            steps.push(Step::Connect);
        }
        if self.left.kills > 0 {
            if !self.messages.is_empty() {
                steps.push(Step::Disconnect);
            }
            steps.extend((0..=self.messages.len()).map(|sent| Step::KillDispatch { sent }));
        }
    }

    /// dispatch is dead, and t3-trace handles the end of its connection.
    pub(super) fn has_left(&self, trace: &Trace) -> bool {
        !self.is_dispatch_alive && (self.is_connected || !trace.registered.is_empty())
    }

    fn steps_of_trace(&self, trace: &Trace, steps: &mut Vec<Step>) {
        if !self.messages.is_empty() {
            steps.push(Step::Read);
        } else if self.has_left(trace) {
            steps.push(Step::Claim);
        }
        let is_claimed = |at: &u8| {
            trace.ledger.get(name(*at)).is_some_and(|entry| matches!(entry.state, Progress::Claimed))
        };
        steps.extend(self.ids().filter(is_claimed).map(Step::Abandon));
        steps.push(match trace.pass {
            Pass::Idle => Step::StartPass,
            Pass::Sync => Step::Sync,
            Pass::Scan => Step::Scan,
            Pass::SyncAgain { .. } => Step::SyncAgain,
            Pass::Reconcile { .. } => Step::Reconcile,
            Pass::Search { .. } => Step::Search,
            Pass::Finish { .. } => Step::Finish,
        });
        // From any later step it has the same result as after a scan.
        if self.sessions.len() == 1
            && matches!(trace.pass, Pass::Scan | Pass::SyncAgain { .. } | Pass::Search { .. })
        {
            steps.push(Step::AbortPass);
        }
        if !trace.writer.is_empty() {
            steps.push(Step::SendRewritten);
            if self.left.drops > 0 {
                steps.push(Step::DropRewritten);
            }
        }
        if !trace.outcomes.is_empty() {
            steps.push(Step::Outcome);
        }
        if trace.spool != self.cached {
            steps.push(Step::Flush);
        }
        if self.left.kills > 0 {
            steps.push(Step::KillTrace);
        }
    }

    /// The state after a step.
    pub(super) fn after(&self, step: Step, rules: Rules) -> Self {
        let mut next = self.clone();
        next.apply(step, rules);
        // What no failure can tell apart any more is one state.
        if next.left.power == 0 {
            if next.left.kills == 0
                && let Some(trace) = &next.trace
                && trace.spool != next.cached
            {
                next.cached = trace.spool.clone();
            }
            if next.synced != next.cached {
                next.synced = next.cached.clone();
            }
            next.journal_synced = next.journal.len();
        }
        for at in self.ids() {
            next.observe(at, step, rules);
        }
        next
    }

    fn observe(&mut self, at: u8, step: Step, rules: Rules) {
        let open = Item::Open(at);
        let is_known = self.is_known(at, rules);
        let observed = &mut self.observed[usize::from(at)];
        observed.was_in_spool |= self.cached.entries.contains_key(&at);
        observed.was_on_disk |=
            self.synced.entries.contains_key(&at) || self.journal[..self.journal_synced].contains(&open);
        observed.is_opened |= observed.was_in_spool || self.socket.contains(&open);
        if observed.is_opened && observed.lost_by.is_none() && !observed.is_counted_lost && !is_known {
            observed.lost_by = Some(match step {
                Step::KillDispatch { .. } if !observed.was_in_spool => Cause::DispatchKilled,
                Step::KillTrace if !observed.was_in_spool => Cause::TraceKilled,
                Step::KillJournald { .. } if !observed.was_in_spool => Cause::JournaldKilled,
                Step::Write | Step::Sync | Step::SyncAgain if !observed.was_in_spool => Cause::DiskFull,
                Step::LosePower { .. } if !observed.was_on_disk => Cause::PowerLost,
                _ => Cause::Forgotten,
            });
        }
    }

    fn apply(&mut self, step: Step, rules: Rules) {
        match step {
            Step::Open(at) => {
                self.observed[usize::from(at)].dispatch = self.generation;
                self.sessions[usize::from(at)] = Session::Open;
                self.records.push(Item::Open(at));
                if self.is_connected {
                    self.messages.push(Message::Register(at));
                }
            }
            Step::End(at) => {
                self.sessions[usize::from(at)] = Session::Closing;
                self.records.push(Item::Close(at));
            }
            Step::EndWithoutRoom(at) => {
                self.left.drops -= 1;
                self.sessions[usize::from(at)] = Session::Written { lost: true };
            }
            Step::Send => {
                let item = self.records.remove(0);
                self.socket.push(item);
                if let Item::Close(at) = item {
                    self.sessions[usize::from(at)] = Session::Written { lost: false };
                }
            }
            Step::Report(at) => self.report(at),
            Step::Connect => self.connect(rules),
            Step::Disconnect => {
                self.left.kills -= 1;
                self.disconnect();
            }
            Step::KillDispatch { sent } => {
                self.left.kills = self.left.kills.saturating_sub(1);
                self.messages.truncate(sent);
                self.end_dispatch();
            }
            Step::StartDispatch => {
                self.is_dispatch_alive = true;
                self.generation += 1;
            }
            Step::Write => self.write(),
            Step::KillJournald { lost } => {
                self.left.kills -= 1;
                self.socket.drain(..lost);
            }
            Step::Fill => {
                self.left.fills -= 1;
                self.is_full = true;
            }
            Step::Free => self.is_full = false,
            Step::LosePower { journal, cached } => {
                self.left.power -= 1;
                self.lose_power(journal, cached);
            }
            Step::StartTrace => {
                let spool = if rules.restore { self.cached.clone() } else { Spool::default() };
                self.trace = Some(Trace::start(&spool));
            }
            Step::KillTrace => {
                self.left.kills -= 1;
                self.end_trace();
            }
            Step::SyncSpool => self.synced = self.cached.clone(),
            Step::Sync | Step::SyncAgain => {
                if rules.sync {
                    while !self.socket.is_empty() {
                        self.write();
                    }
                    self.journal_synced = self.journal.len();
                }
                self.apply_to_trace(step, rules);
            }
            _ => self.apply_to_trace(step, rules),
        }
    }

    fn report(&mut self, at: u8) {
        let Session::Written { lost } = self.sessions[usize::from(at)] else { return };
        self.sessions[usize::from(at)] = Session::Reported { lost };
        let to = if self.is_connected { &mut self.messages } else { &mut self.undelivered };
        to.push(Message::Done(at, lost));
    }

    fn connect(&mut self, rules: Rules) {
        self.is_connected = true;
        if let Some(trace) = &mut self.trace {
            // What dispatch does not register again is deleted.
            trace.registered.clear();
        }
        let held = self.ids().filter(|at| self.sessions[usize::from(*at)].is_held());
        self.messages = held.map(Message::Register).collect();
        let undelivered = std::mem::take(&mut self.undelivered);
        if rules.report_again {
            self.messages.extend(self.ids().filter_map(|at| match self.sessions[usize::from(at)] {
                Session::Reported { lost } => Some(Message::Done(at, lost)),
                _ => None,
            }));
        } else {
            self.messages.extend(undelivered);
        }
    }

    fn end_dispatch(&mut self) {
        self.is_dispatch_alive = false;
        self.records.clear();
        self.undelivered.clear();
        for session in &mut self.sessions {
            if *session != Session::New {
                *session = Session::Gone;
            }
        }
    }

    fn end_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            let made = trace.spool.entries.into_iter().filter(|(_, stored)| *stored != Stored::Open);
            for (at, stored) in made {
                let is_kept = self.cached.entries.get(&at) == Some(&stored);
                self.observed[usize::from(at)].is_report_lost |= !is_kept;
            }
        }
        self.disconnect();
    }

    fn disconnect(&mut self) {
        self.is_connected = false;
        for message in std::mem::take(&mut self.messages) {
            if let Message::Done(at, _) = message {
                self.observed[usize::from(at)].is_report_lost = true;
            }
        }
    }

    /// journald takes an entry from its socket.
    fn write(&mut self) {
        let item = self.socket.remove(0);
        if !self.is_full {
            self.journal.push(item);
        }
    }

    fn lose_power(&mut self, journal: usize, cached: bool) {
        self.messages.clear();
        self.end_dispatch();
        self.end_trace();
        self.socket.clear();
        self.journal.truncate(journal);
        self.journal_synced = journal;
        if !cached {
            self.cached = self.synced.clone();
        }
        if self.cached.cursor > journal {
            // Its entry is gone: the scan begins from the start.
            self.cached.cursor = 0;
        }
        self.synced = self.cached.clone();
    }

    fn apply_to_trace(&mut self, step: Step, rules: Rules) {
        let Some(mut trace) = self.trace.take() else { return };
        match step {
            Step::Read => self.read(&mut trace, rules),
            Step::Claim => {
                self.is_connected = false;
                for at in std::mem::take(&mut trace.registered) {
                    trace.ledger.claim(name(at), || self.observed[usize::from(at)].dispatch);
                }
            }
            Step::Abandon(at) if trace.has_room(rules) => trace.ledger.abandoned(name(at), ()),
            Step::Abandon(at) => trace.ledger.release(name(at)),
            Step::SendRewritten => {
                let at = trace.writer.remove(0);
                self.socket.push(Item::Close(at));
                trace.outcomes.push(at);
            }
            Step::DropRewritten => {
                self.left.drops -= 1;
                let at = trace.writer.remove(0);
                trace.ledger.sent(name(at), false);
            }
            Step::Outcome => {
                let at = trace.outcomes.remove(0);
                trace.ledger.sent(name(at), true);
            }
            Step::Flush => self.cached = trace.spool.clone(),
            _ => self.pass(step, &mut trace, rules),
        }
        trace.persist();
        self.trace = Some(trace);
    }

    fn read(&mut self, trace: &mut Trace, rules: Rules) {
        let message = self.messages.remove(0);
        let dispatch = self.observed[usize::from(message.session())].dispatch;
        match message {
            Message::Register(at) => {
                trace.ledger.opened(name(at), dispatch);
                trace.registered.push(at);
            }
            Message::Done(at, lost) => {
                if !trace.has_room(rules) {
                    trace.ledger.unkept(name(at), || dispatch);
                } else if rules.keep_reported || lost {
                    trace.ledger.reported(name(at), || dispatch, (), lost);
                } else {
                    trace.ledger.seen(name(at));
                }
                trace.registered.retain(|other| *other != at);
            }
        }
    }

    fn pass(&mut self, step: Step, trace: &mut Trace, rules: Rules) {
        trace.pass = match (step, std::mem::replace(&mut trace.pass, Pass::Idle)) {
            (Step::StartPass, _) => {
                trace.ledger.start_pass();
                Pass::Sync
            }
            (Step::Sync, _) => Pass::Scan,
            (Step::Scan, _) => self.scan(trace, rules),
            (Step::SyncAgain, Pass::SyncAgain { cursor, seen }) => {
                for at in seen {
                    trace.ledger.seen(name(at));
                }
                Pass::Reconcile { cursor }
            }
            (Step::Reconcile, Pass::Reconcile { cursor }) => {
                let is_alive = |dispatch| self.is_dispatch_alive && dispatch == self.generation;
                let open: Vec<_> = trace.ledger.open().map(|(conn, _)| session(conn)).collect();
                for at in open.into_iter().filter(|at| !trace.registered.contains(at)) {
                    let dispatch = self.observed[usize::from(at)].dispatch;
                    if !trace.has_room(rules) {
                        break;
                    }
                    if !is_alive(dispatch) && trace.ledger.claim(name(at), || dispatch) {
                        trace.ledger.abandoned(name(at), ());
                    }
                }
                Pass::Search { cursor }
            }
            (Step::Search, Pass::Search { cursor }) => {
                let due = trace.ledger.due().into_iter().map(|conn| session(&conn));
                let recorded = due.filter(|at| rules.search && self.closes(*at) > 0).collect();
                Pass::Finish { cursor, recorded }
            }
            (Step::Finish, Pass::Finish { cursor, recorded }) => {
                let recorded: BTreeSet<_> = recorded.into_iter().map(name).collect();
                let unkept: Vec<_> = trace.ledger.due_unkept().map(session).collect();
                let writes = trace.ledger.finish_pass(&recorded);
                for at in unkept.into_iter().filter(|at| !recorded.contains(name(*at))) {
                    self.observed[usize::from(at)].is_counted_lost = true;
                    trace.ledger.give_up(name(at));
                }
                trace.writer.extend(writes.iter().map(|write| session(&write.conn)));
                trace.spool.cursor = cursor;
                Pass::Idle
            }
            // AbortPass
            _ => Pass::Idle,
        };
    }

    fn scan(&self, trace: &mut Trace, rules: Rules) -> Pass {
        let (mut opens, mut closes) = (Vec::new(), Vec::new());
        for item in &self.journal[trace.spool.cursor..] {
            match item {
                Item::Open(at) => opens.push(*at),
                Item::Close(at) => {
                    opens.retain(|other| other != at);
                    closes.push(*at);
                }
            }
        }
        closes.retain(|at| trace.ledger.get(name(*at)).is_some());
        let cursor = self.journal.len();
        for at in opens {
            trace.ledger.found_open(name(at), || self.observed[usize::from(at)].dispatch);
        }
        if rules.sync_after_scan && !closes.is_empty() {
            return Pass::SyncAgain { cursor, seen: closes };
        }
        for at in closes {
            trace.ledger.seen(name(at));
        }
        Pass::Reconcile { cursor }
    }
}
