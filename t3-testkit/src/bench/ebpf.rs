//! `t3-bench ebpf`: cost of the eBPF programs of t3-trace, as the kernel measures it (`bpf_stats`).
//!
//! - Time of a program for a change of a socket that is not watched: on another port, and on a
//!   watched port in another network namespace.
//! - Time of all programs while a watched session closes: two connections, of which dispatch's ends
//!   and serve's end are watched.
//! - Sessions closed per second, with the lost events and facts.
//! - Time of all programs for a connection that dispatch does not carry.
//!
//! The times depend on the host and its load: compare two builds by running them alternately. Needs
//! root and the eBPF object.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Args, builder::TypedValueParser as _};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::socket_cookie,
};
use t3_trace_host::kernel::{Events, Kernel, Loss, Options};

use super::{
    ebpf_direct,
    ebpf_time::{Time, ns, times},
    raise_descriptors,
};
use crate::error::{Attempt, Result, TestError};

/// Sessions of a thread that are open at the same time.
const BATCH: usize = 250;

/// Amount of work.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// Number of rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub rounds: usize,
    /// Sessions of a round
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..).map(|n| n as usize))]
    pub sessions: usize,
    /// Duration of the measurement of closes per second
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub seconds: u64,
}

/// Runs the measurement and prints its results.
///
/// # Errors
/// The kernel side is missing, or a socket cannot be opened.
pub fn run(work: &Work) -> Result<()> {
    raise_descriptors()?;
    let mut kernel =
        Kernel::load(&Options { socket_events: false, ..Options::default() }).map_err(|error| {
            TestError::Missing {
                what: "the kernel side of t3-trace".to_owned(),
                remedy: format!("run as root after `cargo xtask build`: {error}"),
            }
        })?;
    let measured = Kernel::measure().attempt(|| "measure eBPF programs".to_owned())?;
    let mut events = kernel.take_events();
    let mut connections = kernel.take_connections();
    let programs: Vec<String> = kernel.program_times().into_iter().map(|time| time.program).collect();
    let place = Place::open()?;
    println!(
        "Linux {}; medians of {} rounds; programs: {}",
        rustix::system::uname().release().to_string_lossy(),
        work.rounds,
        programs.join(" ")
    );

    let (mut other_port, mut other_namespace) = (Vec::new(), Vec::new());
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..work.rounds {
        watch(&mut kernel, &[], None)?;
        other_port.push(times(&kernel, || place.open_and_close(work.sessions))?.0);
        // No namespace has this inode.
        watch(&mut kernel, &[&place], Some(1))?;
        other_namespace.push(times(&kernel, || place.open_and_close(work.sessions))?.0);
        watch(&mut kernel, &[&place], None)?;
        for _ in 0..work.sessions.div_ceil(BATCH) {
            let (time, sessions) = times(&kernel, || place.sessions(BATCH))?;
            opened.push(time);
            closed.push(
                times(&kernel, || {
                    drop(sessions);
                    Ok(())
                })?
                .0,
            );
            drain(&mut events);
        }
    }
    for (name, phase) in [("another port", &other_port), ("another namespace", &other_namespace)] {
        println!("state change, {name}: {}", ns(phase.iter().filter_map(Time::per_change)));
    }
    let sessions = |time: &Time| Some(time.all_ns / BATCH as f64);
    println!("watched session, opened: {}", ns(opened.iter().filter_map(sessions)));
    println!("watched session, closed: {}", ns(closed.iter().filter_map(sessions)));
    let changes = closed.iter().filter_map(Time::per_change);
    println!("state change, watched session closed: {}", ns(changes));
    ebpf_direct::run(&mut kernel, &mut connections, work.rounds, work.sessions)?;
    drop(measured);
    burst(&mut kernel, events, Duration::from_secs(work.seconds))
}

fn watch(kernel: &mut Kernel, places: &[&Place], namespace: Option<u32>) -> Result<()> {
    let ports = |pick: fn(&Place) -> u16| places.iter().map(|place| pick(place)).collect::<Vec<_>>();
    let namespaces: Vec<u32> = namespace.into_iter().collect();
    kernel.watch(&ports(|place| place.listen.1), &ports(|place| place.serve.1), &namespaces).map_err(
        |error| TestError::Unexpected {
            what: "the kernel watches the ports".to_owned(),
            got: error.to_string(),
        },
    )
}

/// Listening sockets of dispatch and of serve.
struct Place {
    listen: (TcpListener, u16),
    serve: (TcpListener, u16),
}

/// Both connections of a session. The fields are dropped in this order: the client ends it.
struct Session {
    _client: TcpStream,
    _downstream: TcpStream,
    _upstream: TcpStream,
    _serve: TcpStream,
}

