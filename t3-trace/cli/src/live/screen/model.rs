//! State of the screen: items enter by [`Model::receive`], user actions by [`Model::act`].
//! Reads no clock and no terminal. Bounded.

use t3_record::{CloseRecord, TcpCloseRecord, vocabulary::Verdict};

use super::{
    closes::Closes, filter::Filter, keys::Action, link::Source, overlay::Overlay, sessions::SessionTable,
};
use crate::{
    live::{
        dedup::Dedup,
        replay::{AROUND, Record, Replay},
        source::Item,
    },
    present::via::ViaFilter,
};

/// Complete seconds over which the rate is averaged.
const RATE_SECONDS: u64 = SECONDS as u64 - 1;
/// Those and the current second.
const SECONDS: usize = 11;

/// The list that receives the keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Focus {
    #[default]
    Closes,
    Sessions,
}

/// Side effect of an action on the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    Quit,
    /// Stop the process group, as Ctrl-Z does in other programs.
    Suspend,
    Redraw,
}

/// The state of the screen.
#[derive(Debug, Default)]
pub struct Model {
    /// Now, in seconds since the epoch.
    pub now: u64,
    /// Start of the program, in seconds since the epoch.
    pub since: u64,
    pub closes: Closes,
    pub sessions: SessionTable,
    pub source: Source,
    /// The list that receives the keys.
    pub focus: Focus,
    pub overlay: Overlay,
    /// Scroll offset of the overlay, in lines.
    pub scroll: usize,
    scroll_most: usize,
    scroll_page: usize,
    /// Closes that are shown.
    pub via: ViaFilter,
    /// Connections that t3-dispatch did not carry, among all.
    direct: u64,
    counts: [u64; Verdict::ALL.len()],
    latest: [u64; SECONDS],
    dedup: Dedup,
}

impl Model {
    /// An empty screen.
    #[must_use]
    pub fn new(now: u64, filter: Filter) -> Self {
        let mut model = Self { now, since: now, ..Self::default() };
        model.closes.set_filter(filter);
        model
    }

    /// Sets the time; returns whether the display changes.
    pub fn tick(&mut self, now: u64) -> bool {
        let changed = now != self.now;
        if now < self.now {
            // The clock was set back: the counts belong to unknown seconds.
            self.latest = Default::default();
            self.since = self.since.min(now);
        }
        for second in (self.now.saturating_add(1)..=now).rev().take(SECONDS) {
            self.latest[slot(second)] = 0;
        }
        self.now = now;
        changed
    }

    pub fn receive(&mut self, item: Item) {
        match item {
            Item::Closed(record, at) => self.closed(record, at),
            Item::Direct(record, at) => self.direct_closed(record, at),
            Item::Skipped(messages) => self.source.skipped(messages, self.now),
            Item::Connected(daemon) => {
                self.sessions.forget();
                self.source.connected(&daemon, self.now);
            }
            Item::Disconnected(why) => {
                self.sessions.forget();
                self.source.disconnected(why, self.now);
            }
            Item::Sessions(part) => {
                if self.sessions.receive(*part) {
                    self.source.sessions_at = Some(self.now);
                }
            }
            Item::Status(status) => {
                self.source.kernel = status.kernel.or(self.source.kernel);
                self.source.status = Some(*status);
            }
            Item::Message(text) => self.source.add_message(self.now, text),
        }
    }

    /// Shows a past moment.
    pub fn replay(&mut self, replay: &Replay) {
        self.now = replay.at;
        self.since = replay.at.saturating_sub(AROUND);
        self.source.link = super::link::Link::Replay { limits: replay.limits() };
        for close in &replay.closes {
            let at = close.at_ms / 1000;
            match &close.record {
                Record::Session(record) => self.closed(record.clone(), at),
                Record::Direct(record) => self.direct_closed(record.clone(), at),
            }
        }
        self.sessions.receive(replay.sessions());
    }

    fn closed(&mut self, record: Box<CloseRecord>, at: u64) {
        if self.via.has_sessions() && self.dedup.first_time(&record.conn) {
            self.count(record.verdict, record.lost);
            self.closes.push(record, at);
        }
    }

