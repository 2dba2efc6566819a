//! Both legs of real proxies, with the real kernel side: 1,000 concurrent sessions through nginx
//! and as many through Traefik, with reconnects and pools of connections. No pair may be wrong; the
//! recall is printed.
//!
//! Needs root, the eBPF object, nginx and Traefik; else it prints the reason and passes, or fails
//! in CI.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/kernel.rs"]
mod kernel;
#[path = "../support/records.rs"]
#[expect(dead_code, reason = "shared with another test program")]
mod records;
mod traffic;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use daemon::RunningDaemon;
use t3_record::{TcpCloseRecord, vocabulary::Actor};
use t3_testkit::harness::{Process, Traefik, free_port, trace_status};
use t3_trace_daemon::{direct::WatchedPort, options::Options};
use tokio::time::Instant;
use traffic::{End, Serve, Session, Start};

const CONCURRENT: u64 = 1_000;
/// Clients of plain requests per proxy.
const REQUESTS: u64 = 40;
const TIMEOUT: Duration = Duration::from_secs(60);

/// Records of all `tcp close` entries, as they are written.
struct Journal {
    records: Arc<Mutex<Vec<TcpCloseRecord>>>,
    stop: Arc<AtomicBool>,
    reader: std::thread::JoinHandle<()>,
}

impl Journal {
    fn read(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let records = Arc::<Mutex<Vec<TcpCloseRecord>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (to, stopped) = (Arc::clone(&records), Arc::clone(&stop));
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let Ok(length) = socket.recv(&mut buffer) else {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    continue;
                };
                to.lock().unwrap().extend(records::parse(&buffer[..length]));
            }
        });
        Self { records, stop, reader }
    }

    fn finish(self) -> Vec<TcpCloseRecord> {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().unwrap();
        Arc::into_inner(self.records).unwrap().into_inner().unwrap()
    }
}

/// nginx; its workers would survive the end of the first process by SIGKILL.
struct Nginx(Process);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.signal(libc::SIGTERM);
        let _ = self.0.wait(Duration::from_secs(10));
    }
}

/// A real nginx with a pool of connections to serve.
fn nginx(dir: &Path, to: SocketAddr) -> Result<(Nginx, SocketAddr), String> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port().map_err(|error| error.to_string())?));
    let path = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|part| format!("{part}_temp_path {path}/{part};"));
    let text = format!(
        "daemon off;\nworker_processes 2;\nworker_rlimit_nofile 16384;\nuser root;\npid {path}/nginx.pid;\n\
         error_log {path}/error.log;\nevents {{ worker_connections 8192; }}\nhttp {{\n{}\naccess_log off;\n\
         keepalive_requests 100000;\nupstream serve {{ server {to}; keepalive 64; }}\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         server {{ listen {address} backlog=4096; location / {{ proxy_pass http://serve; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }} }} }}\n",
        temporary.join("\n")
    );
    fs::write(dir.join("nginx.conf"), text).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(program.ok_or("nginx is not installed")?);
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    let mut nginx = Nginx(Process::start(command).map_err(|error| error.to_string())?);
    let ready = || std::net::TcpStream::connect(address).is_ok();
    nginx.0.until_ready("nginx", TIMEOUT, ready).map_err(|error| error.to_string())?;
    Ok((nginx, address))
}

/// Whether the tasks of this process run in time.
#[derive(Default)]
struct Host {
    ticks: AtomicUsize,
    late: AtomicUsize,
}

impl Host {
    async fn observe(self: Arc<Self>) {
        loop {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.ticks.fetch_add(1, Ordering::Relaxed);
            self.late
                .fetch_add(usize::from(before.elapsed() > Duration::from_millis(100)), Ordering::Relaxed);
        }
    }
}

/// Connections to these ports that are not over at the proxy's end.
fn open_connections(ports: &[u16]) -> usize {
    // proc_pid_net(5): after the number of the line the local address, the remote one and the
    // state, here those of TIME_WAIT and LISTEN.
    const OVER: [&str; 2] = ["06", "0A"];
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let is_open = |line: &&str| {
        let mut values = line.split_ascii_whitespace().skip(1);
        let port = values.next().and_then(|local| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok());
        let state = values.nth(1).unwrap_or_default();
        port.is_some_and(|port| ports.contains(&port)) && !OVER.contains(&state)
    };
    lines.filter(is_open).count()
}

