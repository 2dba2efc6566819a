//! Runs a program with a timeout: a stalled service manager must not block the doctor.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::super::facts::Collected;

/// More than a host under pressure needs.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Output limit in bytes.
const MOST: u64 = 4 << 20;

/// Returns stdout, or the reason of a failure.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Collected<String> {
    run_within(program, arguments, TIMEOUT)
}

fn run_within(program: &str, arguments: &[&str], timeout: Duration) -> Collected<String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").env("SYSTEMD_PAGER", "");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run {program}: {error}"))?;
    let (out, errors) = (child.stdout.take().map(read), child.stderr.take().map(read));
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} timed out after {} s", timeout.as_secs()));
            }
            Err(error) => return Err(format!("{program}: {error}")),
        }
    };
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let out = text(out);
    if status.success() {
        return Ok(out);
    }
    let errors = text(errors);
    let first = errors.lines().next().unwrap_or_default();
    Err(format!("{program} failed ({status}): {}", crate::present::text::safe(first)))
}

/// Reads concurrently, so that the program does not block on a full pipe.
fn read(stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut stream = stream.take(MOST);
        let _ = stream.read_to_end(&mut kept);
        String::from_utf8_lossy(&kept).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_failures_and_timeouts_are_returned() {
        assert_eq!(run("echo", &["hello"]), Ok("hello\n".to_owned()));
        let error = run("sh", &["-c", "echo no good >&2; exit 3"]).unwrap_err();
        assert!(error.contains("no good") && error.contains('3'), "{error}");
        assert!(run("no-such-program-here", &[]).unwrap_err().contains("cannot run"));
        let error = run_within("sleep", &["60"], Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("timed out"), "{error}");
    }
}
