//! Runs the command that makes a one-time credential. What it prints never gets into the log, what
//! it says on stderr only as `redact` lets it; it can neither hang nor fill the memory, and there
//! are never more than `MAX_CONCURRENT` of them.

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

/// Commands at the same time, at most.
pub const MAX_CONCURRENT: usize = 4;
/// Bytes of stdout, at most.
const MAX_STDOUT: usize = 64 << 10;
/// Bytes of stderr that are kept.
const MAX_STDERR: usize = 4 << 10;
/// How long the pipes are read on after the command has ended, when a child of its still holds
/// them.
const PIPE_DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// A command and its arguments, before the user is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintCommand {
    program: String,
    arguments: Vec<String>,
}

/// Not a command.
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
    /// As it could be typed into a shell, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.arguments).map(String::as_str);
        // Words with a NUL cannot come from a command line.
        let line = shlex::try_join(words).map_err(|_| fmt::Error)?;
        line.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
        })
    }
}

/// Error of minting a credential; never contains one.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The name would be taken for an option, or forge a line.
    #[error("{0:?} cannot be an argument of the mint command; fix os_user in the routing table")]
    User(String),
    /// The program cannot be started.
    #[error("cannot start `{command}`: {source}; see --mint-command")]
    Start {
        /// The command with the user.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// Its status cannot be had.
    #[error("cannot wait for `{command}`: {source}")]
    Wait {
        /// The command with the user.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// All places were taken by others until the time was over.
    #[error("no free slot for `{command}` within {} ms: {MAX_CONCURRENT} are running", after.as_millis())]
    Busy {
        /// The command with the user.
        command: String,
        /// `--mint-timeout`.
        after: Duration,
    },
    /// It did not end.
    #[error("`{command}` did not end within {} ms{}", after.as_millis(), if *killed { " and was killed" } else { "; it runs as another user, so it was not killed" })]
    Timeout {
        /// The command with the user.
        command: String,
        /// `--mint-timeout`.
        after: Duration,
        /// The signal could be sent.
        killed: bool,
    },
    /// It failed.
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        /// The command with the user.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The first line of its stderr, quoted.
        stderr: String,
    },
    /// It printed too much to be right.
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
        /// Line, from 1; 0 when there is nothing.
        line: usize,
        /// Column.
        column: usize,
    },
    /// It is JSON without a credential.
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

/// What a command left behind.
#[derive(Debug, Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Mint {
    /// With `patience` for each command, above zero.
    #[must_use]
    pub fn new(command: MintCommand, timeout: Duration) -> Self {
        Self { command, timeout, slots: Arc::new(Semaphore::new(MAX_CONCURRENT)) }
    }

    /// A credential for this user of the machine.
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

/// In a process group of its own, so that what it starts can be killed along with it.
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

/// Kills it, if we may: what sudo runs is not ours to kill. Its place stays taken until it has
/// really ended, so that there are never more than there are places.
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
    /// Reads both pipes until the command ends.
    async fn collect(&mut self, child: &mut Child) -> io::Result<ExitStatus> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reading = async {
            tokio::join!(
                // One byte more, to tell too much. Then nobody reads on and the pipe is closed:
                // SIGPIPE.
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

/// Reads until the end or until there are `limit` bytes; gives the pipe back in the latter case.
async fn fill<P: AsyncRead + Unpin>(pipe: Option<P>, into: &mut Vec<u8>, limit: usize) -> Option<P> {
    let mut pipe = pipe?.take(limit as u64);
    // What was read before an error counts.
    let _ = pipe.read_to_end(into).await;
    (into.len() >= limit).then(|| pipe.into_inner())
}

async fn swallow<P: AsyncRead + Unpin>(mut pipe: P) {
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}

/// What the output of an ended command amounts to.
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
        // serde's own words quote what it found.
        Err(error) if error.is_data() => Err(MintError::NoCredential { command }),
        Err(error) => Err(MintError::NotJson { command, line: error.line(), column: error.column() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does_and_shown_as_it_can_be_typed() {
        let command: MintCommand = "sudo -n '/opt/my mint' \"a b\" c\\ d".parse().unwrap();
        assert_eq!(command.program, "sudo");
        assert_eq!(command.arguments, ["-n", "/opt/my mint", "a b", "c d"]);
        assert_eq!(command.to_string().parse(), Ok(command));
        for text in ["", "  ", "'a", "''", "# nothing"] {
            assert_eq!(text.parse::<MintCommand>(), Err(InvalidCommand), "{text:?}");
        }
    }

    #[test]
    fn what_is_printed_is_a_credential_or_a_cause_that_does_not_quote_it() {
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
    async fn a_user_that_could_be_an_option_is_refused() {
        let mint = Mint::new("true".parse().unwrap(), Duration::from_secs(1));
        for user in ["--help", "-", "a\nb"] {
            assert!(matches!(mint.run(user).await, Err(MintError::User(_))), "{user:?}");
        }
    }
}