/// A proxy under test.
struct Route {
    name: &'static str,
    address: SocketAddr,
    serve: Serve,
    sessions: Vec<Session>,
}

/// Sessions, pairs and wrong pairs of a group.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    sessions: usize,
    pairs: usize,
    wrong: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pair_of_a_thousand_sessions_is_wrong() {
    let Some(kernel) = kernel::load(|_| {}) else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = Start::default();
    let plans = [traffic::plan(CONCURRENT, 11, 1), traffic::plan(CONCURRENT, 12, 2)];
    let serves =
        [Serve::start(&plans[0], Arc::clone(&at)).await, Serve::start(&plans[1], Arc::clone(&at)).await];
    let nginx_dir = dir.path().join("nginx");
    fs::create_dir(&nginx_dir).unwrap();
    let (to_nginx, to_traefik) = (serves[0].address, serves[1].address);
    let path = dir.path().to_owned();
    let started = tokio::task::spawn_blocking(move || {
        let (process, address) = nginx(&nginx_dir, to_nginx)?;
        Ok::<_, String>((
            process,
            address,
            Traefik::start(&path, to_traefik).map_err(|error| error.to_string())?,
        ))
    });
    let (_nginx, nginx_at, traefik) = match started.await.unwrap() {
        Ok(started) => started,
        Err(why) => return kernel::skip(&why),
    };
    let mut routes = Vec::new();
    let proxies = [("nginx", nginx_at), ("traefik", traefik.address)];
    for ((serve, sessions), (name, address)) in serves.into_iter().zip(plans).zip(proxies) {
        routes.push(Route { name, address, serve, sessions });
    }

    let watch = |route: &Route| WatchedPort {
        min_duration: Duration::ZERO,
        budget: 1_000_000,
        proxy: true,
        ..WatchedPort::new(route.address.port())
    };
    let change = |options: &mut Options| {
        options.watch = routes.iter().map(watch).collect();
        options.watch_serve = false;
    };
    let (daemon, journald) = RunningDaemon::start(Box::new(kernel), change).await;
    let journal = Journal::read(journald);
    let start = Instant::now() + Duration::from_secs(1);
    at.set(start).unwrap();

    let host = Arc::new(Host::default());
    tokio::spawn(Arc::clone(&host).observe());
    let mut clients = tokio::task::JoinSet::new();
    for route in &routes {
        let last = route.sessions.iter().map(|session| session.ends).max().unwrap();
        let until = start + Duration::from_millis(last);
        for number in 0..REQUESTS {
            let address = route.address;
            clients.spawn(async move {
                traffic::requests(address, number, start, until).await;
                Some(())
            });
        }
        for session in &route.sessions {
            clients.spawn(traffic::client(route.address, *session, start));
        }
    }
    while clients.join_next().await.is_some() {}
    // A proxy without CPU closes its ends later.
    let finished = Instant::now();
    let ports: Vec<_> = routes.iter().map(|route| route.address.port()).collect();
    while open_connections(&ports) > 0 {
        assert!(finished.elapsed() < TIMEOUT, "{} connections are open", open_connections(&ports));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The last ones wait for their partners.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let is_late = host.late.load(Ordering::Relaxed) * 20 > host.ticks.load(Ordering::Relaxed);
    // The ring is finite, and an overloaded daemon does not empty it in time.
    let mut written = None;
    let lost = loop {
        let socket = daemon.socket.clone();
        let status = tokio::task::spawn_blocking(move || trace_status(&socket)).await.unwrap().unwrap();
        let direct = status.direct.unwrap();
        if written == Some(direct.written) {
            break usize::try_from(direct.lost).unwrap();
        }
        assert!(finished.elapsed() < TIMEOUT * 2, "the daemon makes records without end");
        written = Some(direct.written);
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    println!("late: {is_late}, lost: {lost}");
    let ended: Vec<_> = routes.iter().map(|route| route.serve.ended.load(Ordering::Relaxed)).collect();
    daemon.stop().await;
    let records = journal.finish();
    for (route, ended) in routes.iter().zip(ended) {
        let (sessions, pairs) = check(route, &records, lost);
        let port = route.serve.address.port();
        let singles = records.iter().filter(|record| record.is_outgoing() && record.port == port).count();
        let accepted = route.serve.accepted.load(Ordering::Relaxed);
        println!("{:8} {singles} single upstream connections, {ended} to {accepted} in all", route.name);
        let recorded = pairs + singles;
        let least = ended.saturating_sub(lost);
        assert!((least..=accepted).contains(&recorded), "{recorded}: none is lost, none has two records");
        // A proxy that forwards too late makes no pair. No pairs at all would test nothing.
        let least = if is_late { 1 } else { sessions / 4 };
        assert!(pairs >= least, "{pairs} pairs of {sessions} sessions");
    }
}

/// Returns the numbers of sessions and of pairs; up to `lost` have no record.
fn check(route: &Route, records: &[TcpCloseRecord], lost: usize) -> (usize, usize) {
    let of_ip = |ip: Ipv4Addr| {
        let ip = IpAddr::V4(ip).to_string();
        let port = route.address.port();
        records.iter().filter(move |record| record.ip == ip && record.port == port)
    };
    let connections = route.serve.connections.lock().unwrap();
    let mut counts = BTreeMap::<_, Count>::new();
    let mut not_once = Vec::new();
    let mut without = 0;
    let mut wrong_actors = Vec::new();
    for session in &route.sessions {
        let Some(connection) = connections.get(&session.ip) else {
            not_once.push(format!("{session:?}: not opened"));
            continue;
        };
        let found: Vec<_> = of_ip(session.ip).collect();
        let found: Vec<_> = found.into_iter().filter(|record| !record.is_outgoing()).collect();
        if found.is_empty() {
            without += 1;
        }
        let [record] = found[..] else {
            not_once.push(format!("{session:?}: {} records", found.len()));
            continue;
        };
        let actor = match session.end {
            End::ClientFin | End::ClientRst => Some(Actor::Client),
            End::ServeFin => Some(Actor::Upstream),
            End::Both => None,
        };
        if record.actor.is_some() && actor.is_some() && record.actor != actor {
            wrong_actors.push(format!("{session:?}: {}", record.to_line()));
        }
        for key in
            [(format!("{:?}", session.group), String::new()), (String::new(), format!("{:?}", session.end))]
        {
            let count = counts.entry(key).or_default();
            count.sessions += 1;
            if let Some(from) = &record.up_from {
                count.pairs += 1;
                count.wrong += usize::from(*from != connection.to_string());
                if *from != connection.to_string() {
                    println!("wrong: {session:?} {connection}: {}", record.to_line());
                }
            }
        }
    }
    let total = counts.iter().filter(|((_, end), _)| end.is_empty());
    let total = total.fold((0, 0, 0), |sum, (_, count)| {
        (sum.0 + count.sessions, sum.1 + count.pairs, sum.2 + count.wrong)
    });
    let percent = |part: usize, all: usize| part as f64 * 100.0 / all.max(1) as f64;
    for ((group, end), count) in &counts {
        println!(
            "{:8} {:10} {:5} sessions, {:5} pairs, {} wrong, recall {:.1} %",
            route.name,
            format!("{group}{end}"),
            count.sessions,
            count.pairs,
            count.wrong,
            percent(count.pairs, count.sessions)
        );
    }
    let (sessions, pairs, wrong) = total;
    println!(
        "{:8} {sessions} sessions, {pairs} pairs, precision {:.2} %, recall {:.1} %",
        route.name,
        percent(pairs - wrong, pairs),
        percent(pairs, sessions)
    );
    let some: Vec<_> = not_once.iter().take(5).collect();
    assert!(without <= lost && not_once.len() == without, "{lost} lost: {} of {some:#?}", not_once.len());
    assert_eq!(wrong, 0);
    assert_eq!(wrong_actors, Vec::<String>::new());
    (sessions, pairs)
}
