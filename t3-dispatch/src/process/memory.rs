//! Returns the memory of sessions that have ended.

use std::{sync::Arc, time::Duration};

use crate::{record::recorder::Recorder, sys::allocator};

const EVERY: Duration = Duration::from_secs(60);

/// Shrinks tables once a minute, and returns memory that is not in use to the kernel.
pub async fn return_regularly(recorder: Arc<Recorder>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        recorder.shrink();
        allocator::return_memory();
    }
}
