//! Open sessions as the daemon reports them, in a stable order, with rates between reports. Pure.

use std::collections::HashMap;

use t3_record::{
    evidence::Nanos,
    wire::live::{MOST_SESSIONS, OpenSession, PressureStats, SessionStats, Sessions},
};

/// Time from which an unanswered ping is highlighted, in milliseconds.
pub const UNANSWERED_MS: u64 = 1000;
/// Shortest time between two reports for which rates are computed, in nanoseconds.
const MIN_INTERVAL: Nanos = 100_000_000;

/// One open session and its rates in bytes per second.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub session: OpenSession,
    /// From the client.
    pub down_rate: Option<u64>,
    /// From serve.
    pub up_rate: Option<u64>,
}

impl Row {
    /// Time since an unanswered ping, from [`UNANSWERED_MS`] on.
    #[must_use]
    pub fn unanswered_ms(&self) -> Option<u64> {
        self.session.live.and_then(|live| live.wait_ms).filter(|wait| *wait >= UNANSWERED_MS)
    }
}

#[derive(Debug, Default)]
pub struct SessionTable {
    /// Time of the last report; `None` before the first.
    at: Option<Nanos>,
    /// Number of open sessions.
    pub open: u64,
    /// Whether t3-dispatch is connected to the daemon.
    pub dispatch: bool,
    /// Pressure of the host.
    pub host: Option<PressureStats>,
    rows: Vec<Row>,
    parts: Vec<OpenSession>,
    selected: Option<String>,
    top: usize,
    page: usize,
}

impl SessionTable {
    /// Adds one part of a report; returns whether the report is complete.
    pub fn receive(&mut self, part: Sessions) -> bool {
        self.parts.extend(part.sessions);
        self.parts.truncate(MOST_SESSIONS);
        if part.more {
            return false;
        }
        let between = self.at.map_or(0, |before| part.at.saturating_sub(before));
        let before: HashMap<String, OpenSession> = std::mem::take(&mut self.rows)
            .into_iter()
            .map(|row| (row.session.conn.clone(), row.session))
            .collect();
        self.rows = std::mem::take(&mut self.parts)
            .into_iter()
            .map(|session| row(before.get(&session.conn), session, between))
            .collect();
        self.rows.sort_by(|a, b| {
            let key = |row: &Row| (std::cmp::Reverse(row.unanswered_ms()), row.session.user.clone());
            // The oldest of a user first: a new session moves only those below it.
            key(a).cmp(&key(b)).then(b.session.age_ms.cmp(&a.session.age_ms))
        });
        (self.at, self.open, self.dispatch, self.host) = (Some(part.at), part.open, part.dispatch, part.host);
        self.settle();
        true
    }

    /// Drops all data.
    pub fn forget(&mut self) {
        *self = Self { page: self.page, ..Self::default() };
    }

    /// Whether a report was received.
    #[must_use]
    pub const fn known(&self) -> bool {
        self.at.is_some()
    }

    /// Number of sessions reported.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.rows.len()
    }

    /// Whether a session has survived a restart of t3-dispatch.
    #[must_use]
    pub fn has_resumed(&self) -> bool {
        self.rows.iter().any(|row| row.session.resumed > 0)
    }

    /// Sets the number of rows that fit on the screen.
    pub fn set_page(&mut self, page: usize) {
        self.page = page;
        self.settle();
    }

    /// Rows on the screen, and the line of the selection.
    #[must_use]
    pub fn on_screen(&self) -> (&[Row], Option<usize>) {
        let end = self.rows.len().min(self.top + self.page);
        let line = self.index().and_then(|index| index.checked_sub(self.top));
        (self.rows.get(self.top..end).unwrap_or_default(), line)
    }

    #[must_use]
    pub fn selected(&self) -> Option<&Row> {
        self.rows.get(self.index()?)
    }

    fn index(&self) -> Option<usize> {
        let conn = self.selected.as_ref()?;
        self.rows.iter().position(|row| row.session.conn == *conn)
    }

    /// Moves the selection by lines.
    pub fn step(&mut self, by: isize) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let to = match self.index() {
            Some(from) => from.saturating_add_signed(by).min(last),
            None => self.top.min(last),
        };
        self.selected = Some(self.rows[to].session.conn.clone());
        self.settle();
    }

    /// Moves the selection by pages.
    pub fn turn(&mut self, pages: isize) {
        let page = isize::try_from(self.page.saturating_sub(1).max(1)).unwrap_or(1);
        self.step(pages.saturating_mul(page));
    }

    pub fn unselect(&mut self) {
        self.selected = None;
        self.top = 0;
    }

    /// Brings the selection into view.
    fn settle(&mut self) {
        match self.index() {
            Some(index) if index < self.top => self.top = index,
            Some(index) if index >= self.top + self.page => self.top = (index + 1).saturating_sub(self.page),
            Some(_) => {}
            None => (self.selected, self.top) = (None, 0),
        }
        self.top = self.top.min(self.rows.len().saturating_sub(self.page));
    }
}

