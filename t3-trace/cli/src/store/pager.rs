//! Division of a time range into pages of Loki. Pure.
//!
//! Loki answers with up to `limit` lines, the earliest (or latest) first, and has no cursor. A full
//! page may end within lines of the same nanosecond, so the next one starts at that nanosecond, and
//! the lines that were there already are dropped: none is lost, and none repeated. A range is read
//! in slices, because Loki limits the length of a query (`max_query_length`, 30 days by default).

use std::collections::{BTreeMap, HashSet};

use crate::server::loki::{Direction, Page, Range};

/// Nanoseconds of a day.
const DAY: i64 = 86_400 * 1_000_000_000;
/// First and longest slice.
const FIRST_SLICE: i64 = DAY;
const LONGEST_SLICE: i64 = 8 * DAY;
const SHORTEST_SLICE: i64 = DAY / 24;
/// Lines per page: Loki's default of `max_entries_limit_per_query`.
const LIMIT: usize = 5_000;
const SMALLEST_LIMIT: usize = 10;

/// A line and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// Nanoseconds since the epoch.
    pub ns: i64,
    pub labels: &'a BTreeMap<String, String>,
    pub text: &'a str,
}

/// Identity of a line at a time: its host and text. A record names its session, so two of one time
/// differ; a line that two shippers sent has different labels and is one line.
type Identity = (String, String);

/// State of a read.
#[derive(Debug)]
pub struct Pager {
    /// Bounds of the unread range, the end excluded.
    from: i64,
    until: i64,
    direction: Direction,
    slice: i64,
    limit: usize,
    /// Lines of [`Self::edge`] that were delivered.
    seen: HashSet<Identity>,
    /// Time of the last line delivered.
    edge: Option<i64>,
}

/// Result of a page.
#[derive(Debug, Default, PartialEq)]
pub struct Delivered<'a> {
    /// Lines that were not there before, in the order of time.
    pub lines: Vec<Found<'a>>,
    /// A time in nanoseconds with more lines than a page has: some of them are missing.
    pub crowded: Option<i64>,
}

impl Pager {
    /// Reads `from` (included) to `until` (excluded), in nanoseconds since the epoch.
    #[must_use]
    pub fn new(from: i64, until: i64, direction: Direction) -> Self {
        let (slice, limit) = (FIRST_SLICE, LIMIT);
        Self { from, until, direction, slice, limit, seen: HashSet::new(), edge: None }
    }

    /// Returns the next request; `None` when all was read.
    #[must_use]
    pub fn next(&self) -> Option<Range> {
        if self.from >= self.until {
            return None;
        }
        let (from, until) = match self.direction {
            Direction::Forward => (self.from, self.until.min(self.from.saturating_add(self.slice))),
            Direction::Backward => (self.from.max(self.until.saturating_sub(self.slice)), self.until),
        };
        Some(Range { from, until, limit: self.limit, direction: self.direction })
    }

