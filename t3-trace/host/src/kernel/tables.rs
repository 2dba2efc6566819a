//! eBPF maps in user space: keys and values are bytes, encoded and decoded by `t3_trace_abi`.

use std::fs;

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use t3_record::wire::Table;
use t3_trace_abi::{ALL_NAMESPACES, Opener, Port, Process, Socket, Stat, Tuple, TupleGen, Wire};

use super::{ConnectionsOf, KernelError, Options, Outgoing, Ports};

type Bytes<const N: usize> = [u8; N];

pub(super) struct Tables {
    ports: Array<MapData, Bytes<{ Port::TABLE }>>,
    scope: Array<MapData, u64>,
    namespaces: HashMap<MapData, u32, u8>,
    sockets: HashMap<MapData, u64, Bytes<{ Socket::SIZE }>>,
    watched_ends: HashMap<MapData, Bytes<{ TupleGen::SIZE }>, Bytes<{ Socket::SIZE }>>,
    min_age: HashMap<MapData, u16, u64>,
    openers: HashMap<MapData, Bytes<{ Tuple::SIZE }>, Bytes<{ Opener::SIZE }>>,
    outgoing: Array<MapData, u64>,
    cgroups: HashMap<MapData, u64, u8>,
    serve_ends: HashMap<MapData, Bytes<{ TupleGen::SIZE }>, Bytes<{ Socket::SIZE }>>,
    generation: HashMap<MapData, Bytes<{ Tuple::SIZE }>, u64>,
    last_generation: HashMap<MapData, Bytes<{ Tuple::SIZE }>, u64>,
    processes: HashMap<MapData, u32, Bytes<{ Process::SIZE }>>,
    owners: HashMap<MapData, u32, u8>,
    stats: PerCpuArray<MapData, u64>,
}

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            ports: take(ebpf, "PORTS")?,
            scope: take(ebpf, "SCOPE")?,
            namespaces: take(ebpf, "NAMESPACES")?,
            sockets: take(ebpf, "SOCKETS")?,
            watched_ends: take(ebpf, "WATCHED_ENDS")?,
            min_age: take(ebpf, "MIN_AGE")?,
            openers: take(ebpf, "OPENERS")?,
            outgoing: take(ebpf, "OUTGOING")?,
            cgroups: take(ebpf, "CGROUPS")?,
            serve_ends: take(ebpf, "SERVE_ENDS")?,
            generation: take(ebpf, "GENERATION")?,
            last_generation: take(ebpf, "LAST_GENERATION")?,
            processes: take(ebpf, "PROCESSES")?,
            owners: take(ebpf, "OWNERS")?,
            stats: take(ebpf, "STATS")?,
        })
    }

    pub(super) fn set_ports(&mut self, ports: &Ports) -> Result<(), KernelError> {
        let mut table = [0; Port::TABLE];
        for (ports, bit) in [(&ports.listen, Port::LISTEN), (&ports.serve, Port::SERVE)] {
            for port in ports {
                table[usize::from(*port)] |= bit;
            }
        }
        for watched in &ports.connections {
            let proxy = if watched.is_proxy { Port::PROXY } else { 0 };
            let websocket = if watched.has_websocket { Port::WEBSOCKET } else { 0 };
            table[usize::from(watched.port)] |= Port::WATCH | proxy | websocket;
        }
        let has_proxy = ports.connections.iter().any(|watched| watched.is_proxy);
        if has_proxy || !ports.outgoing.cgroups.is_empty() || !ports.outgoing.older.is_empty() {
            table[0] |= Port::OUTGOING;
        }
        for tuple in &ports.outgoing.older {
            table[usize::from(tuple.local.port())] |= Port::OUTGOING;
        }
        self.ports.set(0, table, 0).map_err(|source| map_error("PORTS", source))
    }

    /// Replaces the minimum ages of watched connections: by port, that of outgoing ones at port 0.
    pub(super) fn set_min_ages(
        &mut self,
        ports: &[ConnectionsOf],
        outgoing: &Outgoing,
    ) -> Result<(), KernelError> {
        let failed = |source| map_error("MIN_AGE", source);
        self.min_age.insert(0, outgoing.min_age, 0).map_err(failed)?;
        for watched in ports {
            self.min_age.insert(watched.port, watched.min_age, 0).map_err(failed)?;
        }
        let stale: Vec<_> = self.min_age.keys().filter_map(Result::ok).collect();
        let is_wanted = |port: u16| port == 0 || ports.iter().any(|known| known.port == port);
        for port in stale.iter().filter(|port| !is_wanted(**port)) {
            self.min_age.remove(port).map_err(failed)?;
        }
        Ok(())
    }

    /// Replaces the cgroups whose outgoing connections are watched.
    pub(super) fn set_cgroups(&mut self, cgroups: &[u64]) -> Result<(), KernelError> {
        let failed = |source| map_error("CGROUPS", source);
        for cgroup in cgroups {
            self.cgroups.insert(cgroup, 1, 0).map_err(failed)?;
        }
        let stale: Vec<_> = self.cgroups.keys().filter_map(Result::ok).collect();
        for cgroup in stale.iter().filter(|cgroup| !cgroups.contains(cgroup)) {
            self.cgroups.remove(cgroup).map_err(failed)?;
        }
        Ok(())
    }

    /// Adds an open outgoing connection that is older than the watch.
    pub(super) fn add_older(&mut self, tuple: &Tuple, now: u64) -> Result<(), KernelError> {
        let mut key = [0; Tuple::SIZE];
        tuple.write(&mut key);
        if self.generation.get(&key, 0).is_ok() {
            return Ok(());
        }
        self.generation.insert(key, now, 0).map_err(|source| map_error("GENERATION", source))
    }

    /// Process at this end of a connection, as far as it is known.
    pub(super) fn opener(&self, tuple: &Tuple) -> Option<Opener> {
        let mut key = [0; Tuple::SIZE];
        tuple.write(&mut key);
        Opener::decode(&self.openers.get(&key, 0).ok()?).ok()
    }

    /// Replaces the set of watched namespaces; an empty one means all.
    pub(super) fn set_namespaces(&mut self, namespaces: &[u32]) -> Result<(), KernelError> {
        let failed = |source| map_error("NAMESPACES", source);
        let wanted = if namespaces.is_empty() { &[ALL_NAMESPACES] } else { namespaces };
        for namespace in wanted {
            self.namespaces.insert(namespace, 1, 0).map_err(failed)?;
        }
        let (one, number) = (wanted.first().copied().unwrap_or(ALL_NAMESPACES), wanted.len() as u64);
        let scope = number << 32 | u64::from(one);
        self.scope.set(0, scope, 0).map_err(|source| map_error("SCOPE", source))?;
        let stale: Vec<_> = self.namespaces.keys().filter_map(Result::ok).collect();
        for namespace in stale.iter().filter(|namespace| !wanted.contains(namespace)) {
            self.namespaces.remove(namespace).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes open connections on ports that are no longer watched: their close will not be
    /// recorded.
    ///
    /// Not those of earlier proxies' outgoing connections, which the programs still follow.
    pub(super) fn forget_unwatched(&mut self, ports: &Ports) {
        let stale = |key: &Bytes<{ Tuple::SIZE }>| {
            let port = Tuple::read(key).local_port;
            let is_outgoing = self.outgoing.get(&u32::from(port), 0).is_ok_and(|number| number != 0);
            let is_older = || ports.outgoing.older.iter().any(|older| older.local.port() == port);
            !ports.serve.contains(&port) && !ports.is_watched(port) && !is_outgoing && !is_older()
        };
        let keys: Vec<_> = self.generation.keys().filter_map(Result::ok).filter(stale).collect();
        for key in keys {
            let _ = self.openers.remove(&key);
            let _ = self.generation.remove(&key);
        }
    }

    pub(super) fn own(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.owners.insert(tgid, 1, 0).map_err(|source| map_error("OWNERS", source))
    }

    pub(super) fn owners(&self) -> Vec<u32> {
        self.owners.keys().filter_map(Result::ok).collect()
    }

    pub(super) fn socket(&self, cookie: u64) -> Option<Socket> {
        Socket::decode(&self.sockets.get(&cookie, 0).ok()?).ok()
    }

    pub(super) fn serve_end(&self, end: &TupleGen) -> Option<Socket> {
        let mut key = [0; TupleGen::SIZE];
        end.write(&mut key);
        let found = self.serve_ends.get(&key, 0).or_else(|_| self.watched_ends.get(&key, 0));
        Socket::decode(&found.ok()?).ok()
    }

    /// Open connections to watched and serve ports, with the time of their establishment.
    pub(super) fn open(&self) -> impl Iterator<Item = (Tuple, u64)> {
        let entries = self.generation.iter().filter_map(Result::ok);
        entries.map(|(tuple, established)| (Tuple::read(&tuple), established))
    }

    pub(super) fn generation(&self, tuple: &Tuple) -> Option<u64> {
        let mut key = [0; Tuple::SIZE];
        tuple.write(&mut key);
        self.generation.get(&key, 0).or_else(|_| self.last_generation.get(&key, 0)).ok()
    }

    pub(super) fn process(&self, tgid: u32) -> Option<Process> {
        Process::decode(&self.processes.get(&tgid, 0).ok()?).ok()
    }

    /// Sum of a counter over all CPUs.
    pub(super) fn stat(&self, stat: Stat) -> u64 {
        self.stats.get(&(stat as u32), 0).map_or(0, |values| values.iter().sum())
    }

    /// Size and number of entries of each table.
    pub(super) fn inventory(&self, sizes: &Options) -> Vec<Table> {
        let (sockets, processes) = (sizes.sockets, sizes.processes);
        vec![
            table("SOCKETS", sockets, true, self.sockets.keys()),
            table("SERVE_ENDS", sockets, true, self.serve_ends.keys()),
            table("GENERATION", sockets, false, self.generation.keys()),
            table("PROCESSES", processes, true, self.processes.keys()),
        ]
    }

    /// Entries in the socket maps, for tests and diagnostics.
    pub(super) fn socket_entries(&self) -> usize {
        self.sockets.keys().filter(Result::is_ok).count()
            + self.serve_ends.keys().filter(Result::is_ok).count()
    }
}

/// A concurrent change can restart the walk over a map: stop after the size of the map.
fn table<K>(name: &str, size: u32, forgets: bool, keys: impl Iterator<Item = Result<K, MapError>>) -> Table {
    let used = keys.take(size as usize).filter(Result::is_ok).count() as u64;
    Table { name: name.to_owned(), size: u64::from(size), used: Some(used), forgets }
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(KernelError::NoMap { map: name })?;
    map.try_into().map_err(|source| map_error(name, source))
}

pub(super) fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, KernelError> {
    take(ebpf, name)
}

fn map_error(map: &'static str, source: MapError) -> KernelError {
    KernelError::Map { map, source: Box::new(source) }
}

/// Inode of this process's network namespace, as in `struct net`; 0 if procfs is not readable.
pub(super) fn own_netns() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/net").ok().and_then(|meta| u32::try_from(meta.ino()).ok()).unwrap_or(0)
}
