//! Server side of [`super::mint_socket`]: reads the name of one OS user, runs the mint like
//! [`super::mint`], and writes one line of JSON. Runs as root behind t3-mint.socket, one process
//! per request, and reads only that name.
//!
//! Owner and mode of the socket control access. Output of the mint is returned only as processed by
//! `mint`, so that an error contains no credential.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::{
    credential::Credential,
    mint::{Mint, MintError},
    mint_socket::{MAX_USER, can_be_a_user},
};

/// Timeout for the name; the client sends it immediately.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Error of minting a credential; never contains one.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The request is not a user name.
    #[error("expected one line with the name of a user")]
    InvalidRequest,
    /// No complete request within the timeout.
    #[error("no request within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// Reads a request and mints a credential.
///
/// # Errors
/// [`AnswerError`].
pub async fn answer(request: impl AsyncRead + Unpin, mint: &Mint) -> Result<Credential, AnswerError> {
    answer_within(REQUEST_TIMEOUT, request, mint).await
}

async fn answer_within(
    time: Duration,
    request: impl AsyncRead + Unpin,
    mint: &Mint,
) -> Result<Credential, AnswerError> {
    let user = timeout(time, read_user(request)).await.map_err(|_| AnswerError::Timeout)??;
    Ok(mint.run(&user).await?)
}

/// Returns the response line.
#[must_use]
pub fn line(answer: &Result<Credential, AnswerError>) -> Vec<u8> {
    let mut line = match answer {
        Ok(credential) => credential.body().to_vec(),
        Err(error) => serde_json::json!({ "error": error.to_string() }).to_string().into_bytes(),
    };
    line.push(b'\n');
    line
}

/// Reads a name up to a newline or the end of the stream.
async fn read_user(request: impl AsyncRead + Unpin) -> Result<String, AnswerError> {
    let mut request = request.take(MAX_USER as u64 + 1);
    let mut received = Vec::new();
    while !received.ends_with(b"\n") {
        match request.read_u8().await {
            Ok(byte) => received.push(byte),
            Err(_) => break,
        }
    }
    if received.ends_with(b"\n") {
        received.pop();
    }
    let name = String::from_utf8(received).map_err(|_| AnswerError::InvalidRequest)?;
    if can_be_a_user(&name) { Ok(name) } else { Err(AnswerError::InvalidRequest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    async fn mint_reply(request: &[u8], script: &str) -> String {
        let command = shlex::try_join(["sh", "-c", script, "mint"]).unwrap();
        let mint = Mint::new(command.parse().unwrap(), TIMEOUT);
        String::from_utf8(line(&answer(request, &mint).await)).unwrap()
    }

    #[tokio::test]
    async fn a_name_is_answered_with_a_credential() {
        let script = r#"printf '{"id": 1, "credential": "sesame for %s"}' "$1""#;
        for request in ["ann\n", "ann"] {
            assert_eq!(mint_reply(request.as_bytes(), script).await, "{\"credential\":\"sesame for ann\"}\n");
        }
    }

    #[tokio::test]
    async fn a_failed_mint_is_reported_without_its_output() {
        let answer =
            mint_reply(b"ann\n", r#"printf '{"credential": "sesame"}'; echo "no: sesame" >&2; exit 3"#).await;
        assert!(answer.contains("ended with exit status: 3: \\\"no: [hidden]\\\""), "{answer}");
        assert!(answer.starts_with("{\"error\":") && answer.lines().count() == 1, "{answer}");
    }

    #[tokio::test]
    async fn the_mint_does_not_run_for_an_invalid_name() {
        let long = "a".repeat(MAX_USER + 1);
        for request in [&b""[..], b"\n", b"-x\n", b"a b\n", b"a\0b\n", b"../a\n", b"\xff\n", long.as_bytes()]
        {
            let answer = mint_reply(request, r#"printf '{"credential": "sesame"}'"#).await;
            assert!(answer.contains("expected one line"), "{request:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn only_the_first_line_is_read() {
        let answer = mint_reply(b"ann\nroot\n", r#"printf '{"credential": "for %s"}' "$*""#).await;
        assert_eq!(answer, "{\"credential\":\"for ann\"}\n");
    }

    #[tokio::test]
    async fn a_missing_request_times_out() {
        let (_held, silent) = tokio::io::duplex(64);
        let mint = Mint::new("true".parse().unwrap(), TIMEOUT);
        let answer = answer_within(Duration::from_millis(20), silent, &mint).await;
        assert!(matches!(answer, Err(AnswerError::Timeout)));
    }
}
