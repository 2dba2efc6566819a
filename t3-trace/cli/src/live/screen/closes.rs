//! List of closes with filter, selection and pause. Pure and bounded.

use std::{collections::VecDeque, ops::Range};

use t3_record::{CloseRecord, TcpCloseRecord};

use super::{close::Close, filter::Filter};

/// Closes kept; about 15 MB.
pub const KEPT: usize = 10_000;

/// The last closes, oldest first. While paused, new closes are queued and the list does not
/// change.
#[derive(Debug, Default)]
pub struct Closes {
    next: u64,
    kept: VecDeque<Close>,
    waiting: VecDeque<Close>,
    /// Closes received since the pause began.
    paused: Option<u64>,
    filter: Filter,
    /// Those of `kept` that match the filter.
    visible: VecDeque<u64>,
    /// Without a selection the list follows its end.
    selected: Option<u64>,
    /// Line of the selection on the screen, from the top.
    line: usize,
    /// Rows that fit on the screen.
    page: usize,
}

impl Closes {
    /// Adds the close of a session.
    pub fn push(&mut self, record: Box<CloseRecord>, at: u64) {
        self.add(record, None, at);
    }

    /// Adds the close of a connection that t3-dispatch did not carry.
    pub fn push_direct(&mut self, direct: Box<TcpCloseRecord>, at: u64) {
        self.add(Box::new(direct.as_close()), Some(direct), at);
    }

    fn add(&mut self, record: Box<CloseRecord>, direct: Option<Box<TcpCloseRecord>>, at: u64) {
        let close = Close { seq: self.next, at, record, direct };
        self.next += 1;
        match &mut self.paused {
            None => self.keep(close),
            Some(arrived) => {
                *arrived += 1;
                self.waiting.push_back(close);
                if self.waiting.len() > KEPT {
                    self.waiting.pop_front();
                }
            }
        }
    }

    fn keep(&mut self, close: Close) {
        if self.filter.matches(&close) {
            self.visible.push_back(close.seq);
        }
        self.kept.push_back(close);
        if self.kept.len() > KEPT {
            let gone = self.kept.pop_front().map(|close| close.seq);
            if gone.is_some() && self.visible.front().copied() == gone {
                self.visible.pop_front();
            }
            if gone.is_some() && self.selected == gone {
                self.selected = self.visible.front().copied();
            }
        }
    }

    /// Pauses, or resumes with all queued closes.
    pub fn toggle_pause(&mut self) {
        match self.paused.take() {
            None => self.paused = Some(0),
            Some(_) => std::mem::take(&mut self.waiting).into_iter().for_each(|close| self.keep(close)),
        }
    }