impl Place {
    fn open() -> Result<Self> {
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            let port = listener.local_addr()?.port();
            Ok::<_, std::io::Error>((listener, port))
        };
        let failed = || "bind a listening socket".to_owned();
        Ok(Self { listen: bind().attempt(failed)?, serve: bind().attempt(failed)? })
    }

    /// Opens a session; `n` selects the address, so that ports in TIME_WAIT do not run out.
    fn session(&self, n: usize) -> Result<Session> {
        let pair = |(listener, port): &(TcpListener, u16)| {
            let host = u8::try_from(n % 250 + 1).unwrap_or(1);
            let client = TcpStream::connect(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), *port)))?;
            Ok::<_, std::io::Error>((client, listener.accept()?.0))
        };
        let (client, downstream) = pair(&self.listen).attempt(|| "connect to dispatch".to_owned())?;
        let (upstream, serve) = pair(&self.serve).attempt(|| "connect to serve".to_owned())?;
        for leg in [&downstream, &upstream] {
            let _ = socket_cookie(leg.as_fd());
        }
        Ok(Session { _client: client, _downstream: downstream, _upstream: upstream, _serve: serve })
    }

    fn sessions(&self, count: usize) -> Result<Vec<Session>> {
        (0..count).map(|n| self.session(n)).collect()
    }

    fn open_and_close(&self, count: usize) -> Result<()> {
        (0..count).try_for_each(|n| self.session(n).map(drop))
    }
}

fn drain(events: &mut Option<Events>) {
    while let Some(events) = events
        && events.next_event().is_some()
    {}
}

/// Closes sessions on two threads for `duration` while the ring is read, as the daemon does.
fn burst(kernel: &mut Kernel, mut events: Option<Events>, duration: Duration) -> Result<()> {
    const THREADS: usize = 2;
    let places = (0..THREADS).map(|_| Place::open()).collect::<Result<Vec<_>>>()?;
    watch(kernel, &places.iter().collect::<Vec<_>>(), None)?;
    drain(&mut events);
    let (before, sent) = (kernel.lost(), kernel.sent());
    let barrier = Barrier::new(THREADS);
    let (ended, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let until = Instant::now() + duration;
    let (closing, read) = thread::scope(|scope| {
        let reader = scope.spawn(|| events.as_mut().map_or(0, |events| read_until(events, &done)));
        let (barrier, ended) = (&barrier, &ended);
        let closers: Vec<_> = places
            .iter()
            .map(|place| {
                scope.spawn(move || {
                    let (mut closed, mut time) = (0, Duration::ZERO);
                    loop {
                        let sessions = place.sessions(BATCH);
                        if Instant::now() >= until || sessions.is_err() {
                            ended.store(true, Ordering::SeqCst);
                        }
                        // All threads close at the same time, and end in the same round.
                        barrier.wait();
                        let is_last = ended.load(Ordering::SeqCst);
                        let start = Instant::now();
                        let failed = sessions.map(drop).err();
                        time += start.elapsed();
                        closed += BATCH;
                        barrier.wait();
                        if is_last {
                            return failed.map_or(Ok((closed, time)), Err);
                        }
                    }
                })
            })
            .collect();
        let closing: Result<Vec<(usize, Duration)>> = closers
            .into_iter()
            .map(|closer| {
                closer.join().unwrap_or_else(|_| {
                    Err(TestError::Unexpected {
                        what: "a closed session".to_owned(),
                        got: "a panic".to_owned(),
                    })
                })
            })
            .collect();
        done.store(true, Ordering::SeqCst);
        (closing, reader.join().unwrap_or(0))
    });
    let rate: f64 = closing?
        .into_iter()
        .map(|(closed, time)| f64::from(u32::try_from(closed).unwrap_or(u32::MAX)) / time.as_secs_f64())
        .sum();
    let (Loss { events, sockets, processes, missed }, old) = (kernel.lost(), before);
    println!(
        "closes: {rate:.0} sessions/s; {} events, {read} read; lost: {} events, {} socket facts, {} process facts, {} runs",
        kernel.sent() - sent,
        events - old.events,
        sockets - old.sockets,
        processes - old.processes,
        missed - old.missed,
    );
    Ok(())
}

/// Reads the ring as the daemon does; returns the number of events.
fn read_until(events: &mut Events, done: &AtomicBool) -> u64 {
    let mut read = 0;
    while !done.load(Ordering::SeqCst) {
        let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let _ = poll(&mut [PollFd::new(&*events, PollFlags::IN)], Some(&wait));
        while events.next_event().is_some() {
            read += 1;
        }
    }
    read
}
