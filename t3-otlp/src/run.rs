//! Batches: collects records, exports them, and saves the position.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, timeout_at},
};

use crate::{
    cursor::{self, CursorError},
    entry::Entry,
    export::Collector,
    mapping,
    source::Item,
};

/// What is exported, and when.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Log records.
    pub has_logs: bool,
    /// Spans.
    pub has_traces: bool,
    /// Maximum number of records of a batch.
    pub batch_size: usize,
    /// Time to wait for more records after the first one of a batch.
    pub batch_time: Duration,
    /// Where to save the position; `None` for a file as source.
    pub cursor_file: Option<PathBuf>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were sent; includes rejected ones.
    pub records: u64,
    /// Log records and spans that the collector rejected.
    pub rejected: u64,
    /// Entries that could not be parsed.
    pub unreadable: u64,
}

impl Counts {
    /// Whether nothing was dropped.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.rejected == 0 && self.unreadable == 0
    }
}

/// Exports until the source ends. `counts` is up to date also when the future is dropped.
///
/// # Errors
/// The position cannot be saved.
pub async fn export(
    items: &mut Receiver<Item>,
    collector: &Collector,
    plan: &Plan,
    counts: &mut Counts,
) -> Result<(), CursorError> {
    while let Some(batch) = collect(items, plan, counts).await {
        let n = batch.len() as u64;
        if plan.has_logs {
            counts.rejected += collector.export(&mapping::logs(&batch), n).await;
        }
        if plan.has_traces {
            counts.rejected += collector.export(&mapping::spans(&batch), n).await;
        }
        counts.records += n;
        tracing::debug!(records = n, records_total = counts.records, "exported");
        if !counts.is_complete() {
            let Counts { records, rejected, unreadable } = *counts;
            tracing::warn!(
                records_total = records,
                rejected_total = rejected,
                unreadable_total = unreadable,
                "not everything was exported"
            );
        }
        save(plan.cursor_file.as_deref(), &batch)?;
    }
    Ok(())
}

/// The next batch; `None` at the end of the source.
async fn collect(items: &mut Receiver<Item>, plan: &Plan, counts: &mut Counts) -> Option<Vec<Entry>> {
    let mut batch = Vec::new();
    let mut until = None;
    while batch.len() < plan.batch_size {
        let item = match until {
            None => items.recv().await,
            Some(until) => match timeout_at(until, items.recv()).await {
                Ok(item) => item,
                Err(_) => break,
            },
        };
        match item {
            Some(Item::Entry(entry)) => {
                batch.push(*entry);
                until.get_or_insert_with(|| Instant::now() + plan.batch_time);
            }
            Some(Item::Unreadable(why)) => {
                counts.unreadable += 1;
                tracing::error!(unreadable_total = counts.unreadable, "cannot export an entry: {why}");
            }
            None => break,
        }
    }
    (!batch.is_empty()).then_some(batch)
}

fn save(file: Option<&Path>, batch: &[Entry]) -> Result<(), CursorError> {
    match (file, batch.iter().rev().find_map(|entry| entry.cursor.as_deref())) {
        (Some(file), Some(cursor)) => cursor::write(file, cursor),
        _ => Ok(()),
    }
}
