//! The kernel side of t3-trace: loads the eBPF programs, says which sockets and processes they shall watch, and reads
//! back what they saw.
//!
//! Synchronous and without a runtime of its own: every call is a system call or two, none of them waits. The ring of
//! events is a pollable descriptor ([`Events`]), to be wrapped by whoever has an event loop. It never draws a
//! conclusion about a session; that is `t3_record::verdict`.
//!
//! Facts live in maps that the programs update in place, so a look-up at close time cannot lose a race against the ring:
//! the ring only says *that* something happened. Needs `CAP_BPF`, `CAP_PERFMON` and `CAP_NET_ADMIN` or root, and a
//! kernel with BTF (5.10 and newer).

mod events;
mod types;

pub use events::Events;
pub use types::{
    Change, Event, Generation, Loss, Options, ProcessTrace, ServeTuple, SignalTrace, SocketKey, What,
};

use t3_record::{evidence::SocketTrace, wire::Hook, words::KernelSource};

/// Why the kernel side is not there, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This binary was built without the eBPF object.
    #[error("built without eBPF object; run cargo xtask build")]
    NoObject,
}

/// The loaded programs and their maps. Dropping it detaches everything.
#[derive(Debug)]
pub struct Kernel {
    hooks: Vec<Hook>,
    source: KernelSource,
}

impl Kernel {
    /// Loads and attaches what this kernel can give.
    ///
    /// # Errors
    /// When nothing could be loaded at all. A single hook that fails is no error: see [`Kernel::hooks`].
    pub fn load(_options: &Options) -> Result<Self, KernelError> {
        Err(KernelError::NoObject)
    }

    /// Replaces the set of watched ports: `listen` are dispatch's local ports, `serve` the ports of all serves. Sockets
    /// of other ports leave no trace.
    ///
    /// # Errors
    /// When the kernel refuses the update; the earlier set then stays.
    pub fn watch(&mut self, _listen: &[u16], _serve: &[u16]) -> Result<(), KernelError> {
        Ok(())
    }

    /// Asks for [`What::Exit`] and [`What::Oom`] events of this process (thread group id). Processes that begin to listen
    /// on a watched serve port are added by the kernel side itself.
    ///
    /// # Errors
    /// When the kernel refuses the update.
    pub fn watch_process(&mut self, _tgid: u32) -> Result<(), KernelError> {
        Ok(())
    }

    /// Which connection of this tuple is meant: to be asked while it is alive (at registration), and kept for
    /// [`Kernel::serve_end`]. Ephemeral ports are reused; the generation keeps sessions apart.
    /// [`Generation::UNKNOWN`] when the connection was older than the watch: also a valid key.
    pub fn serve_generation(&self, _tuple: &ServeTuple) -> Generation {
        Generation::UNKNOWN
    }

    /// What ended one of dispatch's sockets; `None` when nothing has been seen. Key: `SO_COOKIE`.
    pub fn socket(&self, _cookie: u64) -> Option<SocketTrace> {
        None
    }

    /// What ended serve's own end of an upstream connection; `None` when nothing has been seen.
    pub fn serve_end(&self, _tuple: &ServeTuple, _generation: Generation) -> Option<SocketTrace> {
        None
    }

    /// The fate of a process (thread group id in the initial pid namespace); `None` when nothing has been seen of it: it
    /// lives, or its end was before the load, or very many processes have ended since.
    pub fn process(&self, _tgid: u32) -> Option<ProcessTrace> {
        None
    }

    /// The ring of events, once: a pollable descriptor (`AsFd`) to be drained with [`Events::next_event`] whenever it is
    /// readable. `None` when it was taken before.
    pub fn take_events(&mut self) -> Option<Events> {
        None
    }

    /// Each hook: how it is attached, or why not.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// What the set of attached hooks amounts to.
    pub fn source(&self) -> KernelSource {
        self.source
    }

    /// What was lost since the load.
    pub fn lost(&self) -> Loss {
        Loss::default()
    }
}
