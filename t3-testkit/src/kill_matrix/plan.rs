//! Cells of the kill matrix: what fails how, then what fails next, and how many sessions close in
//! between. Pure.

use std::fmt;

/// A process that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Dispatch,
    Trace,
    Journald,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL; it is started again after the second failure.
    Kill,
    /// SIGSTOP, and SIGCONT after [`super::lane::PAUSE`].
    Pause,
    /// SIGTERM and a new start, as `systemctl restart`.
    Restart,
}

/// One failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub part: Part,
    pub act: Act,
}

/// What fails in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// One after the other. The same process is started again in between.
    Pair(Failure, Failure),
    /// dispatch and t3-trace are killed at the same time.
    Together,
    /// t3-trace is restarted, and dispatch is killed before it has registered its sessions again.
    NotRegistered,
    /// journald is down, dispatch is killed, t3-trace stops before journald is back.
    AllGone,
    /// As [`Story::AllGone`], but t3-trace is killed, too.
    AllKilled,
}

/// One cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub story: Story,
    /// Sessions that close in between.
    pub closes: usize,
}

const PARTS: [Part; 3] = [Part::Dispatch, Part::Trace, Part::Journald];
const ACTS: [Act; 3] = [Act::Kill, Act::Pause, Act::Restart];
const SPECIAL: [Story; 4] = [Story::Together, Story::NotRegistered, Story::AllGone, Story::AllKilled];
/// Numbers of closes in between.
const CLOSES: [usize; 3] = [0, 1, 400];
/// In the quick subset.
const QUICK_CLOSES: usize = 40;

/// All cells: each pair of different processes in both orders with each number of closes, each pair
/// of failures of one process with one close, and the special ones. `quick`: kills only, and the
/// pause that once doubled records.
pub(super) fn cells(quick: bool) -> Vec<Cell> {
    let failures = || PARTS.into_iter().flat_map(|part| ACTS.map(|act| Failure { part, act }));
    let pairs = failures().flat_map(|first| failures().map(move |second| (first, second)));
    let mut cells: Vec<_> = SPECIAL.map(|story| Cell { story, closes: 0 }).into();
    for (first, second) in pairs {
        let story = Story::Pair(first, second);
        let same = first.part == second.part;
        if quick {
            let kills = first.act == Act::Kill && second.act == Act::Kill && !same;
            let paused = first == Failure { part: Part::Trace, act: Act::Pause }
                && second == Failure { part: Part::Dispatch, act: Act::Kill };
            cells.extend((kills || paused).then_some(Cell { story, closes: QUICK_CLOSES }));
        } else if same {
            cells.push(Cell { story, closes: 1 });
        } else {
            cells.extend(CLOSES.map(|closes| Cell { story, closes }));
        }
    }
    cells
}

/// Distributes the cells over lanes so that all take about the same time; each with its number.
pub(super) fn lanes(cells: &[Cell], count: usize) -> Vec<Vec<(usize, Cell)>> {
    let mut order: Vec<_> = cells.iter().copied().enumerate().collect();
    order.sort_by_key(|(_, cell)| std::cmp::Reverse(cell.seconds()));
    let mut lanes = vec![(0, Vec::new()); count.max(1)];
    for (number, cell) in order {
        if let Some(lane) = lanes.iter_mut().min_by_key(|(seconds, _)| *seconds) {
            lane.0 += cell.seconds();
            lane.1.push((number, cell));
        }
    }
    lanes.into_iter().map(|(_, cells)| cells).filter(|cells| !cells.is_empty()).collect()
}

impl Cell {
    /// The failures in order, if it is a pair.
    pub(super) fn pair(&self) -> Option<(Failure, Failure)> {
        match self.story {
            Story::Pair(first, second) => Some((first, second)),
            _ => None,
        }
    }

    /// Whether this happens in it.
    pub(super) fn has(&self, part: Part, act: Act) -> bool {
        self.pair().is_some_and(|(first, second)| [first, second].contains(&Failure { part, act }))
    }

    /// Whether this process fails in it.
    pub(super) fn touches(&self, part: Part) -> bool {
        self.pair().is_none_or(|(first, second)| first.part == part || second.part == part)
    }

    /// Waits for the pass that t3-trace makes by itself, and asks for none.
    pub(super) fn waits_for_timer(&self) -> bool {
        self.closes > 1 && self.has(Part::Journald, Act::Kill) && self.has(Part::Trace, Act::Pause)
    }

    /// Estimated duration.
    fn seconds(&self) -> usize {
        let pauses = self
            .pair()
            .map_or(0, |(first, second)| usize::from(first.act == Act::Pause || second.act == Act::Pause));
        4 + 13 * pauses + self.closes / 100 + 60 * usize::from(self.waits_for_timer())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.story {
            Story::Pair(first, second) => write!(f, "{first}, {} closes, {second}", self.closes),
            Story::Together => f.write_str("dispatch and trace killed at once"),
            Story::NotRegistered => f.write_str("trace restarted, dispatch killed unregistered"),
            Story::AllGone => f.write_str("journald killed, dispatch killed, trace stopped"),
            Story::AllKilled => f.write_str("journald killed, dispatch killed, trace killed"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Dispatch => "dispatch",
            Part::Trace => "trace",
            Part::Journald => "journald",
        };
        let act = match self.act {
            Act::Kill => "killed",
            Act::Pause => "paused",
            Act::Restart => "restarted",
        };
        write!(f, "{part} {act}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_processes_and_acts_is_there_in_both_orders_with_each_number_of_closes() {
        let cells = cells(false);
        let different = |cell: &&Cell| cell.pair().is_some_and(|(first, second)| first.part != second.part);
        assert_eq!(cells.iter().filter(different).count(), 6 * 3 * 3 * 3);
        for cell in cells.iter().filter(different) {
            let (first, second) = cell.pair().unwrap();
            let back = Cell { story: Story::Pair(second, first), closes: cell.closes };
            assert!(cells.contains(&back), "{back}");
        }
        assert_eq!(cells.len(), 162 + 27 + SPECIAL.len());
    }

    #[test]
    fn the_lanes_have_every_cell_once() {
        let cells = cells(false);
        let mut found: Vec<_> = lanes(&cells, 7).into_iter().flatten().map(|(number, _)| number).collect();
        found.sort_unstable();
        assert_eq!(found, (0..cells.len()).collect::<Vec<_>>());
    }
}
