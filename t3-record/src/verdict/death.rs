//! Verdicts of a process that has ended.

use crate::{
    evidence::{Fate, KernelFacts},
    how::How,
    verdict::Finding,
    vocabulary::{Segment, Verdict},
};

/// The verdict of a process that has ended.
pub(super) fn death(kernel: &KernelFacts, fate: Fate) -> Option<Finding> {
    match fate {
        Fate::Alive => None,
        Fate::Exit(status) => Some(Finding::proven(Verdict::ServeExited, How::Exit(status), Segment::Serve)),
        Fate::Signal(signal) => {
            Some(Finding::proven(Verdict::ServeKilled, How::Signal(signal), Segment::Serve))
        }
        Fate::Oom => Some(Finding::proven(Verdict::ServeOom, How::Oom, oom_segment(kernel))),
    }
}

/// `serve` for a kill at the cgroup's limit, `devvm` for one while the host was out of memory.
pub(super) fn oom_segment(kernel: &KernelFacts) -> Segment {
    let machine =
        kernel.host.and_then(|host| host.mem).and_then(|mem| mem.full).is_some_and(|full| full >= 10.0);
    let at_limit = kernel.memory.is_some_and(|memory| memory.max.is_some());
    if machine && !at_limit { Segment::Devvm } else { Segment::Serve }
}