    /// Closes received since the pause began; `None` while not paused.
    #[must_use]
    pub const fn paused(&self) -> Option<u64> {
        self.paused
    }

    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Sets the filter; keeps the selection if it still matches.
    pub fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
        self.visible = self.kept.iter().filter(|close| self.filter.matches(close)).map(|c| c.seq).collect();
        if self.selected.is_some_and(|seq| self.visible.binary_search(&seq).is_err()) {
            self.selected = None;
        }
    }

    /// Number of closes kept, and number of those that match the filter.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.kept.len(), self.visible.len())
    }

    /// Sets the number of rows that fit on the screen.
    pub fn set_page(&mut self, page: usize) {
        self.page = page;
        self.line = self.line.min(page.saturating_sub(1));
    }

    #[must_use]
    pub fn selected(&self) -> Option<&Close> {
        self.get(self.selected?)
    }

    fn get(&self, seq: u64) -> Option<&Close> {
        let first = self.kept.front()?.seq;
        self.kept.get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    /// Rows on the screen, and the line of the selection.
    #[must_use]
    pub fn on_screen(&self) -> (Vec<&Close>, Option<usize>) {
        let range = self.window();
        let shown = range.clone().filter_map(|n| self.get(*self.visible.get(n)?)).collect();
        (shown, self.index().map(|index| index.saturating_sub(range.start)))
    }

    fn window(&self) -> Range<usize> {
        let length = self.visible.len();
        let last_top = length.saturating_sub(self.page);
        let top = self.index().map_or(last_top, |index| index.saturating_sub(self.line).min(last_top));
        top..length.min(top + self.page)
    }

    fn index(&self) -> Option<usize> {
        self.visible.binary_search(&self.selected?).ok()
    }

    /// Moves the selection by lines; a step down from the last row follows the end again.
    pub fn step(&mut self, by: isize) {
        let Some(last) = self.visible.len().checked_sub(1) else { return };
        let Some(from) = self.index() else {
            // Without a selection the first step up selects the last row.
            if by < 0 {
                self.line = self.page.min(self.visible.len()).saturating_sub(1);
                self.select(last.saturating_add_signed(by + 1));
            }
            return;
        };
        let top = self.window().start;
        match from.checked_add_signed(by) {
            Some(to) if to > last => self.follow(),
            to => {
                let to = to.unwrap_or(0);
                self.line = (from - top).saturating_add_signed(by).min(self.page.saturating_sub(1));
                self.select(to);
            }
        }
    }

    fn select(&mut self, index: usize) {
        self.selected = self.visible.get(index).copied();
        // The window may not be able to show it at that line.
        self.line = index.saturating_sub(self.window().start);
    }

    /// Moves the selection by pages.
    pub fn turn(&mut self, pages: isize) {
        let page = isize::try_from(self.page.saturating_sub(1).max(1)).unwrap_or(1);
        self.step(pages.saturating_mul(page));
    }

    pub fn first(&mut self) {
        self.line = 0;
        self.select(0);
    }

    /// Clears the selection; the list follows its end.
    pub fn follow(&mut self) {
        self.selected = None;
    }
}

#[cfg(test)]
mod tests {
    use t3_record::vocabulary::{Segment, Verdict};

    use super::*;
    use crate::live::screen::testing::record;

    fn filled(count: u64, page: usize) -> Closes {
        let mut closes = Closes::default();
        closes.set_page(page);
        more(&mut closes, 0..count);
        closes
    }

    fn more(closes: &mut Closes, which: Range<u64>) {
        for n in which {
            let user = if n % 2 == 0 { "even" } else { "odd" };
            closes.push(Box::new(record(&n.to_string(), user, Verdict::ServeOom, Segment::Serve)), n);
        }
    }

    fn shown(closes: &Closes) -> (Vec<u64>, Option<usize>) {
        let (shown, line) = closes.on_screen();
        (shown.iter().map(|close| close.at).collect(), line)
    }

    #[test]
    fn a_selection_stops_following_the_end() {
        let mut closes = filled(10, 4);
        assert_eq!(shown(&closes), (vec![6, 7, 8, 9], None));
        closes.step(-1);
        assert_eq!(shown(&closes), (vec![6, 7, 8, 9], Some(3)));
        closes.step(-1);
        more(&mut closes, 10..15);
        assert_eq!(shown(&closes), (vec![6, 7, 8, 9], Some(2)));
        closes.step(-3);
        assert_eq!(shown(&closes), (vec![5, 6, 7, 8], Some(0)));
        closes.turn(1);
        assert_eq!(shown(&closes), (vec![5, 6, 7, 8], Some(3)));
        closes.turn(1);
        assert_eq!(shown(&closes), (vec![8, 9, 10, 11], Some(3)));
        closes.turn(2);
        assert_eq!(shown(&closes), (vec![11, 12, 13, 14], None), "past the end it follows");
        closes.first();
        assert_eq!(shown(&closes), (vec![0, 1, 2, 3], Some(0)));
        closes.step(-5);
        assert_eq!(shown(&closes), (vec![0, 1, 2, 3], Some(0)));
    }

