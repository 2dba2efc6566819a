//! Look-up of `ws close` records in the journal with `journalctl`, with timeouts.

use std::{collections::HashSet, process::Stdio, time::Duration};

use t3_record::{evidence::Nanos, journal::CLOSE_ID};
use t3_trace_host::{
    clock::{SECOND, monotonic, realtime_secs},
    journal_trust::{self, Trust},
};
use tokio::process::Command;

/// Session ids with a record.
pub(crate) type RecordedConns = HashSet<String>;

const SYNC_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Tolerance for clock differences and the resolution of the journal.
const SLACK_SECS: u64 = 5;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("cannot run journalctl: {0}")]
    Run(#[from] std::io::Error),
    #[error("journalctl timed out after {READ_TIMEOUT:?}")]
    Slow,
    #[error("journalctl failed: {0}")]
    Failed(String),
}

/// Returns the sessions with a `ws close` in the journal since a time of the monotonic clock.
pub(crate) async fn closes_since(since: Nanos, trust: Trust) -> Result<RecordedConns, LookupError> {
    // Records of dispatch may still be queued in journald's socket.
    let sync = Command::new("journalctl")
        .arg("--sync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    if !tokio::time::timeout(SYNC_TIMEOUT, sync)
        .await
        .is_ok_and(|status| status.is_ok_and(|status| status.success()))
    {
        tracing::warn!("journalctl --sync failed; the newest records may be missing");
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
    let output = tokio::time::timeout(READ_TIMEOUT, output).await.map_err(|_| LookupError::Slow)??;
    // In some versions an empty result is a failure; only a message on stderr is an error.
    if !output.status.success() && !output.stderr.is_empty() {
        return Err(LookupError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(conns(&String::from_utf8_lossy(&output.stdout), trust))
}

/// Ids in the lines of journalctl. An entry from an untrusted writer does not suppress a record.
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
    fn ids_are_read_from_journalctl_output() {
        let text = "{\"__CURSOR\":\"x\",\"_UID\":\"0\",\"T3_CONN\":\"a1\"}\n{\"_UID\":\"0\",\"T3_CONN\":[1,2]}\nnot json\n{\"MESSAGE\":\"x\"}\n{\"_SYSTEMD_UNIT\":\"t3-dispatch.service\",\"T3_CONN\":\"b2\"}\n";
        assert_eq!(conns(text, Trust::default()), RecordedConns::from(["a1".to_owned(), "b2".to_owned()]));
    }

    #[test]
    fn an_entry_of_another_user_does_not_suppress_a_record() {
        let text = "{\"_UID\":\"1000\",\"T3_CONN\":\"a1\"}\n{\"T3_CONN\":\"a2\"}\n{\"_UID\":\"991\",\"T3_CONN\":\"b2\"}\n";
        assert_eq!(conns(text, Trust { dispatch: Some(991) }), RecordedConns::from(["b2".to_owned()]));
    }
}