    fn direct_closed(&mut self, record: Box<TcpCloseRecord>, at: u64) {
        if self.via.has_direct() && self.dedup.first_time(&record.conn) {
            self.count(record.verdict, record.lost);
            self.direct += 1;
            self.closes.push_direct(record, at);
        }
    }

    fn count(&mut self, verdict: Verdict, lost: Option<u64>) {
        if let Some(count) = index(verdict).and_then(|index| self.counts.get_mut(index)) {
            *count += 1;
        }
        self.latest[slot(self.now)] += 1;
        self.source.lost = self.source.lost.saturating_add(lost.unwrap_or(0));
    }

    /// Number of connections that t3-dispatch did not carry, among the closes since the start.
    #[must_use]
    pub const fn total_direct(&self) -> u64 {
        self.direct
    }

    /// Closes per verdict that occurred, the most frequent first.
    #[must_use]
    pub fn totals(&self) -> Vec<(Verdict, u64)> {
        let all = Verdict::ALL.iter().copied().zip(self.counts);
        let mut totals: Vec<_> = all.filter(|(_, count)| *count > 0).collect();
        totals.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        totals
    }

    /// Number of closes since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Closes per second over the last ten complete seconds.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let this = self.latest[slot(self.now)];
        #[expect(clippy::cast_precision_loss, reason = "a displayed rate")]
        let rate = match self.now.saturating_sub(self.since).min(RATE_SECONDS) {
            0 => this as f64,
            seconds => (self.latest.iter().sum::<u64>() - this) as f64 / seconds as f64,
        };
        rate
    }

    /// Sets the page height and the number of lines of the overlay.
    pub fn set_scroll(&mut self, page: usize, lines: usize) {
        self.scroll_page = page;
        self.scroll_most = lines.saturating_sub(page);
        self.scroll = self.scroll.min(self.scroll_most);
    }

    /// Executes an action.
    pub fn act(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Pause => self.closes.toggle_pause(),
            Action::Help => self.toggle(Overlay::Help, |overlay| matches!(overlay, Overlay::Help)),
            Action::Messages => {
                self.toggle(Overlay::Messages, |overlay| matches!(overlay, Overlay::Messages));
            }
            Action::Back => self.back(),
            Action::Focus => {
                self.focus = if self.focus == Focus::Closes { Focus::Sessions } else { Focus::Closes };
            }
            Action::Step(by) => self.step(by),
            Action::Turn(pages) => self.turn(pages),
            Action::First => self.first(),
            Action::Last => self.last(),
            Action::Open => self.open(),
            Action::Neighbour(by) => self.neighbour(by),
            Action::Prompt => {
                let text = self.closes.filter().to_string();
                let text = if text.is_empty() { text } else { text + " " };
                self.overlay = Overlay::Prompt { text, error: None };
            }
            Action::Type(_) | Action::Erase | Action::EraseWord | Action::EraseAll => self.edit(action),
            Action::Accept => self.accept(),
            Action::OnlyUser | Action::OnlyVerdict | Action::OnlySegment => self.only(action),
            Action::ClearFilter => self.closes.set_filter(Filter::default()),
        }
        Effect::Nothing
    }

    fn toggle(&mut self, wanted: Overlay, is: impl Fn(&Overlay) -> bool) {
        self.overlay = if is(&self.overlay) { Overlay::Nothing } else { wanted };
        // Messages open at the latest.
        self.scroll = if matches!(self.overlay, Overlay::Messages) { usize::MAX } else { 0 };
    }

    fn back(&mut self) {
        if !matches!(self.overlay, Overlay::Nothing) {
            self.overlay = Overlay::Nothing;
        } else if self.focus == Focus::Sessions {
            self.sessions.unselect();
            self.focus = Focus::Closes;
        } else {
            self.closes.follow();
        }
    }

    /// Whether an overlay is scrolled in place of the lists.
    const fn has_overlay(&self) -> bool {
        !matches!(self.overlay, Overlay::Nothing | Overlay::Prompt { .. })
    }

    fn step(&mut self, by: isize) {
        if self.has_overlay() {
            self.scroll = self.scroll.saturating_add_signed(by).min(self.scroll_most);
        } else if self.focus == Focus::Closes {
            self.closes.step(by);
        } else {
            self.sessions.step(by);
        }
    }

    fn turn(&mut self, pages: isize) {
        if self.has_overlay() {
            let page = isize::try_from(self.scroll_page.saturating_sub(1).max(1)).unwrap_or(1);
            self.step(pages.saturating_mul(page));
        } else if self.focus == Focus::Closes {
            self.closes.turn(pages);
        } else {
            self.sessions.turn(pages);
        }
    }

    fn first(&mut self) {
        if self.has_overlay() {
            self.scroll = 0;
        } else if self.focus == Focus::Closes {
            self.closes.first();
        } else {
            self.sessions.step(isize::MIN);
        }
    }

    fn last(&mut self) {
        if self.has_overlay() {
            self.scroll = self.scroll_most;
        } else if self.focus == Focus::Closes {
            self.closes.follow();
        } else {
            self.sessions.step(isize::MAX);
        }
    }

    fn open(&mut self) {
        if self.focus == Focus::Sessions {
            if let Some(row) = self.sessions.selected() {
                let mut filter = self.closes.filter().clone();
                filter.only_user(&row.session.user);
                self.closes.set_filter(filter);
                self.focus = Focus::Closes;
            } else {
                self.sessions.step(0);
            }
            return;
        }
        if self.closes.selected().is_none() {
            self.closes.step(-1);
        }
        self.show_selected();
    }

    fn show_selected(&mut self) {
        if let Some(close) = self.closes.selected() {
            (self.overlay, self.scroll) = (Overlay::Detail(close.clone()), 0);
        }
    }

    /// Shows the previous or next close.
    fn neighbour(&mut self, by: isize) {
        let before = self.closes.selected().map(|close| close.seq);
        self.closes.step(by);
        if self.closes.selected().is_none() {
            // Stay at the last close.
            self.closes.step(-1);
        }
        if self.closes.selected().map(|close| close.seq) != before {
            self.show_selected();
        }
    }

    fn edit(&mut self, action: Action) {
        /// Limit of a typed filter, in bytes.
        const LONGEST: usize = 500;
        let Overlay::Prompt { text, error } = &mut self.overlay else { return };
        match action {
            Action::Type(c) if text.len() < LONGEST => text.push(c),
            Action::Erase => drop(text.pop()),
            Action::EraseWord => {
                let kept = text.trim_end().rfind(' ').map_or(0, |blank| blank + 1);
                text.truncate(kept);
            }
            Action::EraseAll => text.clear(),
            _ => {}
        }
        *error = None;
    }

    fn accept(&mut self) {
        let Overlay::Prompt { text, error } = &mut self.overlay else { return };
        match text.parse() {
            Ok(filter) => {
                self.closes.set_filter(filter);
                self.overlay = Overlay::Nothing;
            }
            Err(bad) => *error = Some(super::filter::BadFilter::to_string(&bad)),
        }
    }

    /// Filters by the selected close (or by the selected session's user).
    fn only(&mut self, action: Action) {
        let mut filter = self.closes.filter().clone();
        let of_session = self.sessions.selected().filter(|_| self.focus == Focus::Sessions);
        let close = match &self.overlay {
            Overlay::Detail(close) => Some(close),
            _ => self.closes.selected(),
        };
        match (action, of_session, close) {
            (Action::OnlyUser, Some(row), _) => filter.only_user(&row.session.user),
            (Action::OnlyUser, None, Some(close)) => filter.only_user(&close.record.user),
            (Action::OnlyVerdict, _, Some(close)) => filter.only_verdict(close.record.verdict),
            (Action::OnlySegment, _, Some(close)) => filter.only_segment(close.record.segment),
            _ => {
                return self
                    .source
                    .add_message(self.now, "select a close first, with the arrow keys".to_owned());
            }
        }
        self.closes.set_filter(filter);
    }
}

/// Index of a second in `latest`.
const fn slot(second: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "less than eleven")]
    let slot = (second % SECONDS as u64) as usize;
    slot
}

fn index(verdict: Verdict) -> Option<usize> {
    Verdict::ALL.iter().position(|known| *known == verdict)
}

#[cfg(test)]
mod tests;
