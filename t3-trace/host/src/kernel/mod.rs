//! The kernel side of t3-trace: loads the eBPF programs, says which sockets and processes they
//! shall watch, and reads back what they saw.
//!
//! Synchronous and without a runtime of its own: every call is a system call or two, none of them
//! waits. The ring of events is a pollable descriptor ([`Events`]), to be wrapped by whoever has an
//! event loop. It never draws a conclusion about a session; that is `t3_record::verdict`.
//!
//! Facts live in maps that the programs update in place, so a look-up at close time cannot lose a
//! race against the ring: the ring only says *that* something happened. Needs `CAP_BPF` and
//! `CAP_PERFMON`, or root, and a kernel with BTF (5.10 and newer).

mod btf;
mod decode;
mod events;
mod hooks;
mod layout;
mod tables;
mod types;
pub mod view;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, AsRawFd},
};

use aya::{Ebpf, EbpfLoader};
use t3_record::{
    evidence::SocketFacts,
    vocabulary::KernelSource,
    wire::{Hook, Table},
};
use t3_trace_abi::{Stat, Tuple, TupleGen};

use btf::Btf;
pub use btf::BtfError;
pub use events::Events;
pub use hooks::{ABSENT, NEEDED, SWITCHED_OFF, offered};
use layout::Layout;
use tables::Tables;
pub use types::{
    Change, Event, EventKind, Functions, Generation, Inventory, Loss, Options, ProcessFacts, ServeTuple,
    SignalFacts, SocketKey,
};

/// The running kernel's type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Empty when this was built without it (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/t3-trace.bpf.o"));

