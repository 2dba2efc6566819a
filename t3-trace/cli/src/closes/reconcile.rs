//! Request to the daemon to compare the records with the journal now.

use std::{io::Write, path::Path, time::Duration};

use anyhow::Context;
use t3_record::wire::{FromTrace, MAX_MESSAGE, ToTrace};
use tokio::time::timeout;

use crate::{present::text::safe, subscriber};

/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(15);
/// Timeout for the answer: the daemon reads a journal of any size, and waits for journald.
const ANSWER: Duration = Duration::from_secs(15 * 60);

/// Asks the daemon and reports its answer on stderr, where it does not mix with records.
///
/// # Errors
/// No daemon answers, or it could not reconcile.
pub fn run(socket: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the async runtime")?;
    let said = runtime.block_on(ask(socket)).map_err(anyhow::Error::msg)?;
    let _ = writeln!(std::io::stderr(), "{said}");
    Ok(())
}

async fn ask(path: &Path) -> Result<String, String> {
    let connected = timeout(CONNECT, subscriber::subscribe(path)).await;
    let connected =
        connected.unwrap_or_else(|_| Err(format!("t3-trace at {} does not answer", path.display())));
    let (socket, _) = connected.map_err(|why| {
        format!("cannot reconcile: {why}; t3-trace also reconciles at its start: systemctl start t3-trace")
    })?;
    let request = serde_json::to_vec(&ToTrace::Reconcile).map_err(|error| error.to_string())?;
    socket.send(&request).await.map_err(|error| format!("cannot send to t3-trace: {error}"))?;
    let answer = async {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match subscriber::receive(&socket, &mut buffer).await? {
                Some(FromTrace::Reconciled { reconciled, rewritten, open, error }) => {
                    return Ok((counts(reconciled, rewritten, open), error));
                }
                Some(FromTrace::Refused { why }) => {
                    let why = safe(&why);
                    return Err(format!(
                        "t3-trace refused to reconcile: {why}; install both programs from the same release"
                    ));
                }
                // Records of sessions that close in the meantime.
                _ => {}
            }
        }
    };
    let answer = timeout(ANSWER, answer).await;
    let minutes = ANSWER.as_secs() / 60;
    let (counts, error) = answer.unwrap_or_else(|_| {
        Err(format!("t3-trace did not reconcile within {minutes} minutes; journalctl -u t3-trace"))
    })?;
    match error {
        None => Ok(counts),
        Some(error) => Err(format!("t3-trace could not reconcile: {}; {counts}", safe(&error))),
    }
}

fn counts(reconciled: u64, rewritten: u64, open: u64) -> String {
    format!(
        "reconciled: {reconciled} sessions of an ended t3-dispatch got their record, {rewritten} records written \
         again, {open} still open"
    )
}

#[cfg(test)]
mod tests {
    use t3_record::{
        KernelSource,
        wire::{Role, VERSION},
    };
    use tokio_seqpacket::UnixSeqpacketListener;

    use super::*;

    /// Answer of a daemon that sends these messages after the request.
    async fn answered(messages: &[FromTrace]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut listener = UnixSeqpacketListener::bind(&path).unwrap();
        let daemon = async {
            let peer = listener.accept().await.unwrap();
            let mut buffer = vec![0; MAX_MESSAGE];
            let kernel = KernelSource::Off;
            let welcome =
                [FromTrace::Welcome { v: VERSION, kernel, sessions: true, ending: true, kept: false }];
            let hello = ToTrace::Hello { v: VERSION, role: Role::Subscriber };
            for (expected, answers) in [(hello, &welcome[..]), (ToTrace::Reconcile, messages)] {
                let read = peer.recv(&mut buffer).await.unwrap().bytes_read();
                assert_eq!(serde_json::from_slice::<ToTrace>(&buffer[..read]).unwrap(), expected);
                for answer in answers {
                    peer.send(&serde_json::to_vec(answer).unwrap()).await.unwrap();
                }
            }
            peer
        };
        tokio::join!(ask(&path), daemon).0
    }

    #[tokio::test]
    async fn the_answer_is_one_line_and_other_messages_are_skipped() {
        let answer = |error: Option<&str>| FromTrace::Reconciled {
            reconciled: 3,
            rewritten: 2,
            open: 17,
            error: error.map(str::to_owned),
        };
        let counts = "reconciled: 3 sessions of an ended t3-dispatch got their record, 2 records written again, 17 still open";
        assert_eq!(answered(&[FromTrace::Skipped { records: 1 }, answer(None)]).await, Ok(counts.to_owned()));
        assert_eq!(
            answered(&[answer(Some("journald\x1b is down"))]).await,
            Err(format!("t3-trace could not reconcile: journald\u{fffd} is down; {counts}"))
        );
        let refused = answered(&[FromTrace::Refused { why: "cannot decode message".to_owned() }]).await;
        assert!(refused.unwrap_err().contains("same release"));
    }

    #[tokio::test]
    async fn without_a_daemon_the_next_step_is_named() {
        let error = ask(Path::new("/no/such/socket")).await.unwrap_err();
        assert!(error.contains("no daemon at /no/such/socket"), "{error}");
        assert!(error.ends_with("systemctl start t3-trace"), "{error}");
    }
}
