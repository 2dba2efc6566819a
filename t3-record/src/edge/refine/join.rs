//! Which of Traefik's lines is this session's. By `Cf-Ray` where Traefik keeps that header, else by
//! address, start and length. What fits more than one line is said to, never decided.

use std::net::IpAddr;

use crate::edge::{Ended, traefik::AccessLine};

/// The path of t3's WebSockets.
const PATH: &str = "/ws";
/// Starts and lengths may differ by this much, in milliseconds.
const TOLERANCE: i64 = 2_000;
/// A start that was cut to whole seconds may be this much early, in milliseconds.
const CUT: i64 = 999;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join<'a> {
    /// One line has the close's `Cf-Ray`.
    ByRay(&'a AccessLine),
    /// One line alone fits by address, start and length.
    ByTime(&'a AccessLine),
    /// So many lines fit equally.
    Ambiguous(usize),
    /// None fits.
    Nothing,
}

impl<'a> Join<'a> {
    /// The line, if it is one.
    #[must_use]
    pub const fn line(&self) -> Option<&'a AccessLine> {
        match self {
            Self::ByRay(line) | Self::ByTime(line) => Some(line),
            Self::Ambiguous(_) | Self::Nothing => None,
        }
    }
}

/// Finds the session's line.
#[must_use]
pub fn find<'a>(ended: &Ended<'_>, lines: &'a [AccessLine]) -> Join<'a> {
    let ray = ended.record.ray.as_deref();
    let mut same_ray: Vec<&AccessLine> = Vec::new();
    let mut fitting: Vec<&AccessLine> = Vec::new();
    // A line may have been read twice, from Loki and from a file.
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
        // A line with another ray is another session's, however well it fits.
        if (same || !known) && fits(ended, line) {
            add(&mut fitting, line);
        }
    }
    match (same_ray.as_slice(), fitting.as_slice()) {
        ([line], _) => Join::ByRay(line),
        // Several have the ray, as when a proxy makes one up: time decides among them.
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

/// The request may have become a WebSocket: these statuses come before any 101.
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
