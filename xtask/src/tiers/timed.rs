//! The report of a tier: its steps and its time, or the reason why it did not run.

use std::time::Instant;

use anyhow::Result;

use super::CannotRun;
use crate::tools::progress;
use crate::tools::report::{Counts, Step, TierReport};

/// Runs a tier under its heading.
pub fn timed(name: &'static str, steps: impl FnOnce() -> Result<Vec<Step>>) -> TierReport {
    let begin = Instant::now();
    println!("\n=== {name}");
    match steps() {
        Ok(steps) => TierReport { name, steps, time: begin.elapsed(), not_run: None },
        Err(error) => match error.downcast_ref::<CannotRun>() {
            Some(why) => {
                progress::note(&format!("not run: {why}"));
                TierReport { name, steps: Vec::new(), time: begin.elapsed(), not_run: Some(why.to_string()) }
            }
            None => {
                let why = format!("{error:#}");
                progress::note(&format!("FAILED {why}"));
                let step = Step::new(name, false, Counts::default(), begin.elapsed()).because(why);
                TierReport { name, steps: vec![step], time: begin.elapsed(), not_run: None }
            }
        },
    }
}