fn row(before: Option<&OpenSession>, session: OpenSession, between: Nanos) -> Row {
    let rate = |count: fn(&SessionStats) -> u64| {
        let before = before?.live.as_ref().map(count)?;
        let bytes = session.live.as_ref().map(count)?.checked_sub(before)?;
        let rate = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(between))?;
        (between >= MIN_INTERVAL).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    };
    Row { down_rate: rate(|live| live.down_bytes), up_rate: rate(|live| live.up_bytes), session }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn session(conn: &str, user: &str, age_ms: u64, bytes: u64, wait_ms: Option<u64>) -> OpenSession {
        let live =
            SessionStats { down_bytes: bytes, up_bytes: 10 * bytes, wait_ms, ..SessionStats::default() };
        OpenSession {
            conn: conn.to_owned(),
            user: user.to_owned(),
            age_ms,
            live: Some(live),
            ..OpenSession::default()
        }
    }

    fn answer(at: Nanos, more: bool, sessions: Vec<OpenSession>) -> Sessions {
        Sessions { at, open: 9, dispatch: true, host: None, more, sessions }
    }

    fn order(table: &SessionTable) -> Vec<&str> {
        table.rows.iter().map(|row| row.session.conn.as_str()).collect()
    }

    #[test]
    fn unanswered_pings_come_first_and_the_order_is_stable() {
        let mut table = SessionTable::default();
        let sent = vec![
            session("a", "zoe", 5, 0, Some(40)),
            session("b", "ann", 5, 0, None),
            session("c", "ann", 9, 0, Some(999)),
            session("d", "zoe", 1, 0, Some(4000)),
            session("e", "bob", 1, 0, Some(9000)),
        ];
        assert!(table.receive(answer(SECOND, false, sent)));
        assert_eq!(order(&table), ["e", "d", "c", "b", "a"]);
    }

    #[test]
    fn parts_form_one_report_and_rates_need_two() {
        let mut table = SessionTable::default();
        assert!(!table.receive(answer(SECOND, true, vec![session("a", "u", 2, 100, None)])));
        assert!(!table.known() && table.rows.is_empty());
        assert!(table.receive(answer(SECOND, false, vec![session("b", "u", 1, 0, None)])));
        assert_eq!((table.sent(), table.rows[0].down_rate), (2, None));
        let sent = vec![session("a", "u", 2, 300, None), session("c", "u", 1, 7, None)];
        table.receive(answer(3 * SECOND, false, sent));
        let rates: Vec<_> = table.rows.iter().map(|row| (row.down_rate, row.up_rate)).collect();
        assert_eq!(rates, [(Some(100), Some(1000)), (None, None)]);
        // A dispatch that restarts the count; and two reports at the same time.
        table.receive(answer(4 * SECOND, false, vec![session("a", "u", 2, 5, None)]));
        assert_eq!(table.rows[0].down_rate, None);
        table.receive(answer(4 * SECOND, false, vec![session("a", "u", 2, 50, None)]));
        assert_eq!(table.rows[0].down_rate, None);
    }

    #[test]
    fn an_endless_report_is_bounded() {
        let mut table = SessionTable::default();
        for n in 0..3 * MOST_SESSIONS {
            table.receive(answer(SECOND, true, vec![session(&n.to_string(), "u", 1, 0, None)]));
        }
        table.receive(answer(SECOND, false, vec![]));
        assert_eq!(table.sent(), MOST_SESSIONS);
    }

    #[test]
    fn the_selection_stays_with_its_session_and_in_view() {
        let all =
            || (0..9).map(|n| session(&n.to_string(), &format!("u{n}"), 1, 0, None)).collect::<Vec<_>>();
        let mut table = SessionTable::default();
        table.set_page(3);
        table.step(1);
        table.receive(answer(SECOND, false, all()));
        table.step(1);
        table.turn(2);
        assert_eq!(table.selected().map(|row| row.session.conn.as_str()), Some("4"));
        assert_eq!(table.on_screen().1, Some(2));
        table.receive(answer(2 * SECOND, false, all().split_off(4)));
        assert_eq!((table.selected().unwrap().session.conn.as_str(), table.on_screen().1), ("4", Some(0)));
        table.receive(answer(3 * SECOND, false, all().split_off(7)));
        assert!(table.selected().is_none());
        assert_eq!(table.on_screen().0.len(), 2);
        table.set_page(0);
        table.step(-1);
        assert!(table.on_screen().0.is_empty());
        table.forget();
        assert!(!table.known());
    }
}
