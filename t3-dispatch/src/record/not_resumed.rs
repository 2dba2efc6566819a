//! The record of a session that ended because dispatch died and its successor could not continue
//! it.

use std::{sync::Arc, time::Duration};

use t3_record::{
    Evidence, KernelSource, assemble,
    evidence::{DispatchDeath, KernelFacts, Nanos},
};

use crate::{record::recorder::Recorder, relay::session::Session};

/// Time for t3-trace to connect after a restart: it has the evidence of the kernel.
pub const TRACE_WAIT: Duration = Duration::from_secs(3);

/// Writes the record, unless t3-trace does. `died_at`: end of the process.
pub async fn record(recorder: Arc<Recorder>, session: Box<Session>, died_at: Nanos) {
    recorder.in_flight.opened();
    let conn = &session.identity.conn;
    let _ = recorder.evidence.until_connected(TRACE_WAIT).await;
    if !recorder.evidence.takes_record_of(conn) {
        let ending = session.end_started();
        let death = DispatchDeath { fate: None, at: died_at };
        let evidence = Evidence {
            relay: ending.then(|| session.facts_so_far()),
            kernel: KernelFacts::absent(KernelSource::Off),
            burst: None,
            dispatch_died: (!ending).then_some(death),
        };
        let record = assemble(&session.identity, &evidence);
        let outcome = recorder.writer.write(record.to_fields()).await;
        recorder.metrics.closed_before(&record);
        let is_lost = !matches!(outcome, Ok(t3_journal::Outcome::Written));
        recorder.evidence.done(conn, record, is_lost);
    }
    recorder.in_flight.closed();
}
