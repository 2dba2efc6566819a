//! Table of the kill matrix.

use std::{collections::BTreeMap, time::Duration};

use super::comparison::Comparison;

/// Lines of a cell that are printed.
const SHOWN: usize = 6;

/// Result of a cell.
#[derive(Debug)]
pub struct Row {
    pub(super) number: usize,
    pub cell: String,
    /// Sessions that opened.
    pub sessions: usize,
    pub opens: usize,
    pub closes: usize,
    pub doubled: usize,
    pub missing: usize,
    /// Records by origin.
    pub origins: BTreeMap<String, usize>,
    /// How often t3-trace was asked for a pass.
    pub asked: usize,
    pub took: Duration,
    /// What is wrong, one line each.
    pub wrong: Vec<String>,
}

impl Row {
    pub(super) fn new(number: usize, cell: String) -> Self {
        Self {
            number,
            cell,
            sessions: 0,
            opens: 0,
            closes: 0,
            doubled: 0,
            missing: 0,
            origins: BTreeMap::new(),
            asked: 0,
            took: Duration::ZERO,
            wrong: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, sessions: usize, found: Comparison) {
        self.sessions = sessions;
        (self.opens, self.closes) = (found.opens, found.closes);
        (self.doubled, self.missing) = (found.doubled, found.missing);
        self.origins = found.origins;
        self.wrong.extend(found.wrong);
    }
}

/// Prints the table and a summary.
pub fn print(rows: &[Row]) {
    println!(
        "{:<46} {:>8} {:>6} {:>6} {:>7} {:>7} {:>5} {:>6}  origin",
        "cell", "sessions", "opens", "closes", "doubled", "missing", "asked", "s"
    );
    for row in rows {
        let origins: Vec<_> = row.origins.iter().map(|(origin, count)| format!("{origin} {count}")).collect();
        println!(
            "{:<46} {:>8} {:>6} {:>6} {:>7} {:>7} {:>5} {:>6.1}  {}{}",
            row.cell,
            row.sessions,
            row.opens,
            row.closes,
            row.doubled,
            row.missing,
            row.asked,
            row.took.as_secs_f32(),
            origins.join(", "),
            if row.wrong.is_empty() { "" } else { "  WRONG" }
        );
        for line in row.wrong.iter().take(SHOWN) {
            println!("      {line}");
        }
        if row.wrong.len() > SHOWN {
            println!("      and {} more", row.wrong.len() - SHOWN);
        }
    }
    let sum = |of: fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    println!(
        "{} cells: {} sessions, {} opens, {} closes, {} doubled, {} missing; {} cells wrong",
        rows.len(),
        sum(|row| row.sessions),
        sum(|row| row.opens),
        sum(|row| row.closes),
        sum(|row| row.doubled),
        sum(|row| row.missing),
        rows.iter().filter(|row| !row.wrong.is_empty()).count()
    );
}
