//! Amount of work of a run, and the traffic of each workload. Pure.

use std::time::Duration;

use super::{
    client::Mode,
    driver::Traffic,
    metric::Workload::{self, Bulk, Cycle, Echo, Idle, Paced, Single},
    wire,
};
use crate::frame;

/// Path with replies as large as the messages.
pub const ECHO: &str = "/echo";
/// Frames of a reply in bulk traffic.
const BULK_FRAMES: u64 = 16;
/// Payload of a message that requests a bulk reply.
const BULK_REQUEST: u64 = 4;

/// Amount of work of a run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// Payload of a short message.
    pub payload: u64,
    /// Sessions and messages.
    pub echo: (usize, u64),
    /// Messages.
    pub single: u64,
    /// Sessions, messages per second, messages.
    pub paced: (usize, u64, u64),
    /// Payload of a frame, sessions, bytes.
    pub bulk: (u64, usize, u64),
    /// Cycles.
    pub cycles: u64,
    /// Idle sessions.
    pub idle: usize,
    /// Idle time before each sample of the memory.
    pub rest: Duration,
}

/// The committed numbers are those of this plan.
pub const FULL: Plan = Plan {
    rounds: 5,
    payload: 64,
    echo: (64, 150_000),
    single: 20_000,
    paced: (200, 5_000, 25_000),
    bulk: (64 << 10, 4, 1 << 30),
    cycles: 3_000,
    idle: 5_000,
    rest: Duration::from_secs(3),
};

/// Shows that everything works.
pub const QUICK: Plan = Plan {
    rounds: 1,
    payload: 64,
    echo: (8, 2_000),
    single: 500,
    paced: (20, 1_000, 500),
    bulk: (64 << 10, 2, 32 << 20),
    cycles: 50,
    idle: 100,
    rest: Duration::from_millis(200),
};

impl Plan {
    /// Name of a workload in the tables.
    #[must_use]
    pub fn title(&self, workload: Workload) -> String {
        let payload = self.payload;
        match workload {
            Echo => format!("{} connections x {payload} B echo", self.echo.0),
            Single => format!("1 connection x {payload} B echo"),
            Paced => format!("{}/s over {} connections", self.paced.1, self.paced.0),
            Bulk => format!("bulk, {} KiB frames", self.bulk.0 >> 10),
            Cycle => "open + upgrade + close".to_owned(),
            Idle => "idle session".to_owned(),
        }
    }

    /// The traffic of a workload. Idle sessions exchange one heartbeat each, as a warm-up.
    #[must_use]
    pub fn traffic(&self, workload: Workload) -> Traffic {
        let short = |mode, sessions, messages: u64| Traffic {
            mode,
            target: ECHO.to_owned(),
            sessions,
            payload: self.payload,
            answer: wire::server_frame(self.payload),
            warm: messages / 10,
            messages,
        };
        match workload {
            Echo => short(Mode::Exchange, self.echo.0, self.echo.1),
            Single => short(Mode::Exchange, 1, self.single),
            Paced => short(Mode::Paced(self.paced.1), self.paced.0, self.paced.2),
            Cycle => short(Mode::Cycle, 1, self.cycles),
            Bulk => {
                let (frame, sessions, bytes) = self.bulk;
                let answer = wire::server_frame(frame) * BULK_FRAMES;
                let messages = (bytes / answer).max(sessions as u64);
                Traffic {
                    target: format!("/push/{frame}/{BULK_FRAMES}"),
                    payload: BULK_REQUEST,
                    answer,
                    ..short(Mode::Exchange, sessions, messages)
                }
            }
            Idle => idle_traffic(self.idle),
        }
    }

    /// Payload of a reply in KiB.
    #[must_use]
    pub fn reply_kib(&self, workload: Workload) -> f64 {
        let bytes = if workload == Bulk { self.bulk.0 * BULK_FRAMES } else { self.payload };
        bytes as f64 / 1024.0
    }

    /// Units of work in this many messages, see [`Workload::unit_of_work`].
    #[must_use]
    pub fn units(&self, workload: Workload, messages: u64) -> f64 {
        let each = if workload == Bulk { self.reply_kib(workload) / 1024.0 } else { 1.0 };
        messages as f64 * each
    }
}

/// Sessions that are idle after one heartbeat each.
#[must_use]
pub fn idle_traffic(sessions: usize) -> Traffic {
    let beat = frame::HEARTBEAT.len() as u64;
    Traffic {
        mode: Mode::Exchange,
        target: ECHO.to_owned(),
        sessions,
        payload: beat,
        answer: wire::server_frame(beat),
        warm: sessions as u64,
        messages: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn the_rows_of_the_full_plan_are_named_by_their_sizes() {
        let titles: Vec<_> = Workload::value_variants().iter().map(|one| FULL.title(*one)).collect();
        let expected = [
            "64 connections x 64 B echo",
            "1 connection x 64 B echo",
            "5000/s over 200 connections",
            "bulk, 64 KiB frames",
            "open + upgrade + close",
            "idle session",
        ];
        assert_eq!(titles, expected);
    }

    #[test]
    fn bulk_replies_are_counted_in_mib() {
        assert_eq!(FULL.reply_kib(Bulk), 1024.0);
        assert_eq!((FULL.units(Bulk, 3), FULL.units(Echo, 3)), (3.0, 3.0));
        let traffic = FULL.traffic(Bulk);
        assert_eq!(traffic.answer, 16 * (65_536 + 10));
        assert_eq!((traffic.messages, traffic.target.as_str()), (1023, "/push/65536/16"));
    }

    #[test]
    fn a_message_of_every_session_fits_each_plan() {
        for plan in [FULL, QUICK] {
            for workload in [Echo, Single, Paced, Bulk, Cycle] {
                let traffic = plan.traffic(workload);
                assert!(traffic.messages >= traffic.sessions as u64, "{workload:?}");
            }
        }
    }
}
