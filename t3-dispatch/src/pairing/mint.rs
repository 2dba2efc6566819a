//! Runs the command that mints a one-time credential. Its stdout is never logged, its stderr only
//! after `redact`. Time, output and the number of concurrent commands (`MAX_CONCURRENT`) are
//! limited.

use std::{
    fmt, io,
    process::{ExitStatus, Stdio},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::{credential::Credential, redact};

/// Maximum number of concurrent commands.
pub const MAX_CONCURRENT: usize = 4;
/// Maximum size of stdout, in bytes.
const MAX_STDOUT: usize = 64 << 10;
/// Bytes of stderr that are read.
const MAX_STDERR: usize = 4 << 10;
/// Timeout for the end of the pipes after the command has exited, when a child of it holds them
/// open.
const PIPE_DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Command and arguments, without the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintCommand {
    program: String,
    arguments: Vec<String>,
}

/// Error of parsing a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a command like \"sudo -n /usr/local/bin/t3-mint\": it is empty, or a quote is not closed")]
pub struct InvalidCommand;

impl FromStr for MintCommand {
    type Err = InvalidCommand;

    fn from_str(text: &str) -> Result<Self, InvalidCommand> {
        let mut words = shlex::split(text).ok_or(InvalidCommand)?.into_iter();
        let program = words.next().filter(|program| !program.is_empty()).ok_or(InvalidCommand)?;
        Ok(Self { program, arguments: words.collect() })
    }
}

impl fmt::Display for MintCommand {
    /// Writes the command in shell syntax, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.arguments).map(String::as_str);
        // A command line has no NUL.
        let line = shlex::try_join(words).map_err(|_| fmt::Error)?;
        line.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
        })
    }
}

/// Error of minting a credential; never contains one.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The name would be an option or contains control characters.
    #[error("{0:?} cannot be an argument of the mint command; fix os_user in the routing table")]
    User(String),
    #[error("cannot start `{command}`: {source}; see --mint-command")]
    Start {
        /// The command with the user.
        command: String,
        source: io::Error,
    },
    #[error("cannot wait for `{command}`: {source}")]
    Wait {
        /// The command with the user.
        command: String,
        source: io::Error,
    },
    /// No slot became free within the timeout.
    #[error("no free slot for `{command}` within {} ms: {MAX_CONCURRENT} are running", after.as_millis())]
    Busy {
        /// The command with the user.
        command: String,
        /// `--mint-timeout`.
        after: Duration,
    },
    #[error("`{command}` did not end within {} ms{}", after.as_millis(), if *killed { " and was killed" } else { "; it runs as another user, so it was not killed" })]
    Timeout {
        /// The command with the user.
        command: String,
        /// `--mint-timeout`.
        after: Duration,
        /// SIGKILL was sent.
        killed: bool,
    },
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        /// The command with the user.
        command: String,
        status: ExitStatus,
        /// The first line of its stderr, quoted.
        stderr: String,
    },
    #[error("`{command}` printed more than {MAX_STDOUT} bytes")]
    TooLong {
        /// The command with the user.
        command: String,
    },
    /// The output is not JSON. It is not logged: it may contain the credential.
    #[error("`{command}` did not print JSON (line {line}, column {column})")]
    NotJson {
        /// The command with the user.
        command: String,
        /// Line, from 1; 0 for empty output.
        line: usize,
        /// Column.
        column: usize,
    },
    /// The output is JSON without a credential.
    #[error("`{command}` printed JSON without a string named \"credential\"")]
    NoCredential {
        /// The command with the user.
        command: String,
    },
}

/// The mint.
#[derive(Debug)]
pub struct Mint {
    command: MintCommand,
    timeout: Duration,
    slots: Arc<Semaphore>,
}

/// Output of a command.
#[derive(Debug, Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Mint {
    /// `timeout` per command must be positive.
    #[must_use]
    pub fn new(command: MintCommand, timeout: Duration) -> Self {
        Self { command, timeout, slots: Arc::new(Semaphore::new(MAX_CONCURRENT)) }
    }

    /// Mints a credential for this OS user.
    ///
    /// # Errors
    /// [`MintError`].
    pub async fn run(&self, user: &str) -> Result<Credential, MintError> {
        if user.starts_with('-') || user.chars().any(char::is_control) {
            return Err(MintError::User(user.to_owned()));
        }
        let mut command = self.command.clone();
        command.arguments.push(user.to_owned());
        let shown = command.to_string();
        let deadline = Instant::now() + self.timeout;
        let slot = match timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => slot,
            _ => return Err(MintError::Busy { command: shown, after: self.timeout }),
        };
        let mut child = match start(&command) {
            Ok(child) => child,
            Err(source) => return Err(MintError::Start { command: shown, source }),
        };
        let mut output = Output::default();
        let ended = timeout_at(deadline, output.collect(&mut child)).await;
        let status = match ended {
            Ok(Ok(status)) => status,
            Ok(Err(source)) => return Err(MintError::Wait { command: shown, source }),
            Err(_) => {
                let killed = kill_group(child, slot);
                return Err(MintError::Timeout { command: shown, after: self.timeout, killed });
            }
        };
        read(shown, status, &output, user)
    }
}

