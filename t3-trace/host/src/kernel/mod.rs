//! Kernel side of t3-trace: loads the eBPF programs, sets the watched sockets and processes, and
//! reads back what was recorded.
//!
//! Synchronous and without a runtime: every call is one or two system calls and does not wait. The
//! event ring is a pollable descriptor ([`Events`]), for any event loop. It draws no conclusion
//! about a session; see `t3_record::verdict`.
//!
//! Facts are in maps that the programs update in place, so a look-up at close time cannot lose a
//! race against the ring: the ring only signals that something happened. Needs `CAP_BPF` and
//! `CAP_PERFMON`, or root, and a kernel with BTF (5.10 and newer).

mod btf;
mod decode;
mod events;
mod hooks;
mod layout;
mod message;
mod tables;
mod types;
pub mod view;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{Ebpf, EbpfLoader};
use t3_record::{
    evidence::SocketFacts,
    vocabulary::KernelSource,
    wire::{Hook, Table},
};
use t3_trace_abi::{Stat, Tuple, TupleGen, globals::SOCKET_EVENTS};

use crate::small_file;
use btf::Btf;
pub use btf::BtfError;
pub use events::{Connections, Events};
pub use hooks::{ABSENT, NEEDED, SWITCHED_OFF, affects_verdicts, offered};
use layout::Layout;
use tables::Tables;
pub use types::{
    Change, CloseFrames, ClosedConnection, ConnectionsOf, Event, EventKind, Functions, Generation, Inventory,
    Load, Loss, OpenConnection, Opener, Options, Outgoing, ProcessFacts, ProgramTime, ServeTuple,
    SignalFacts, SocketKey, Unreported, WEBSOCKETS,
};

/// Type information of the running kernel.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Empty without the eBPF object (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/t3-trace.bpf.o"));