    #[test]
    fn a_pause_queues_and_counts_new_closes() {
        let mut closes = filled(3, 4);
        closes.toggle_pause();
        more(&mut closes, 3..9);
        assert_eq!((shown(&closes).0, closes.paused()), (vec![0, 1, 2], Some(6)));
        closes.toggle_pause();
        assert_eq!((shown(&closes).0, closes.paused()), (vec![5, 6, 7, 8], None));
        assert_eq!(closes.counts(), (9, 9));
    }

    #[test]
    fn memory_is_bounded_and_a_paused_list_does_not_change() {
        let kept = u64::try_from(KEPT).unwrap();
        let mut closes = filled(5, 3);
        closes.first();
        closes.toggle_pause();
        more(&mut closes, 5..3 * kept);
        assert_eq!(shown(&closes).0, [0, 1, 2]);
        assert_eq!((closes.kept.len(), closes.waiting.len()), (5, KEPT));
        closes.toggle_pause();
        assert_eq!((closes.kept.len(), closes.waiting.len(), closes.visible.len()), (KEPT, 0, KEPT));
        // The selected close was dropped; the oldest is selected.
        assert_eq!(shown(&closes), (vec![2 * kept, 2 * kept + 1, 2 * kept + 2], Some(0)));
    }

    #[test]
    fn a_filter_keeps_a_matching_selection() {
        let mut closes = filled(10, 4);
        closes.step(-2);
        assert_eq!(closes.selected().map(|close| close.at), Some(8));
        closes.set_filter("user:even".parse().unwrap());
        more(&mut closes, 10..13);
        assert_eq!(closes.counts(), (13, 7));
        assert_eq!(closes.selected().map(|close| close.at), Some(8));
        closes.set_filter("user:odd".parse().unwrap());
        assert_eq!(shown(&closes), (vec![5, 7, 9, 11], None));
        closes.set_filter("user:nobody".parse().unwrap());
        closes.step(-1);
        closes.turn(-1);
        closes.first();
        assert_eq!(shown(&closes), (vec![], None));
    }

    #[test]
    fn a_screen_without_rows_works() {
        let mut closes = filled(10, 0);
        for by in [-1, 1, -20, 20] {
            closes.step(by);
            closes.turn(by);
            assert_eq!(shown(&closes).0, [0; 0]);
        }
        closes.set_page(1);
        closes.first();
        closes.step(1);
        assert_eq!(shown(&closes), (vec![1], Some(0)));
    }

    proptest::proptest! {
        #[test]
        fn the_selection_is_always_on_the_screen(
            steps in proptest::collection::vec((0..8_u8, -7..7_isize), 0..60)
        ) {
            let (mut closes, mut came) = (Closes::default(), 0);
            for (step, by) in steps {
                let size = by.unsigned_abs();
                match step {
                    0 => {
                        more(&mut closes, came..came + size as u64);
                        came += size as u64;
                    }
                    1 => closes.toggle_pause(),
                    2 => closes.set_filter(["", "user:even", "user:odd", "nothing"][size % 4].parse().unwrap()),
                    3 => closes.set_page(size),
                    4 => closes.step(by),
                    5 => closes.turn(by),
                    6 => closes.first(),
                    _ => closes.follow(),
                }
                let (shown, line) = closes.on_screen();
                proptest::prop_assert!(shown.len() <= closes.page);
                proptest::prop_assert!(shown.is_sorted_by_key(|close| close.seq));
                let full = closes.page.min(closes.visible.len());
                proptest::prop_assert_eq!(shown.len(), full, "the screen is used");
                if let Some(selected) = closes.selected().filter(|_| closes.page > 0) {
                    let there = line.and_then(|line| shown.get(line)).map(|close| close.seq);
                    proptest::prop_assert_eq!(there, Some(selected.seq));
                }
                let total = closes.kept.len() + closes.waiting.len();
                proptest::prop_assert_eq!(total as u64, came, "none is lost");
            }
        }
    }
}
