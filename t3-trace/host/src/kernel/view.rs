//! Interface of the daemon to the kernel side: the loaded programs, none, or a fake in tests.

use std::os::fd::{AsFd, BorrowedFd};

use t3_record::{evidence::SocketFacts, vocabulary::KernelSource, wire::Hook};

use crate::kernel::{
    ClosedConnection, Connections, ConnectionsOf, Event, Events, Generation, Inventory, Kernel, Load, Loss,
    OpenConnection, Opener, Outgoing, ProcessFacts, ServeTuple, Unreported,
};

/// Kernel side of the daemon. No call waits.
pub trait KernelView: Send + Sync {
    /// See [`Kernel::watch`].
    ///
    /// # Errors
    /// The reason as a text.
    fn watch(&mut self, listen: &[u16], serve: &[u16], namespaces: &[u32]) -> Result<(), String>;
    /// See [`Kernel::watch_connections`].
    ///
    /// # Errors
    /// The reason as a text.
    fn watch_connections(&mut self, _: &[ConnectionsOf], _: &Outgoing) -> Result<(), String> {
        Ok(())
    }
    /// See [`Kernel::take_connections`].
    fn take_connections(&mut self) -> Option<ConnectionStream> {
        None
    }
    /// See [`Kernel::open_connections`].
    fn open_connections(&self) -> Vec<OpenConnection> {
        Vec::new()
    }
    /// See [`Kernel::opener`].
    fn opener(&self, _: &ServeTuple) -> Option<Opener> {
        None
    }
    /// See [`Kernel::unreported`].
    fn unreported(&self) -> Unreported {
        Unreported::default()
    }
    /// See [`Kernel::serve_generation`].
    fn serve_generation(&self, tuple: &ServeTuple) -> Generation;
    /// See [`Kernel::socket`].
    fn socket(&self, cookie: u64) -> Option<SocketFacts>;
    /// See [`Kernel::serve_end`].
    fn serve_end(&self, tuple: &ServeTuple, generation: Generation) -> Option<SocketFacts>;
    /// See [`Kernel::process`].
    fn process(&self, tgid: u32) -> Option<ProcessFacts>;
    /// See [`Kernel::watched_processes`].
    fn watched_processes(&self) -> Vec<u32> {
        Vec::new()
    }
    /// See [`Kernel::take_events`].
    fn take_events(&mut self) -> Option<EventStream>;
    /// See [`Kernel::hooks`].
    fn hooks(&self) -> Vec<Hook>;
    /// See [`Kernel::source`].
    fn source(&self) -> KernelSource;
    /// See [`Kernel::lost`].
    fn lost(&self) -> Loss;
    /// See [`Kernel::table_load`].
    fn table_load(&self, lost: &Loss) -> Load {
        Load { full: lost.map_full(), added: 0, size: u64::MAX, skipped: lost.missed }
    }
    /// See [`Kernel::inventory`].
    fn inventory(&self) -> Inventory {
        Inventory::default()
    }
}

/// A pollable stream of kernel events.
pub struct EventStream(Box<dyn EventSource>);

/// Source of kernel events.
pub trait EventSource: AsFd + Send {
    /// See [`Events::next_event`].
    fn next_event(&mut self) -> Option<Event>;
}

impl EventSource for Events {
    fn next_event(&mut self) -> Option<Event> {
        Events::next_event(self)
    }
}

impl EventStream {
    #[must_use]
    pub fn new(source: impl EventSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Returns the next pending event; never waits.
    pub fn next_event(&mut self) -> Option<Event> {
        self.0.next_event()
    }
}

impl AsFd for EventStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A pollable stream of closed connections.
pub struct ConnectionStream(Box<dyn ConnectionSource>);

/// Source of closed connections.
pub trait ConnectionSource: AsFd + Send {
    /// See [`Connections::next_connection`].
    fn next_connection(&mut self) -> Option<ClosedConnection>;
}

impl ConnectionSource for Connections {
    fn next_connection(&mut self) -> Option<ClosedConnection> {
        Connections::next_connection(self)
    }
}

impl ConnectionStream {
    #[must_use]
    pub fn new(source: impl ConnectionSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Returns the next closed connection; never waits.
    pub fn next_connection(&mut self) -> Option<ClosedConnection> {
        self.0.next_connection()
    }
}

impl AsFd for ConnectionStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl KernelView for Kernel {
    fn watch(&mut self, listen: &[u16], serve: &[u16], namespaces: &[u32]) -> Result<(), String> {
        Kernel::watch(self, listen, serve, namespaces).map_err(|error| error.to_string())
    }
    fn watch_connections(&mut self, ports: &[ConnectionsOf], outgoing: &Outgoing) -> Result<(), String> {
        Kernel::watch_connections(self, ports, outgoing).map_err(|error| error.to_string())
    }
    fn take_connections(&mut self) -> Option<ConnectionStream> {
        Kernel::take_connections(self).map(ConnectionStream::new)
    }
    fn open_connections(&self) -> Vec<OpenConnection> {
        Kernel::open_connections(self)
    }
    fn opener(&self, tuple: &ServeTuple) -> Option<Opener> {
        Kernel::opener(self, tuple)
    }
    fn unreported(&self) -> Unreported {
        Kernel::unreported(self)
    }
    fn serve_generation(&self, tuple: &ServeTuple) -> Generation {
        Kernel::serve_generation(self, tuple)
    }
    fn socket(&self, cookie: u64) -> Option<SocketFacts> {
        Kernel::socket(self, cookie)
    }
    fn serve_end(&self, tuple: &ServeTuple, generation: Generation) -> Option<SocketFacts> {
        Kernel::serve_end(self, tuple, generation)
    }
    fn process(&self, tgid: u32) -> Option<ProcessFacts> {
        Kernel::process(self, tgid)
    }
    fn watched_processes(&self) -> Vec<u32> {
        Kernel::watched_processes(self)
    }
    fn take_events(&mut self) -> Option<EventStream> {
        Kernel::take_events(self).map(EventStream::new)
    }
    fn hooks(&self) -> Vec<Hook> {
        Kernel::hooks(self).to_vec()
    }
    fn source(&self) -> KernelSource {
        Kernel::source(self)
    }
    fn lost(&self) -> Loss {
        Kernel::lost(self)
    }
    fn table_load(&self, lost: &Loss) -> Load {
        Kernel::table_load(self, lost)
    }
    fn inventory(&self) -> Inventory {
        Kernel::inventory(self)
    }
}

/// No kernel side: disabled or not available.
#[derive(Debug, Clone)]
pub struct NoKernel {
    /// Reason.
    pub why: String,
}

impl KernelView for NoKernel {
    fn watch(&mut self, _: &[u16], _: &[u16], _: &[u32]) -> Result<(), String> {
        Ok(())
    }
    fn serve_generation(&self, _: &ServeTuple) -> Generation {
        Generation::UNKNOWN
    }
    fn socket(&self, _: u64) -> Option<SocketFacts> {
        None
    }
    fn serve_end(&self, _: &ServeTuple, _: Generation) -> Option<SocketFacts> {
        None
    }
    fn process(&self, _: u32) -> Option<ProcessFacts> {
        None
    }
    fn take_events(&mut self) -> Option<EventStream> {
        None
    }
    fn hooks(&self) -> Vec<Hook> {
        vec![Hook { name: "all".to_owned(), attached: None, why: Some(self.why.clone()) }]
    }
    fn source(&self) -> KernelSource {
        KernelSource::Off
    }
    fn lost(&self) -> Loss {
        Loss::default()
    }
}