/// Error of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built without the eBPF object.
    #[error("built without eBPF object; run cargo xtask build")]
    NoObject,
    /// The kernel's BTF cannot be read.
    #[error("cannot read the kernel's BTF in {VMLINUX}: CONFIG_DEBUG_INFO_BTF is required")]
    NoBtf(#[source] io::Error),
    /// The kernel's BTF lacks a required type or member.
    #[error("cannot find the required socket members in the kernel's BTF ({VMLINUX})")]
    Btf(#[from] BtfError),
    /// The kernel rejected the object's maps.
    #[error("cannot load the eBPF object: root, or CAP_BPF and CAP_PERFMON, is required")]
    Load(#[source] Box<aya::EbpfError>),
    /// The embedded object is from another build.
    #[error("the eBPF object has no map {map}; run cargo xtask build")]
    NoMap {
        /// The map.
        map: &'static str,
    },
    #[error("cannot access the eBPF map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// Error of the map operation.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// The required hook could not be attached.
    #[error("cannot attach to {hook}: {why}")]
    Hook {
        /// The hook.
        hook: String,
        /// Error of the kernel.
        why: String,
    },
}

/// Loaded programs and their maps. Dropping it detaches everything.
pub struct Kernel {
    ebpf: Ebpf,
    tables: Tables,
    events: Option<Events>,
    connections: Option<Connections>,
    ports: Ports,
    hooks: Vec<Hook>,
    source: KernelSource,
    reset_reasons: BTreeMap<u32, String>,
    missing: Vec<String>,
    sizes: Options,
    netns: u32,
    flush_log: Option<Box<dyn FnMut() + Send + Sync>>,
    /// The substitute for the hook of accept was needed.
    reads_accepts: bool,
}

/// Watched ports.
#[derive(Debug, Default)]
struct Ports {
    listen: Vec<u16>,
    serve: Vec<u16>,
    connections: Vec<ConnectionsOf>,
    outgoing: Outgoing,
}

impl Ports {
    fn is_watched(&self, port: u16) -> bool {
        self.connections.iter().any(|watched| watched.port == port)
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("source", &self.source)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads the object and attaches all hooks that this kernel offers.
    ///
    /// # Errors
    /// When nothing can be loaded. A single hook that fails is not an error: see [`Kernel::hooks`].
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        if OBJECT.is_empty() {
            return Err(KernelError::NoObject);
        }
        let vmlinux = fs::read(VMLINUX).map_err(KernelError::NoBtf)?;
        let btf = Btf::parse(&vmlinux)?;
        let layout = Layout::resolve(&btf)?;
        let aya_btf = aya::Btf::from_sys_fs().ok();

        let mut loader = EbpfLoader::new();
        loader.btf(aya_btf.as_ref());
        for (name, value) in &layout.globals {
            loader.override_global(name, value, true);
        }
        let socket_events = u16::from(options.socket_events);
        loader.override_global(SOCKET_EVENTS, &socket_events, true);
        for map in ["SOCKETS", "SERVE_ENDS", "GENERATION", "OPENERS"] {
            loader.map_max_entries(map, options.sockets);
        }
        for map in ["WEBSOCKETS", "CALLS"] {
            loader.map_max_entries(map, options.websockets.max(1));
        }
        loader.map_max_entries("PROCESSES", options.processes);
        loader.map_max_entries("EVENTS", options.ring_bytes);
        let mut ebpf = loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;

        // Exists only in an object built with the feature `log`.
        let flush_log = aya_log::EbpfLogger::init(&mut ebpf)
            .ok()
            .map(|mut logger| Box::new(move || logger.flush()) as Box<dyn FnMut() + Send + Sync>);
        let tables = Tables::take(&mut ebpf)?;
        let events = Some(Events::new(tables::ring(&mut ebpf, "EVENTS")?));
        let has_counters = layout.missing.iter().all(|line| !line.starts_with("TP_"));
        let connections = tables::ring(&mut ebpf, "CONNECTIONS")?;
        let connections = Some(Connections::new(connections, layout.reset_reasons.clone(), has_counters));
        let (mut hooks, source) = hooks::attach(&mut ebpf, &btf, aya_btf.as_ref(), options.functions)?;
        if options.websockets > 0 {
            hooks.extend(message::attach(&mut ebpf, &btf, aya_btf.as_ref(), options.functions));
        }
        Ok(Self {
            ebpf,
            tables,
            events,
            connections,
            ports: Ports::default(),
            hooks,
            source,
            reset_reasons: layout.reset_reasons,
            missing: layout.missing,
            sizes: *options,
            netns: tables::own_netns(),
            flush_log,
            reads_accepts: false,
        })
    }

    /// Replaces the set of watched ports: `listen` are dispatch's local ports, `serve` the ports of
    /// all serves. Sockets on other ports, or in other network namespaces than `namespaces` (inodes
    /// as of `/proc/PID/ns/net`), are not recorded: an unprivileged user can make a namespace, and
    /// any number of connections in it. Without namespaces all are watched.
    ///
    /// # Errors
    /// When the kernel rejects the update; the earlier set then stays.
    pub fn watch(&mut self, listen: &[u16], serve: &[u16], namespaces: &[u32]) -> Result<(), KernelError> {
        self.tables.set_namespaces(namespaces)?;
        let ports = Ports {
            listen: listen.to_vec(),
            serve: serve.to_vec(),
            connections: self.ports.connections.clone(),
            outgoing: self.ports.outgoing.clone(),
        };
        self.set_ports(ports)
    }

    /// Replaces the set of watched connections, whose closes are reported ([`Connections`]): those
    /// to these ports, which can be serve ports, too, and outgoing ones. The namespaces are those
    /// of [`Kernel::watch`].
    ///
    /// # Errors
    /// When the kernel rejects the update.
    pub fn watch_connections(
        &mut self,
        connections: &[ConnectionsOf],
        outgoing: &Outgoing,
    ) -> Result<(), KernelError> {
        let ports = Ports {
            listen: self.ports.listen.clone(),
            serve: self.ports.serve.clone(),
            connections: connections.to_vec(),
            outgoing: outgoing.clone(),
        };
        self.tables.set_min_ages(connections, outgoing)?;
        self.tables.set_cgroups(&outgoing.cgroups)?;
        let is_other = |of: &ConnectionsOf| !ports.serve.contains(&of.port);
        if !self.reads_accepts && connections.iter().any(is_other) {
            self.reads_accepts = true;
            hooks::accept_by_read(&mut self.ebpf, &mut self.hooks);
        }
        self.set_ports(ports)
    }

    fn set_ports(&mut self, ports: Ports) -> Result<(), KernelError> {
        self.tables.set_ports(&ports)?;
        self.tables.forget_unwatched(&ports);
        let known = &self.ports.outgoing.older;
        let older = ports.outgoing.older.iter().filter(|tuple| !known.contains(tuple));
        for tuple in older {
            self.tables.add_older(&self.key(tuple), crate::clock::monotonic())?;
        }
        self.ports = ports;
        Ok(())
    }

    /// Takes the ring of closed connections, as [`Kernel::take_events`].
    pub fn take_connections(&mut self) -> Option<Connections> {
        self.connections.take()
    }

    /// Open connections of [`Kernel::watch_connections`] that were established since they are
    /// watched, and outgoing ones that are older. Walks a map: milliseconds with thousands of
    /// connections.
    #[must_use]
    pub fn open_connections(&self) -> Vec<OpenConnection> {
        let open = self.tables.open().filter_map(|(tuple, established)| {
            let is_watched = self.ports.is_watched(tuple.local_port);
            let is_outgoing = !is_watched && !self.ports.serve.contains(&tuple.local_port);
            (is_watched || is_outgoing).then(|| OpenConnection {
                tuple: decode::tuple(&tuple),
                generation: Generation(established),
                is_outgoing,
            })
        });
        open.collect()
    }

    /// Process that accepted an open watched connection, or connected, if seen.
    #[must_use]
    pub fn opener(&self, tuple: &ServeTuple) -> Option<Opener> {
        decode::opener(&self.tables.opener(&self.key(tuple))?)
    }

    /// Closed connections that were not reported.
    #[must_use]
    pub fn unreported(&self) -> Unreported {
        let (short, lost) = (Stat::ConnectionsShort, Stat::ConnectionsLost);
        Unreported { short: self.tables.stat(short), lost: self.tables.stat(lost) }
    }

    /// Requests [`EventKind::Exit`] events of this process (thread group id). The eBPF programs add
    /// processes that start to listen on a watched serve port.
    ///
    /// # Errors
    /// When the kernel rejects the update.
    pub fn watch_process(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.tables.own(tgid)
    }

    /// Processes (thread group ids) that [`EventKind::Exit`] events are requested of: those that
    /// started to listen on a watched serve port, also ended ones.
    #[must_use]
    pub fn watched_processes(&self) -> Vec<u32> {
        self.tables.owners()
    }

    /// Returns which connection of this tuple is current. Call it while the connection is open (at
    /// registration) or right after its end, and keep the result for [`Kernel::serve_end`]:
    /// ephemeral ports are reused, and the generation distinguishes the sessions.
    /// [`Generation::UNKNOWN`] if the connection is older than the watch; also a valid key.
    #[must_use]
    pub fn serve_generation(&self, tuple: &ServeTuple) -> Generation {
        self.tables.generation(&self.key(tuple)).map_or(Generation::UNKNOWN, Generation)
    }

    /// Recorded events of one of dispatch's sockets, by `SO_COOKIE`; `None` if nothing was
    /// recorded.
    #[must_use]
    pub fn socket(&self, cookie: u64) -> Option<SocketFacts> {
        Some(decode::socket(&self.tables.socket(cookie)?, &self.reset_reasons))
    }

    /// Recorded events of serve's end of an upstream connection; `None` if nothing was recorded.
    #[must_use]
    pub fn serve_end(&self, tuple: &ServeTuple, generation: Generation) -> Option<SocketFacts> {
        let end = TupleGen { tuple: self.key(tuple), generation: generation.0 };
        Some(decode::socket(&self.tables.serve_end(&end)?, &self.reset_reasons))
    }

    /// Fate of a process (thread group id in the initial pid namespace); `None` if nothing was
    /// recorded: it is alive, it ended before the load, or many processes have ended since.
    #[must_use]
    pub fn process(&self, tgid: u32) -> Option<ProcessFacts> {
        Some(decode::process(&self.tables.process(tgid)?))
    }

    /// Takes the event ring: a pollable descriptor (`AsFd`), to be drained with
    /// [`Events::next_event`] when readable. `None` if it was taken before.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// Each hook, with how it is attached or why not.
    #[must_use]
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Record value for the set of attached hooks.
    #[must_use]
    pub fn source(&self) -> KernelSource {
        self.source
    }

    /// What the running kernel's BTF lacks, one line each; usually empty.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Lost events and facts since the load.
    #[must_use]
    pub fn lost(&self) -> Loss {
        Loss {
            events: self.tables.stat(Stat::EventsLost),
            sockets: self.tables.stat(Stat::SocketsLost),
            processes: self.tables.stat(Stat::ProcessesLost),
            missed: self.missed(),
        }
    }

    /// Use of the tables, and skipped program runs, at the time of [`Kernel::lost`].
    #[must_use]
    pub fn table_load(&self, lost: &Loss) -> Load {
        Load {
            full: lost.map_full(),
            added: self.tables.stat(Stat::SocketsAdded),
            size: self.sizes.sockets.into(),
            skipped: lost.missed,
        }
    }

    /// Makes the kernel measure the run time of all eBPF programs of the host, until the descriptor
    /// is closed. The measurement adds to each run: 55 ns on a virtual machine.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, or a kernel before 5.8.
    pub fn measure() -> io::Result<OwnedFd> {
        aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(|error| error.io_error)
    }

    /// Measured runs and time of each attached program since the load.
    #[must_use]
    pub fn program_times(&self) -> Vec<ProgramTime> {
        let measured = self.ebpf.programs().filter_map(|(name, program)| {
            let info = program.info().ok()?;
            let program = name.to_owned();
            Some(ProgramTime { program, runs: info.run_count(), time: info.run_time() })
        });
        measured.collect()
    }

    /// Events since the load: those written to the ring, read or not, and those about sockets
    /// without [`Options::socket_events`].
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.tables.stat(Stat::Events)
    }

    /// Sizes and contents. Walks the maps, which takes milliseconds when they are full: for
    /// diagnostics, not for each close.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let mut tables = self.tables.inventory(&self.sizes);
        let ring = u64::from(self.sizes.ring_bytes);
        tables.push(Table { name: "EVENTS".to_owned(), size: ring, used: None, forgets: false });
        Inventory { tables, events: Some(self.sent()), missing: self.missing.clone() }
    }

    /// Passes the log messages of the programs to the `log` crate. Has an effect only if the object
    /// was built with the feature `log` of `t3-trace-ebpf`.
    pub fn flush_log(&mut self) {
        if let Some(flush) = &mut self.flush_log {
            flush();
        }
    }

    /// Number of recorded sockets. Walks the maps: for diagnostics.
    #[must_use]
    pub fn remembered_sockets(&self) -> usize {
        self.tables.socket_entries()
    }

    /// Skipped program runs (5.12 and newer count them; before 6.1 raw tracepoints are never
    /// skipped).
    fn missed(&self) -> u64 {
        let misses = |fd: i32| {
            let info = small_file::text(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse::<u64>().ok())
        };
        let fds =
            self.ebpf.programs().filter_map(|(_, program)| Some(program.fd().ok()?.as_fd().as_raw_fd()));
        fds.filter_map(misses).sum()
    }

    fn key(&self, tuple: &ServeTuple) -> Tuple {
        Tuple {
            local: types::octets(tuple.local.ip()),
            remote: types::octets(tuple.remote.ip()),
            local_port: tuple.local.port(),
            remote_port: tuple.remote.port(),
            netns: tuple.netns.unwrap_or(self.netns),
        }
    }
}
