//! Ends that look the same on either leg: violations of RFC 6455, and kinds of FIN.

use crate::{
    evidence::{Breach, Evidence, LegFacts, Nanos},
    how::How,
    verdict::Finding,
    vocabulary::{Segment, Side, Verdict},
};

/// One side violated RFC 6455, which ended the connection.
pub(super) fn broke_protocol(evidence: &Evidence, side: Side) -> Option<Finding> {
    let breach = evidence.relay.as_ref()?.leg(side).breach?;
    // Data after the own Close frame ends nothing: the connection is already closing.
    (breach != Breach::DataAfterClose).then_some(match side {
        Side::Down => Finding::proven(Verdict::ClientProtocol, How::Protocol, Segment::Downstream),
        Side::Up => Finding::proven(Verdict::ServeProtocol, How::Protocol, Segment::Serve),
    })
}

/// Kind of FIN: inside a frame, of one direction only, or plain.
pub(super) fn fin_how(leg: &LegFacts, other: &LegFacts, rst_in: Option<Nanos>) -> How {
    let ended = leg.end.map(|(_, at)| at);
    // A peer that closed both directions answers later data with RST.
    let data_after = matches!((ended, other.last_byte_at), (Some(end), Some(data)) if data > end);
    if leg.mid_frame {
        How::MidFrame
    } else if data_after && rst_in.is_none() {
        How::HalfClose
    } else {
        How::Fin
    }
}