/// Why the kernel side is not there, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This binary was built without the eBPF object.
    #[error("built without eBPF object; run cargo xtask build")]
    NoObject,
    /// The kernel's type information cannot be read.
    #[error("cannot read the kernel's type information in {VMLINUX}: it needs CONFIG_DEBUG_INFO_BTF")]
    NoBtf(#[source] io::Error),
    /// The kernel's type information does not tell what is needed.
    #[error("the kernel's type information in {VMLINUX} does not tell where its sockets keep what is needed")]
    Btf(#[from] BtfError),
    /// The kernel did not take the object's maps.
    #[error("cannot load the eBPF object: it needs root, or CAP_BPF and CAP_PERFMON")]
    Load(#[source] Box<aya::EbpfError>),
    /// The embedded object is not of this build.
    #[error("the eBPF object has no map {map}; run cargo xtask build")]
    NoMap {
        /// The map.
        map: &'static str,
    },
    /// The kernel refused an operation on a map.
    #[error("the kernel refused access to the eBPF map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// What it said.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// The one hook without which there is nothing to tell.
    #[error("cannot attach to {hook}: {why}")]
    Hook {
        /// The hook.
        hook: String,
        /// What the kernel said.
        why: String,
    },
}

/// The loaded programs and their maps. Dropping it detaches everything.
pub struct Kernel {
    ebpf: Ebpf,
    tables: Tables,
    events: Option<Events>,
    hooks: Vec<Hook>,
    source: KernelSource,
    reset_reasons: BTreeMap<u32, String>,
    missing: Vec<String>,
    sizes: Options,
    netns: u32,
    flush_log: Option<Box<dyn FnMut() + Send>>,
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
    /// Loads and attaches what this kernel can give.
    ///
    /// # Errors
    /// When nothing could be loaded at all. A single hook that fails is no error: see
    /// [`Kernel::hooks`].
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
        for map in ["SOCKETS", "SERVE_ENDS", "GENERATION"] {
            loader.map_max_entries(map, options.sockets);
        }
        loader.map_max_entries("PROCESSES", options.processes);
        loader.map_max_entries("EVENTS", options.ring_bytes);
        let mut ebpf = loader.load(OBJECT).map_err(|error| KernelError::Load(Box::new(error)))?;

        // There is one only in an object built with the feature `log`.
        let flush_log = aya_log::EbpfLogger::init(&mut ebpf)
            .ok()
            .map(|mut logger| Box::new(move || logger.flush()) as Box<dyn FnMut() + Send>);
        let tables = Tables::take(&mut ebpf)?;
        let events = Some(Events::new(tables::ring(&mut ebpf)?));
        let (hooks, source) = hooks::attach(&mut ebpf, &btf, aya_btf.as_ref(), options.functions)?;
        Ok(Self {
            ebpf,
            tables,
            events,
            hooks,
            source,
            reset_reasons: layout.reset_reasons,
            missing: layout.missing,
            sizes: *options,
            netns: tables::own_netns(),
            flush_log,
        })
    }

    /// Replaces the set of watched ports: `listen` are dispatch's local ports, `serve` the ports of
    /// all serves. Sockets of other ports leave no trace.
    ///
    /// # Errors
    /// When the kernel refuses the update; the earlier set then stays.
    pub fn watch(&mut self, listen: &[u16], serve: &[u16]) -> Result<(), KernelError> {
        self.tables.set_ports(listen, serve)?;
        self.tables.forget_unwatched(serve);
        Ok(())
    }

    /// Asks for [`What::Exit`] events of this process (thread group id). Processes that begin to
    /// listen on a watched serve port are added by the kernel side itself.
    ///
    /// # Errors
    /// When the kernel refuses the update.
    pub fn watch_process(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.tables.own(tgid)
    }

    /// Which connection of this tuple is meant: to be asked while it is alive (at registration) or
    /// right after its end, and kept for [`Kernel::serve_end`]. Ephemeral ports are reused; the
    /// generation keeps sessions apart. [`Generation::UNKNOWN`] when the connection was older than
    /// the watch: also a valid key.
    #[must_use]
    pub fn serve_generation(&self, tuple: &ServeTuple) -> Generation {
        self.tables.generation(&self.key(tuple)).map_or(Generation::UNKNOWN, Generation)
    }

    /// What ended one of dispatch's sockets; `None` when nothing has been seen. Key: `SO_COOKIE`.
    #[must_use]
    pub fn socket(&self, cookie: u64) -> Option<SocketFacts> {
        Some(decode::socket(&self.tables.socket(cookie)?, &self.reset_reasons))
    }

    /// What ended serve's own end of an upstream connection; `None` when nothing has been seen.
    #[must_use]
    pub fn serve_end(&self, tuple: &ServeTuple, generation: Generation) -> Option<SocketFacts> {
        let end = TupleGen { tuple: self.key(tuple), generation: generation.0 };
        Some(decode::socket(&self.tables.serve_end(&end)?, &self.reset_reasons))
    }

    /// The fate of a process (thread group id in the initial pid namespace); `None` when nothing
    /// has been seen of it: it lives, or its end was before the load, or very many processes have
    /// ended since.
    #[must_use]
    pub fn process(&self, tgid: u32) -> Option<ProcessFacts> {
        Some(decode::process(&self.tables.process(tgid)?))
    }

    /// The ring of events, once: a pollable descriptor (`AsFd`) to be drained with
    /// [`Events::next_event`] whenever it is readable. `None` when it was taken before.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// Each hook: how it is attached, or why not.
    #[must_use]
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// What the set of attached hooks amounts to.
    #[must_use]
    pub fn source(&self) -> KernelSource {
        self.source
    }

    /// What the running kernel's BTF does not tell, one line each; usually nothing.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What was lost since the load.
    #[must_use]
    pub fn lost(&self) -> Loss {
        Loss {
            events: self.tables.stat(Stat::EventsLost),
            sockets: self.tables.stat(Stat::SocketsLost),
            processes: self.tables.stat(Stat::ProcessesLost),
            missed: self.missed(),
        }
    }

    /// Events written to the ring since the load, read or not.
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

    /// Passes the programs' own diagnostics on to the `log` crate. Nothing to do unless the object
    /// was built with the feature `log` of `t3-trace-ebpf`.
    pub fn flush_log(&mut self) {
        if let Some(flush) = &mut self.flush_log {
            flush();
        }
    }

    /// Sockets that are remembered now. Walks the maps: for diagnostics.
    #[must_use]
    pub fn remembered_sockets(&self) -> usize {
        self.tables.socket_entries()
    }

    /// Runs the kernel left out (5.12 and newer count them; before 6.1 raw tracepoints are never
    /// left out).
    fn missed(&self) -> u64 {
        let misses = |fd: i32| {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
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
