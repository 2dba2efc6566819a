//! Deaths of t3-dispatch and a full disk of the journal: sessions at these times have other
//! requirements. Also kills the processes.

use std::time::Duration;

use super::{client::Seen, clock::now, plan::Rng, setup::Fixture};
use crate::{error::Result, journald::Filler};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub from: u64,
    pub to: u64,
}

/// After the end of a session its record waits for the other leg, for others of a burst, and for
/// evidence; dispatch may die meanwhile.
const RECORDED: u64 = 13_000_000_000;

/// What happened to the programs.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    /// Every process of dispatch.
    pub dispatch: Vec<u32>,
    /// From each death of dispatch until a new one accepts.
    pub deaths: Vec<Span>,
    /// The disk of the journal was full.
    pub full: Vec<Span>,
    /// Number of kills: dispatch alone, t3-trace alone, both.
    pub kills: [u32; 3],
}

impl Outages {
    /// One process of dispatch, which ran all the time.
    pub(crate) fn none(dispatch: u32) -> Self {
        Self { dispatch: vec![dispatch], ..Self::default() }
    }

    /// Whether dispatch died before the client was done.
    pub(crate) fn dispatch_died_during(&self, seen: &Seen) -> bool {
        overlaps(&self.deaths, seen, 0)
    }

    /// Whether dispatch may have died before the record of this session was written.
    pub(crate) fn dispatch_died_before_record(&self, seen: &Seen) -> bool {
        overlaps(&self.deaths, seen, RECORDED)
    }

    /// Whether journald may have dropped a record of this session.
    pub(crate) fn disk_was_full_during(&self, seen: &Seen) -> bool {
        overlaps(&self.full, seen, RECORDED)
    }

    fn kill(&mut self, fixture: &mut Fixture, which: Which, rng: &mut Rng) -> Result<()> {
        let (dispatch, trace) = (which != Which::Trace, which != Which::Dispatch);
        let from = now();
        if dispatch {
            fixture.stack.signal_dispatch(libc::SIGKILL)?;
        }
        if trace {
            fixture.stack.signal_trace(libc::SIGKILL)?;
        }
        drop(dispatch.then(|| fixture.stack.dispatch.take()));
        drop(trace.then(|| fixture.stack.trace.take()));
        std::thread::sleep(Duration::from_millis(rng.below(1_000)));
        let trace_first = rng.below(2) == 0;
        if trace && trace_first {
            fixture.stack.start_trace()?;
        }
        if dispatch {
            fixture.stack.start_dispatch()?;
            self.dispatch.push(fixture.stack.dispatch_pid());
            self.deaths.push(Span { from, to: now() });
        }
        if trace && !trace_first {
            fixture.stack.start_trace()?;
        }
        Ok(())
    }
}

fn overlaps(spans: &[Span], seen: &Seen, after: u64) -> bool {
    let begin = if seen.asked == 0 { seen.over } else { seen.asked };
    spans.iter().any(|span| begin <= span.to && seen.over + after >= span.from)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Dispatch,
    Trace,
    Both,
}

const ALL: [Which; 3] = [Which::Dispatch, Which::Trace, Which::Both];

/// Kills one or both programs at even steps: first each combination once, then at random.
pub(crate) fn kill_at_random(
    kills: u32,
    sessions: u32,
    seed: u64,
    outages: &mut Outages,
) -> impl FnMut(&mut Fixture, u32) -> Result<()> {
    let step = sessions / (kills + 1);
    let (mut killed, mut rng) = (0, Rng(seed ^ 0x6b69_6c6c));
    move |fixture, over| {
        if killed < kills && over >= step * (killed + 1) {
            let number =
                usize::try_from(if killed < 3 { u64::from(killed) } else { rng.below(3) }).unwrap_or(0);
            let which = ALL.get(number).copied().unwrap_or(Which::Both);
            killed += 1;
            outages.kill(fixture, which, &mut rng)?;
            if let Some(count) = outages.kills.get_mut(number) {
                *count += 1;
            }
        }
        Ok(())
    }
}

/// Fills the disk of the journal after a quarter of the sessions until three quarters, and kills
/// dispatch in between.
pub(crate) fn fill_disk(
    sessions: u32,
    seed: u64,
    outages: &mut Outages,
) -> impl FnMut(&mut Fixture, u32) -> Result<()> {
    let mut filler: Option<Filler> = None;
    let (mut step, mut rng) = (0, Rng(seed ^ 0x6675_6c6c));
    move |fixture, over| {
        if step == 3 || over < sessions / 4 * (step + 1) {
            return Ok(());
        }
        step += 1;
        match step {
            1 => {
                // If the sessions end earlier than expected, the disk stays full until their end.
                outages.full.push(Span { from: now(), to: u64::MAX });
                filler = Some(fixture.stack.journal.exhaust()?);
                Ok(())
            }
            2 => outages.kill(fixture, Which::Dispatch, &mut rng),
            _ => {
                drop(filler.take());
                outages.full.iter_mut().for_each(|span| span.to = span.to.min(now()));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::plan::Plan;

    #[test]
    fn a_session_is_affected_from_its_request_until_its_record() {
        let outages =
            Outages { deaths: vec![Span { from: 50_000_000_000, to: 60_000_000_000 }], ..Outages::default() };
        let died = |asked: u64, over: u64| {
            let (asked, over) = (asked * 1_000_000_000, over * 1_000_000_000);
            let seen = Seen { asked, over, ..Seen::nothing(Plan::draw(1, 1, 1)) };
            (outages.dispatch_died_during(&seen), outages.dispatch_died_before_record(&seen))
        };
        for (asked, over) in [(49, 55), (60, 61), (0, 55)] {
            assert_eq!(died(asked, over), (true, true));
        }
        assert_eq!(died(20, 40), (false, true));
        assert_eq!((died(61, 62), died(20, 36)), ((false, false), (false, false)));
    }
}