/// Starts the command in a separate process group, so that its children can be killed with it.
fn start(command: &MintCommand) -> io::Result<Child> {
    Command::new(&command.program)
        .args(&command.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Kills the process group if permitted; a command under sudo cannot be killed. The slot stays in
/// use until the command has exited.
fn kill_group(mut child: Child, slot: OwnedSemaphorePermit) -> bool {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let killed = group.is_some_and(|group| kill_process_group(group, Signal::KILL).is_ok());
    tokio::spawn(async move {
        let _ = child.wait().await;
        drop(slot);
    });
    killed
}

impl Output {
    /// Reads both pipes until the command exits.
    async fn collect(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reading = async {
            tokio::join!(
                // One byte more than the limit, to detect excess. Then the pipe is closed: SIGPIPE.
                async { drop(fill(stdout, &mut self.stdout, MAX_STDOUT + 1).await) },
                async {
                    if let Some(rest) = fill(stderr, &mut self.stderr, MAX_STDERR).await {
                        swallow(rest).await;
                    }
                }
            );
        };
        tokio::pin!(reading);
        let first = tokio::select! {
            () = &mut reading => None,
            status = child.wait() => Some(status),
        };
        match first {
            None => child.wait().await,
            Some(status) => {
                let _ = timeout(PIPE_DRAIN_TIMEOUT, reading).await;
                status
            }
        }
    }
}

/// Reads until the end or `limit` bytes; returns the pipe in the latter case.
async fn fill<P: AsyncRead + Unpin>(pipe: Option<P>, into: &mut Vec<u8>, limit: usize) -> Option<P> {
    let mut pipe = pipe?.take(limit as u64);
    // Bytes read before an error count.
    let _ = pipe.read_to_end(into).await;
    (into.len() >= limit).then(|| pipe.into_inner())
}

async fn swallow<P: AsyncRead + Unpin>(mut pipe: P) {
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}

/// Converts status and output of an exited command.
fn read(command: String, status: ExitStatus, output: &Output, user: &str) -> Result<Credential, MintError> {
    #[derive(Deserialize)]
    struct Minted {
        credential: Credential,
    }
    if output.stdout.len() > MAX_STDOUT {
        return Err(MintError::TooLong { command });
    }
    if !status.success() {
        let stderr = redact::first_line(&output.stderr, &output.stdout, user);
        return Err(MintError::Failed { command, status, stderr });
    }
    match serde_json::from_slice(&output.stdout) {
        Ok(Minted { credential }) if !credential.is_empty() => Ok(credential),
        Ok(_) => Err(MintError::NoCredential { command }),
        // serde's message quotes the input.
        Err(error) if error.is_data() => Err(MintError::NoCredential { command }),
        Err(error) => Err(MintError::NotJson { command, line: error.line(), column: error.column() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_command_is_split_and_shown_in_shell_syntax() {
        let command: MintCommand = "sudo -n '/opt/my mint' \"a b\" c\\ d".parse().unwrap();
        assert_eq!(command.program, "sudo");
        assert_eq!(command.arguments, ["-n", "/opt/my mint", "a b", "c d"]);
        assert_eq!(command.to_string().parse(), Ok(command));
        for text in ["", "  ", "'a", "''", "# nothing"] {
            assert_eq!(text.parse::<MintCommand>(), Err(InvalidCommand), "{text:?}");
        }
    }

    #[test]
    fn output_is_a_credential_or_an_error_that_does_not_quote_it() {
        let outcome = |status: i32, stdout: &str| {
            let output = Output { stdout: stdout.into(), stderr: b"no: sesame".to_vec() };
            read("mint ann".to_owned(), ExitStatus::from_raw(status), &output, "ann")
                .map(|credential| credential.text().to_owned())
                .map_err(|error| format!("{error} {error:?}"))
        };
        assert_eq!(outcome(0, r#" {"id": 1, "credential": "sesame"} "#), Ok("sesame".to_owned()));
        for (status, stdout, cause) in [
            (0, "", "`mint ann` did not print JSON (line 1, column 0)"),
            (0, "sesame", "`mint ann` did not print JSON (line 1, column 1)"),
            (0, "{\"credential\": \"sesame\"}\n{}", "`mint ann` did not print JSON (line 2, column 1)"),
            (0, "\"sesame\"", "`mint ann` printed JSON without a string named"),
            (0, r#"{"credential": ["sesame"]}"#, "`mint ann` printed JSON without a string named"),
            (0, r#"{"credential": ""}"#, "`mint ann` printed JSON without a string named"),
            (0, r#"{"sesame": "sesame"}"#, "`mint ann` printed JSON without a string named"),
            (0x100, r#"{"credential": "sesame"}"#, "`mint ann` ended with exit status: 1: \"no: [hidden]\""),
            (9, r#"{"credential": "sesame"}"#, "`mint ann` ended with signal: 9 (SIGKILL): \"no: [hidden]\""),
        ] {
            let error = outcome(status, stdout).unwrap_err();
            assert!(error.starts_with(cause), "{stdout}: {error}");
            assert!(!error.contains("sesame"), "{stdout}: {error}");
        }
        let much = format!("{{\"credential\": \"{}\"}}", "s".repeat(MAX_STDOUT));
        assert!(outcome(0, &much).unwrap_err().contains("more than 65536 bytes"));
    }

    #[tokio::test]
    async fn a_user_that_could_be_an_option_is_rejected() {
        let mint = Mint::new("true".parse().unwrap(), Duration::from_secs(1));
        for user in ["--help", "-", "a\nb"] {
            assert!(matches!(mint.run(user).await, Err(MintError::User(_))), "{user:?}");
        }
    }
}
