//! Outages of this host's own network. What a peer seems to have done while the host could not send
//! or receive is not proven, and the silence of a peer then has its cause here.

use crate::{
    evidence::{Evidence, Nanos},
    verdict::{Finding, acts::Act},
    vocabulary::{Confidence, Segment, Side, Verdict},
};

/// Time after an outage in which what it held up arrives; lost segments are sent again after up to
/// as long again (RFC 6298 section 5.5).
const TAIL: Nanos = 5_000_000_000;

/// Whether the own network of this leg was broken when the act happened or shortly before.
pub(super) fn is_broken(evidence: &Evidence, side: Side, at: Nanos) -> bool {
    let events = || evidence.kernel.network.iter().filter(|event| event.side == side && event.at <= at);
    events().any(|began| {
        let Some(end) = began.change.restored_by() else { return false };
        let restored = events().find(|event| event.change == end && event.at > began.at);
        restored.is_none_or(|restored| {
            let length = restored.at.saturating_sub(began.at);
            at.saturating_sub(restored.at) <= length.max(TAIL)
        })
    })
}

/// Returns the finding as it is after an outage of the leg of the first act.
pub(super) fn weaken(evidence: &Evidence, first: Act, finding: Finding) -> Finding {
    if !is_broken(evidence, first.side, first.at) {
        return finding;
    }
    let segment = match finding.verdict {
        // Silence, or a reaction to it.
        Verdict::ClientVanished
        | Verdict::PathStalled
        | Verdict::ServeStalled
        | Verdict::ServeReset
        | Verdict::ServeLeft => Segment::Devvm,
        // A death is seen by the kernel, not by the network.
        Verdict::ServeKilled | Verdict::ServeExited | Verdict::ServeOom => return finding,
        _ => finding.segment,
    };
    Finding { segment, confidence: Confidence::Likely, ..finding }
}
