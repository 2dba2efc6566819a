//! Obtains a one-time credential from a socket in place of a command, so that t3-dispatch needs no
//! root privileges: sends the name of an OS user, receives one line of JSON, `{"credential":
//! "..."}` or `{"error": "..."}`. The server is [`super::mint_answer`].
//!
//! Of the response, only the text of an error is logged, escaped and truncated. Time and size are
//! limited.

use std::{
    convert::Infallible,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{credential::Credential, mint::MAX_CONCURRENT};

/// Maximum size of a response, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Maximum number of characters of an error that are logged.
const MAX_SHOWN: usize = 500;
/// Maximum length of a user name, in bytes (`LOGIN_NAME_MAX`).
pub(super) const MAX_USER: usize = 255;

/// Value of `--mint-socket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketOption {
    /// No socket: the command is run.
    Off,
    At(PathBuf),
}

impl FromStr for SocketOption {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "off" { Self::Off } else { Self::At(text.into()) })
    }
}

impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Error of minting a credential; never contains one.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The name contains characters that a user name cannot have, or would be an option.
    #[error("{0:?} cannot be the name of a user; fix os_user in the routing table")]
    User(String),
    /// No slot became free within the timeout.
    #[error("no free slot to query {} within {} ms: {MAX_CONCURRENT} requests are waiting", path.display(), after.as_millis())]
    Busy {
        path: PathBuf,
        /// `--mint-timeout`.
        after: Duration,
    },
    /// No listener, or no permission.
    #[error("cannot connect to {}: {source}; check t3-mint.socket, its owner and --mint-socket", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// No complete response within the timeout.
    #[error("{} did not answer within {} ms", path.display(), after.as_millis())]
    Timeout {
        path: PathBuf,
        /// `--mint-timeout`.
        after: Duration,
    },
    /// The server reported an error.
    #[error("{} answered: {why}", path.display())]
    Refused {
        path: PathBuf,
        /// Its text, escaped.
        why: String,
    },
    /// The server closed the connection without a response.
    #[error("{} ended the connection without an answer; see `journalctl -u 't3-mint@*'`", path.display())]
    NoAnswer { path: PathBuf },
    #[error("{} answered more than {MAX_ANSWER} bytes", path.display())]
    TooLong { path: PathBuf },
    /// The reply is not JSON. Its content is not logged: it may contain the credential.
    #[error("{} did not answer with JSON (line {line}, column {column})", path.display())]
    NotJson {
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column.
        column: usize,
    },
    /// The reply is JSON with neither a credential nor an error.
    #[error("{} answered JSON without a string named \"credential\"", path.display())]
    NoCredential { path: PathBuf },
}

/// The mint behind a socket.
#[derive(Debug)]
pub struct MintSocket {
    path: PathBuf,
    timeout: Duration,
    slots: Semaphore,
}

impl MintSocket {
    /// `timeout` per request must be positive.
    #[must_use]
    pub fn new(path: &Path, timeout: Duration) -> Self {
        Self { path: path.to_owned(), timeout, slots: Semaphore::new(MAX_CONCURRENT) }
    }

    /// Obtains a credential for this OS user.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn run(&self, user: &str) -> Result<Credential, SocketError> {
        if !can_be_a_user(user) {
            return Err(SocketError::User(user.to_owned()));
        }
        let path = || self.path.clone();
        let deadline = Instant::now() + self.timeout;
        let Ok(Ok(_slot)) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(SocketError::Busy { path: path(), after: self.timeout });
        };
        match timeout_at(deadline, self.query(user)).await {
            Ok(answer) => read(&self.path, &answer?),
            Err(_) => Err(SocketError::Timeout { path: path(), after: self.timeout }),
        }
    }

    async fn query(&self, user: &str) -> Result<Vec<u8>, SocketError> {
        let broken = |what| move |source| SocketError::Io { what, path: self.path.clone(), source };
        let mut stream = UnixStream::connect(&self.path)
            .await
            .map_err(|source| SocketError::Connect { path: self.path.clone(), source })?;
        let sent = async {
            stream.write_all(format!("{user}\n").as_bytes()).await?;
            stream.shutdown().await
        };
        // A peer that rejected already may have closed before it read the request.
        let sent = sent.await.map_err(broken("write to"));
        let mut answer = Vec::new();
        let received = stream.take(MAX_ANSWER as u64 + 1).read_to_end(&mut answer).await;
        if answer.is_empty() {
            sent?;
            received.map_err(broken("read from"))?;
        }
        Ok(answer)
    }
}

/// Returns whether the name is valid as a line and as an argument of the mint. Same rules as the
/// routing table, plus a length limit.
pub(super) fn can_be_a_user(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | ',');
    !name.is_empty() && name.len() <= MAX_USER && !name.starts_with('-') && !name.contains(odd)
}

/// Converts a response.
fn read(path: &Path, answer: &[u8]) -> Result<Credential, SocketError> {
    #[derive(Deserialize)]
    struct Answer {
        credential: Option<Credential>,
        error: Option<String>,
    }
    let path = path.to_owned();
    if answer.is_empty() {
        return Err(SocketError::NoAnswer { path });
    }
    if answer.len() > MAX_ANSWER {
        return Err(SocketError::TooLong { path });
    }
    match serde_json::from_slice(answer) {
        Ok(Answer { error: Some(error), .. }) => Err(SocketError::Refused { path, why: escape(&error) }),
        Ok(Answer { credential: Some(credential), .. }) if !credential.is_empty() => Ok(credential),
        Ok(_) => Err(SocketError::NoCredential { path }),
        // serde's message quotes the input.
        Err(error) if error.is_data() => Err(SocketError::NoCredential { path }),
        Err(error) => Err(SocketError::NotJson { path, line: error.line(), column: error.column() }),
    }
}

