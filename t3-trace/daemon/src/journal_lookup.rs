//! Which `ws close` records are in the journal already. Asks `journalctl`, for a bounded time.

use std::{collections::HashSet, process::Stdio, time::Duration};

use t3_record::{evidence::Nanos, journal::CLOSE_ID};
use t3_trace_host::{
    clock::{SECOND, monotonic, realtime_secs},
    journal_trust::{self, Trust},
};
use tokio::process::Command;

/// Session ids.
pub(crate) type RecordedConns = HashSet<String>;

const SYNC_WITHIN: Duration = Duration::from_secs(3);
const READ_WITHIN: Duration = Duration::from_secs(10);
/// The clocks of two programs and the journal's granularity.
const SLACK_SECS: u64 = 5;

/// journalctl did not say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    /// It could not be run.
    #[error("run journalctl: {0}")]
    Run(#[from] std::io::Error),
    /// It took too long.
    #[error("journalctl took longer than {READ_WITHIN:?}")]
    Slow,
    /// It said no.
    #[error("journalctl failed: {0}")]
    Failed(String),
}

/// The sessions with a `ws close` in the journal since a moment of the monotonic clock.
pub(crate) async fn closes_since(since: Nanos, trust: Trust) -> Result<RecordedConns, LookupError> {
    // What dispatch sent before it died may still wait in journald's socket.
    let sync = Command::new("journalctl")
        .arg("--sync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    if !tokio::time::timeout(SYNC_WITHIN, sync)
        .await
        .is_ok_and(|status| status.is_ok_and(|status| status.success()))
    {
        tracing::warn!("journalctl --sync did not succeed; the newest records may be missed");
    }
    let age = monotonic().saturating_sub(since) / SECOND + SLACK_SECS;
    let output = Command::new("journalctl")
        .args(["--quiet", "--no-pager", "--output=json"])
        .arg(format!("--output-fields=T3_CONN,{}", journal_trust::FIELDS.join(",")))
        .arg(format!("--since=@{}", realtime_secs().saturating_sub(age)))
        .arg(format!("MESSAGE_ID={CLOSE_ID}"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(READ_WITHIN, output).await.map_err(|_| LookupError::Slow)??;
    // An empty result counts as a failure for some versions; only a message on stderr tells.
    if !output.status.success() && !output.stderr.is_empty() {
        return Err(LookupError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(conns(&String::from_utf8_lossy(&output.stdout), trust))
}

/// The ids in journalctl's lines. An entry that anybody may have written keeps no record from being
/// written.
fn conns(json_lines: &str, trust: Trust) -> RecordedConns {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(rename = "T3_CONN")]
        conn: Option<String>,
        #[serde(rename = "_UID")]
        uid: Option<String>,
        #[serde(rename = "_SYSTEMD_UNIT")]
        unit: Option<String>,
    }
    let entries = json_lines.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
    let ours = entries.filter(|entry| trust.allows_writer(entry.uid.as_deref(), entry.unit.as_deref()));
    ours.filter_map(|entry| entry.conn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_what_journalctl_prints() {
        let text = "{\"__CURSOR\":\"x\",\"_UID\":\"0\",\"T3_CONN\":\"a1\"}\n{\"_UID\":\"0\",\"T3_CONN\":[1,2]}\nnot json\n{\"MESSAGE\":\"x\"}\n{\"_SYSTEMD_UNIT\":\"t3-dispatch.service\",\"T3_CONN\":\"b2\"}\n";
        assert_eq!(conns(text, Trust::default()), RecordedConns::from(["a1".to_owned(), "b2".to_owned()]));
    }

    #[test]
    fn an_entry_that_another_user_wrote_keeps_no_record_from_being_written() {
        let text = "{\"_UID\":\"1000\",\"T3_CONN\":\"a1\"}\n{\"T3_CONN\":\"a2\"}\n{\"_UID\":\"991\",\"T3_CONN\":\"b2\"}\n";
        assert_eq!(conns(text, Trust { dispatch: Some(991) }), RecordedConns::from(["b2".to_owned()]));
    }
}
