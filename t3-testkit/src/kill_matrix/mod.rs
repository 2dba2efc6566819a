//! Kill matrix: t3-dispatch, t3-trace and journald are killed, stopped for a while or restarted,
//! two of them in each order, with sessions that close in between; then each opened WebSocket must
//! have exactly one `ws close`.
//!
//! Cells mostly wait, so they run in parallel lanes, each with its own three processes.

pub mod comparison;
mod lane;
mod plan;
mod programs;
mod report;
pub mod sessions;

use std::sync::mpsc;

use crate::error::{Attempt, Result};
use lane::Lane;
use plan::Cell;
pub use report::{Row, print};

/// Selection of cells, and the number of lanes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only the subset of `plan::cells`.
    pub quick: bool,
    /// Only cells whose name contains this.
    pub only: Option<String>,
    /// How often each cell runs.
    pub times: usize,
    pub lanes: usize,
}

/// Runs the matrix; returns the cells in the order of the plan.
pub fn run(options: &Options) -> Result<Vec<Row>> {
    let only = options.only.as_deref().unwrap_or_default();
    let mut cells = plan::cells(options.quick);
    cells.retain(|cell| cell.to_string().contains(only));
    let cells = cells.repeat(options.times);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.attempt(|| "start a runtime".to_owned())?;
    let (sender, finished) = mpsc::channel();
    let mut rows = std::thread::scope(|scope| {
        for cells in plan::lanes(&cells, options.lanes) {
            let (sender, handle) = (sender.clone(), runtime.handle());
            scope.spawn(move || drop(sender.send(lane(handle, &cells))));
        }
        drop(sender);
        let mut rows = Vec::new();
        for lane in finished {
            rows.extend(lane?);
        }
        Ok(rows)
    })?;
    rows.sort_by_key(|row: &Row| row.number);
    Ok(rows)
}

/// Runs cells on one set of processes; after a cell that could not be carried out on a new one.
fn lane(runtime: &tokio::runtime::Handle, cells: &[(usize, Cell)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut lane = Lane::start(runtime)?;
    for (number, cell) in cells {
        if lane.run(*number, cell).is_err() {
            rows.extend(lane.finish()?);
            lane = Lane::start(runtime)?;
        }
    }
    rows.extend(lane.finish()?);
    Ok(rows)
}