    /// Accepts the answer to a request of [`Self::next`].
    pub fn accept<'a>(&mut self, range: Range, page: &'a Page) -> Delivered<'a> {
        let mut lines: Vec<Found<'a>> = Vec::with_capacity(page.lines.len());
        for line in &page.lines {
            // Never outside the request, whatever the server sends.
            if let Some(labels) = page.streams.get(line.stream)
                && (range.from..range.until).contains(&line.ns)
            {
                lines.push(Found { ns: line.ns, labels, text: &line.text });
            }
        }
        match self.direction {
            Direction::Forward => lines.sort_by_key(|line| line.ns),
            Direction::Backward => lines.sort_by_key(|line| std::cmp::Reverse(line.ns)),
        }
        let last = lines.last().map(|line| line.ns);
        lines.retain(|line| self.is_new(line));
        let mut crowded = None;
        match last {
            Some(last) if page.lines.len() >= range.limit => {
                // Again only lines of the time where the last page ended.
                let is_stuck = lines.is_empty();
                crowded = is_stuck.then_some(last);
                match self.direction {
                    Direction::Forward => self.from = last.saturating_add(i64::from(is_stuck)),
                    Direction::Backward => {
                        self.until = if is_stuck { last } else { last.saturating_add(1) };
                    }
                }
            }
            _ => {
                match self.direction {
                    Direction::Forward => self.from = range.until,
                    Direction::Backward => self.until = range.from,
                }
                self.slice = self.slice.saturating_mul(2).min(LONGEST_SLICE);
            }
        }
        Delivered { lines, crowded }
    }

    /// Whether a line was not delivered before; lines come in the order of time.
    fn is_new(&mut self, line: &Found<'_>) -> bool {
        if self.edge != Some(line.ns) {
            self.edge = Some(line.ns);
            self.seen.clear();
        }
        let host = line.labels.get("host").cloned().unwrap_or_default();
        self.seen.insert((host, line.text.to_owned()))
    }

    /// Requests fewer lines per page; `false` at the smallest number.
    pub fn fewer_lines(&mut self) -> bool {
        let smaller = (self.limit / 5).max(SMALLEST_LIMIT);
        std::mem::replace(&mut self.limit, smaller) > smaller
    }

    /// Requests shorter ranges; `false` at the shortest one.
    pub fn shorter_range(&mut self) -> bool {
        let shorter = (self.slice / 4).max(SHORTEST_SLICE);
        std::mem::replace(&mut self.slice, shorter) > shorter
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::loki::Line;

    /// What Loki answers: the first lines in the order of the direction, by stream.
    fn answer(all: &[(i64, usize, String)], range: Range) -> Page {
        let mut lines: Vec<_> =
            all.iter().filter(|(ns, ..)| (range.from..range.until).contains(ns)).cloned().collect();
        match range.direction {
            Direction::Forward => lines.sort_by_key(|(ns, ..)| *ns),
            Direction::Backward => lines.sort_by_key(|(ns, ..)| std::cmp::Reverse(*ns)),
        }
        lines.truncate(range.limit);
        lines.sort_by_key(|(_, stream, _)| *stream);
        let host = |host: &str| BTreeMap::from([("host".to_owned(), host.to_owned())]);
        Page {
            streams: vec![host("a"), host("b")],
            lines: lines.into_iter().map(|(ns, stream, text)| Line { ns, stream, text }).collect(),
            warnings: Vec::new(),
        }
    }

    /// Reads everything; returns times, host and text, the number of pages, and crowded times.
    fn read(
        pager: &mut Pager,
        all: &[(i64, usize, String)],
    ) -> (Vec<(i64, String, String)>, usize, Vec<i64>) {
        let (mut found, mut pages, mut crowded) = (Vec::new(), 0, Vec::new());
        while let Some(range) = pager.next() {
            pages += 1;
            assert!(pages < 10_000, "no progress");
            let page = answer(all, range);
            let got = pager.accept(range, &page);
            crowded.extend(got.crowded);
            found.extend(
                got.lines.iter().map(|line| (line.ns, line.labels["host"].clone(), line.text.to_owned())),
            );
        }
        (found, pages, crowded)
    }

    proptest! {
        #[test]
        fn no_line_is_lost_or_repeated(
            steps in prop::collection::vec((0..3_i64, 0..2_usize), 0..120),
            limit in 4..9_usize, backward: bool, slice in 1..40_i64,
        ) {
            let mut at = 100;
            // Up to three lines of one time: fewer than a page has.
            let mut same = 0;
            let mut all = Vec::new();
            for (n, (step, stream)) in steps.into_iter().enumerate() {
                same = if step == 0 { same + 1 } else { 0 };
                at += if same > 2 { same = 0; 1 } else { step };
                all.push((at, stream, format!("line {n}")));
            }
            let direction = if backward { Direction::Backward } else { Direction::Forward };
            let mut pager = Pager { slice, limit, ..Pager::new(90, 1000, direction) };
            let (found, _, crowded) = read(&mut pager, &all);
            let mut texts: Vec<_> = found.iter().map(|(_, _, text)| text.clone()).collect();
            texts.sort();
            let mut expected: Vec<_> = all.iter().map(|(_, _, text)| text.clone()).collect();
            expected.sort();
            prop_assert_eq!(texts, expected);
            prop_assert_eq!(crowded, Vec::<i64>::new());
            let ordered = found.windows(2).all(|two| if backward { two[0].0 >= two[1].0 } else { two[0].0 <= two[1].0 });
            prop_assert!(ordered);
        }
    }

    #[test]
    fn more_lines_of_one_time_than_a_page_are_reported_and_the_rest_is_read() {
        let mut all: Vec<_> = (0..9).map(|n| (500, n % 2, format!("line {n}"))).collect();
        all.push((501, 0, "after".to_owned()));
        all.push((499, 0, "before".to_owned()));
        for direction in [Direction::Forward, Direction::Backward] {
            let mut pager = Pager { limit: 4, ..Pager::new(0, 1000, direction) };
            let (found, _, crowded) = read(&mut pager, &all);
            assert_eq!(crowded, [500], "{direction:?}");
            let texts: Vec<_> = found.iter().map(|(_, _, text)| text.as_str()).collect();
            assert!(texts.contains(&"after") && texts.contains(&"before"), "{direction:?} {texts:?}");
        }
    }

    #[test]
    fn a_line_of_two_shippers_is_one_line_and_of_two_hosts_two() {
        let all =
            [(5, 0, "x".to_owned()), (5, 0, "x".to_owned()), (5, 1, "x".to_owned()), (6, 0, "x".to_owned())];
        let (found, ..) = read(&mut Pager::new(0, 10, Direction::Forward), &all);
        let found: Vec<_> = found.iter().map(|(ns, host, _)| (*ns, host.as_str())).collect();
        assert_eq!(found, [(5, "a"), (5, "b"), (6, "a")]);
    }

    #[test]
    fn a_long_range_has_few_slices_and_every_slice_is_allowed_by_loki() {
        let days = 365;
        let (mut pager, mut slices) = (Pager::new(0, days * DAY, Direction::Backward), 0);
        while let Some(range) = pager.next() {
            slices += 1;
            assert!(range.until - range.from <= 30 * DAY);
            pager.accept(range, &Page::default());
        }
        assert!(slices < 60, "{slices}");
    }

    #[test]
    fn limits_of_the_server_shrink_a_request_to_an_end() {
        let mut pager = Pager::new(0, 100 * DAY, Direction::Forward);
        assert!(pager.fewer_lines());
        assert_eq!(pager.next().map(|range| range.limit), Some(1_000));
        let shrunk = std::iter::from_fn(|| pager.fewer_lines().then_some(())).count();
        assert!(shrunk < 5);
        assert!(pager.shorter_range());
        assert!(std::iter::from_fn(|| pager.shorter_range().then_some(())).count() < 5);
        assert_eq!(pager.next().map(|range| range.until), Some(SHORTEST_SLICE));
    }
}