fn escape(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(MAX_SHOWN) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use tokio::{net::UnixListener, task::JoinHandle};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    struct Fake {
        dir: tempfile::TempDir,
        request: JoinHandle<String>,
    }

    impl Fake {
        /// Reads one request and sends this response; with `None`, stays silent and connected.
        fn new(answer: Option<&[u8]>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(dir.path().join("mint.sock")).unwrap();
            let answer = answer.map(<[u8]>::to_vec);
            let request = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                stream.read_to_string(&mut request).await.unwrap();
                match answer {
                    // The client disconnects after too many bytes.
                    Some(answer) => drop(stream.write_all(&answer).await),
                    None => std::future::pending().await,
                }
                request
            });
            Self { dir, request }
        }

        fn mint(&self, timeout: Duration) -> MintSocket {
            MintSocket::new(&self.dir.path().join("mint.sock"), timeout)
        }
    }

    #[tokio::test]
    async fn a_user_name_returns_a_credential() {
        let fake = Fake::new(Some(b"{\"credential\": \"sesame\"}\n"));
        let credential = fake.mint(TIMEOUT).run("ann").await.unwrap();
        assert_eq!(credential.text(), "sesame");
        assert_eq!(fake.request.await.unwrap(), "ann\n");
    }

    #[tokio::test]
    async fn any_other_response_is_an_error_that_does_not_quote_it() {
        let much = vec![b'x'; 10 * MAX_ANSWER];
        for (answer, cause) in [
            (&br#"{"error": "`t3-mint ann` ended\nwith 1"}"#[..], "answered: `t3-mint ann` ended\\nwith 1"),
            (br#"{"error": "no", "credential": "sesame"}"#, "answered: no"),
            (b"", "ended the connection without an answer"),
            (b"sesame", "did not answer with JSON (line 1, column 1)"),
            (br#"{"credential": "sesame""#, "did not answer with JSON (line 1, column 23)"),
            (br#"{"credential": ["sesame"]}"#, "answered JSON without a string named"),
            (br#"{"credential": ""}"#, "answered JSON without a string named"),
            (br#"{"sesame": "sesame"}"#, "answered JSON without a string named"),
            (b"\"sesame\"", "answered JSON without a string named"),
            (&much, "answered more than 65536 bytes"),
        ] {
            let fake = Fake::new(Some(answer));
            let error = fake.mint(TIMEOUT).run("ann").await.unwrap_err();
            let message = format!("{error} {error:?}");
            assert!(message.contains(cause), "{cause:?} is not in {message}");
            assert!(!message.contains("sesame"), "{message}");
            assert!(error.to_string().contains("mint.sock"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_times_out() {
        let fake = Fake::new(None);
        let error = fake.mint(Duration::from_millis(50)).run("ann").await.unwrap_err();
        assert!(matches!(error, SocketError::Timeout { .. }), "{error}");
        fake.request.abort();
    }

    #[tokio::test]
    async fn a_missing_or_unused_socket_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mint.sock");
        let mint = MintSocket::new(&path, TIMEOUT);
        let connect = |error: &SocketError| matches!(error, SocketError::Connect { .. });
        let error = mint.run("ann").await.unwrap_err();
        assert!(connect(&error) && error.to_string().contains("t3-mint.socket"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = mint.run("ann").await.unwrap_err();
        assert!(connect(&error), "{error}");
    }

    #[tokio::test]
    async fn an_invalid_user_is_not_sent() {
        let mint = MintSocket::new(Path::new("/nonexistent"), TIMEOUT);
        let long = "a".repeat(MAX_USER + 1);
        for user in ["", "-x", "a b", "a\nb", "a\0", "../a", "a:b", "a,b", long.as_str()] {
            assert!(matches!(mint.run(user).await, Err(SocketError::User(_))), "{user:?}");
        }
        for user in ["ann", "ann.b-c_d", "DOMAIN\\ann", "ann@example.org", "$x"] {
            assert!(can_be_a_user(user), "{user:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_requests_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mint.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mint = std::sync::Arc::new(MintSocket::new(&path, Duration::from_millis(300)));
        let all = (0..=MAX_CONCURRENT).map(|_| {
            let mint = std::sync::Arc::clone(&mint);
            tokio::spawn(async move { mint.run("ann").await.unwrap_err() })
        });
        let all: Vec<_> = all.collect();
        let mut busy = 0;
        for one in all {
            match one.await.unwrap() {
                SocketError::Busy { .. } => busy += 1,
                SocketError::Timeout { .. } => {}
                other => panic!("{other}"),
            }
        }
        // The one too many gets no place, or one at the last moment, when the others give up.
        assert!(busy <= 1);
        let mut connections = 0;
        while let Ok(accepted) = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await {
            drop(accepted.unwrap());
            connections += 1;
        }
        assert_eq!(connections + busy, MAX_CONCURRENT + 1);
    }

    #[test]
    fn off_disables_the_socket_and_all_else_is_a_path() {
        assert_eq!("off".parse(), Ok(SocketOption::Off));
        let at = "/run/t3-mint.sock".parse::<SocketOption>().unwrap();
        assert_eq!(at, SocketOption::At("/run/t3-mint.sock".into()));
        assert_eq!(
            (at.to_string(), SocketOption::Off.to_string()),
            ("/run/t3-mint.sock".to_owned(), "off".to_owned())
        );
    }
}
