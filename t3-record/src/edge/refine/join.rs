//! Line of a session in Traefik's log: by `Cf-Ray` if Traefik logs it, else by address, start and
//! duration. Several matching lines are reported as ambiguous.

use std::net::IpAddr;

use crate::edge::{Ended, traefik::AccessLine};

/// Path of t3's WebSockets.
const PATH: &str = "/ws";
/// Tolerance of start and duration, in milliseconds.
const TOLERANCE: i64 = 2_000;
/// Maximum error of a start truncated to seconds, in milliseconds.
const CUT: i64 = 999;

/// Result of the search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join<'a> {
    /// A line with the session's `Cf-Ray`.
    ByRay(&'a AccessLine),
    /// The only line that matches by address, start and duration.
    ByTime(&'a AccessLine),
    /// Number of lines that match equally.
    Ambiguous(usize),
    /// No line matches.
    Nothing,
}

impl<'a> Join<'a> {
    /// The line, if unique.
    #[must_use]
    pub const fn line(&self) -> Option<&'a AccessLine> {
        match self {
            Self::ByRay(line) | Self::ByTime(line) => Some(line),
            Self::Ambiguous(_) | Self::Nothing => None,
        }
    }
}

/// Finds the line of a session.
#[must_use]
pub fn find<'a>(ended: &Ended<'_>, lines: &'a [AccessLine]) -> Join<'a> {
    let ray = ended.record.ray.as_deref();
    let mut same_ray: Vec<&AccessLine> = Vec::new();
    let mut fitting: Vec<&AccessLine> = Vec::new();
    // A line can be read twice, from Loki and from a file.
    let add = |to: &mut Vec<&'a AccessLine>, line| {
        if !to.contains(&line) {
            to.push(line);
        }
    };
    for line in lines.iter().filter(|line| line.path == PATH && upgraded(line)) {
        let known = ray.is_some() && line.ray.is_some();
        let same = known && line.ray.as_deref() == ray;
        if same {
            add(&mut same_ray, line);
        }
        // A line with another ray belongs to another session.
        if (same || !known) && fits(ended, line) {
            add(&mut fitting, line);
        }
    }
    match (same_ray.as_slice(), fitting.as_slice()) {
        ([line], _) => Join::ByRay(line),
        // Several lines have the ray, for example one set by a proxy: time decides.
        ([_, ..], _) => {
            fitting.retain(|line| line.ray.is_some());
            match fitting.as_slice() {
                [line] => Join::ByRay(line),
                fitting => Join::Ambiguous(fitting.len().max(same_ray.len())),
            }
        }
        ([], []) => Join::Nothing,
        ([], [line]) => Join::ByTime(line),
        ([], more) => Join::Ambiguous(more.len()),
    }
}

/// The request can be a WebSocket: these statuses exclude a 101.
fn upgraded(line: &AccessLine) -> bool {
    line.method == "GET" && !matches!(line.status, Some(300..=499 | 502..=504))
}

fn fits(ended: &Ended<'_>, line: &AccessLine) -> bool {
    let address = ended.record.ip.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let after_start = ended.opened_ms().saturating_sub(line.start_ms);
    let early = if line.start_exact { 0 } else { CUT };
    address.is_some()
        && address == line.first_address
        && (-TOLERANCE..=TOLERANCE + early).contains(&after_start)
        && line.duration_ms.abs_diff(ended.record.dur_ms) <= TOLERANCE.unsigned_abs()
}
