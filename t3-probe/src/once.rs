//! One attempt of all legs: a table, the attribution, and an exit status for scripts.

use std::{fmt::Write as _, sync::Arc};

use t3_record::probe::{self, LegFault, Phase, State, Way, attribute};
use tokio::time::Duration;

use crate::{
    dial::Dial,
    echo::Answered,
    leg::{Leg, Timeouts},
    progress::{Failure, Progress},
    run,
};

/// Result of one attempt.
#[derive(Debug)]
pub struct Row {
    pub leg: Leg,
    /// Duration of each completed phase.
    pub phases: Vec<(Phase, Duration)>,
    /// Address in use.
    pub address: Option<String>,
    /// Time until the echo and the Pong, or the response; or phase and cause of the failure.
    pub outcome: Result<Duration, (Phase, Failure)>,
    pub state: State,
}

/// Tries all legs concurrently.
pub async fn all<D: Dial + 'static>(legs: Vec<Leg>, dial: Arc<D>, timeouts: Timeouts) -> Vec<Row> {
    let tasks: Vec<_> = legs
        .into_iter()
        .map(|leg| {
            let dial = Arc::clone(&dial);
            tokio::spawn(async move { one(leg, &*dial, timeouts).await })
        })
        .collect();
    let mut rows = Vec::new();
    for task in tasks {
        rows.extend(task.await);
    }
    rows
}

async fn one<D: Dial>(leg: Leg, dial: &D, timeouts: Timeouts) -> Row {
    let progress = Progress::default();
    let outcome = match leg.way {
        Way::Serve => {
            let (time, outcome) = run::answered(&leg, dial, &timeouts, &progress).await;
            outcome.map(|()| time.unwrap_or_default())
        }
        Way::Cloudflare | Way::Internal => match run::established(&leg, dial, &timeouts, &progress).await {
            Ok(mut echo) => {
                let answered = echo.ping(&timeouts, &progress).await;
                echo.close().await;
                answered.map(Answered::both)
            }
            Err(failure) => Err(failure),
        },
    };
    let state = match &outcome {
        Ok(time) if *time >= timeouts.slow_threshold => State::Slow,
        Ok(_) => State::Clean,
        Err(_) => State::Down,
    };
    let (phases, address) = progress.done();
    let outcome = outcome.map_err(|failure| (progress.now().0, failure));
    Row { leg, phases, address, outcome, state }
}

/// Attribution from all rows.
#[must_use]
pub fn attribution(rows: &[Row]) -> probe::Attribution {
    let fault = |row: &Row| match &row.outcome {
        Err((phase, failure)) => Some(failure.in_phase(*phase)),
        Ok(time) if row.state == State::Slow => Some(LegFault::Slow(*time)),
        Ok(_) => None,
    };
    let leg = |row: &Row| probe::Leg {
        name: row.leg.name.clone(),
        way: row.leg.way,
        state: row.state,
        fault: fault(row),
    };
    attribute(&rows.iter().map(leg).collect::<Vec<_>>())
}

/// Formats the table and the attribution.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<16} {:<6} {:>9}  {:<22} PHASES\n", "LEG", "STATE", "ANSWER", "ADDRESS");
    for row in rows {
        let answer = match &row.outcome {
            Ok(time) => format!("{:.1} ms", ms(*time)),
            Err(_) => "-".to_owned(),
        };
        let phases =
            row.phases.iter().map(|(phase, time)| format!("{phase} {:.1}", ms(*time))).collect::<Vec<_>>();
        let address = row.address.as_deref().unwrap_or("-");
        let _ = write!(
            text,
            "{:<16} {:<6} {answer:>9}  {address:<22} {}",
            row.leg.name,
            row.state,
            phases.join(", ")
        );
        if let Err((phase, failure)) = &row.outcome {
            let separator = if phases.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}{} in {phase}: {}", failure.reason, failure.detail);
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}", attribution(rows));
    text
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
