//! Evidence in, one judgement out. Pure and total: every input has an answer, `unknown` if nothing fits.

use crate::{
    evidence::Evidence,
    how::How,
    words::{Cause, ClosedBy, Confidence, Segment, Verdict},
};

/// What the evidence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// The coarse cause.
    pub cause: Cause,
    /// What happened.
    pub verdict: Verdict,
    /// The deciding mechanism.
    pub how: Option<How>,
    /// Where the cause lies.
    pub segment: Segment,
    /// Which end acted first.
    pub closed_by: Option<ClosedBy>,
    /// How sure.
    pub confidence: Confidence,
}

/// Judges one session's end.
#[must_use]
pub fn judge(_evidence: &Evidence) -> Judgement {
    Judgement {
        cause: Cause::DispatchClosed,
        verdict: Verdict::Unknown,
        how: None,
        segment: Segment::Unknown,
        closed_by: None,
        confidence: Confidence::Likely,
    }
}
