//! A kernel socket: which it is, and whether anyone wants to know.

use core::ptr::read_volatile;

use t3_trace_abi::{ALL_NAMESPACES, Port, Stat, Tuple, TupleGen};

use crate::{
    globals::{
        NET_INUM, SK_COOKIE, SK_DADDR, SK_DPORT, SK_ERR, SK_FAMILY, SK_FLAGS, SK_NET, SK_NUM, SK_PROTOCOL,
        SK_RCV_SADDR, SK_SPORT, SK_STATE, SK_V6_DADDR, SK_V6_RCV_SADDR, SOCK_DONE_BIT,
    },
    maps::{self, GENERATION, LAST_GENERATION, NAMESPACES, PORTS, SCOPE, count},
};

pub mod state;

const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;

/// A `struct sock` on a watched port. `DIRECT`: the verifier knows its structure, so that it is
/// read without helpers (`Global::load`).
#[derive(Clone, Copy)]
pub struct Sock<const DIRECT: bool> {
    address: u64,
    local_port: u16,
    remote_port: u16,
    /// It is one end of a leg that dispatch could hold.
    pub of_dispatch: bool,
    /// It is serve's own end.
    pub of_serve: bool,
    /// It is an end whose connection is reported.
    pub of_watch: bool,
    /// It is on a port of a proxy.
    pub of_proxy: bool,
    /// Its port is not one on which connections are accepted.
    of_connect: bool,
    /// It is an end on a port where Close frames are read.
    pub of_websocket: bool,
}

impl Sock<false> {
    /// The socket at this address, if one of its ports is watched. Everything else on the machine
    /// ends here.
    #[inline(always)]
    pub fn watched(address: u64) -> Option<Self> {
        let (local_port, remote_port) = Self::ports(address)?;
        Self::on_ports(address, local_port, remote_port)
    }

    /// The socket at this address, whichever it is.
    #[inline(always)]
    pub fn any(address: u64) -> Option<Self> {
        let (local_port, remote_port) = Self::ports(address)?;
        Some(Self::outgoing(address, local_port, remote_port))
    }

    #[inline(always)]
    fn ports(address: u64) -> Option<(u16, u16)> {
        if !SK_DPORT.is_before(&SK_NUM) {
            return Some((port(SK_SPORT.read(address)?), port(SK_DPORT.read(address)?)));
        }
        let ports: [u8; 4] = SK_DPORT.read(address)?;
        // SAFETY: a local variable. Volatile: see `port`.
        let (low, high) = unsafe { (read_volatile(&ports[2]), read_volatile(&ports[3])) };
        let local_port = match u16::from(high) << 8 | u16::from(low) {
            0 => port(SK_SPORT.read(address)?),
            number => number,
        };
        Some((local_port, port([ports[0], ports[1]])))
    }
}

impl Sock<true> {
    /// As [`Sock::<false>::watched`], for an argument of a BTF tracepoint.
    #[inline(always)]
    pub fn watched(address: u64) -> Option<Self> {
        let (local_port, remote_port) = Self::ports(address)?;
        Self::on_ports(address, local_port, remote_port)
    }

    /// As [`Sock::<false>::any`].
    #[inline(always)]
    pub fn any(address: u64) -> Option<Self> {
        let (local_port, remote_port) = Self::ports(address)?;
        Some(Self::outgoing(address, local_port, remote_port))
    }

    #[inline(always)]
    fn ports(address: u64) -> Option<(u16, u16)> {
        let remote_port = port([SK_DPORT.load(address, 0), SK_DPORT.load(address, 1)]);
        let number = if SK_NUM.present() { SK_NUM.load::<u16>(address, 0) } else { 0 };
        let local_port = match number {
            // Not in `struct sock`.
            0 => port(SK_SPORT.read(address)?),
            number => number,
        };
        Some((local_port, remote_port))
    }
}

impl<const DIRECT: bool> Sock<DIRECT> {
    /// The end of a process that connected.
    #[inline(always)]
    fn outgoing(address: u64, local_port: u16, remote_port: u16) -> Self {
        Self {
            address,
            local_port,
            remote_port,
            of_dispatch: false,
            of_serve: false,
            of_watch: true,
            of_proxy: false,
            of_connect: true,
            of_websocket: false,
        }
    }

    #[inline(always)]
    fn on_ports(address: u64, local_port: u16, remote_port: u16) -> Option<Self> {
        let table = PORTS.get_ptr(0)?.cast::<u8>();
        // SAFETY: the table has a byte for every u16.
        let (local, remote, any) =
            unsafe { (*table.add(usize::from(local_port)), *table.add(usize::from(remote_port)), *table) };
        let of_dispatch = local & Port::LISTEN != 0 || remote & Port::SERVE != 0;
        let of_serve = local & Port::SERVE != 0;
        let of_connect = local & (Port::WATCH | Port::SERVE) == 0
            && any & Port::OUTGOING != 0
            && (local & Port::OUTGOING != 0 || maps::is_outgoing(local_port));
        let of_watch = of_connect || local & Port::WATCH != 0;
        if !(of_dispatch || of_serve || of_watch) {
            return None;
        }
        let of_proxy = local & Port::PROXY != 0;
        let of_websocket = local & Port::WEBSOCKET != 0 && !of_connect;
        let sock = Self {
            address,
            local_port,
            remote_port,
            of_dispatch,
            of_serve,
            of_watch,
            of_proxy,
            of_connect,
            of_websocket,
        };
        sock.in_watched_namespace().then_some(sock)
    }

    /// Anyone can make a network namespace and use a watched port in it.
    #[inline(always)]
    fn in_watched_namespace(self) -> bool {
        let Some(scope) = SCOPE.get(0).copied() else { return false };
        let (one, number) = ((scope & 0xffff_ffff) as u32, scope >> 32);
        if one == ALL_NAMESPACES {
            return true;
        }
        let namespace = self.netns();
        // SAFETY: only whether it is there matters.
        namespace == one || number > 1 && unsafe { NAMESPACES.get(namespace) }.is_some()
    }

    /// Inode of the socket's network namespace; 0 on a kernel without them.
    #[inline(always)]
    fn netns(self) -> u32 {
        let net: u64 = SK_NET.read_of::<_, DIRECT>(self.address, 0);
        if SK_NET.present() { NET_INUM.read_of::<_, DIRECT>(net, 0) } else { 0 }
    }

    /// It speaks TCP: the state and error hooks serve other protocols, too.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        SK_PROTOCOL.read_of::<_, DIRECT>(self.address, IPPROTO_TCP) == IPPROTO_TCP
    }

    /// Its state. What the state hook reports is the state that is about to be left.
    #[inline(always)]
    pub fn state(self) -> i32 {
        i32::from(SK_STATE.read_of::<u8, DIRECT>(self.address, 0))
    }

    /// Its pending error, positive. Not to be asked of a socket in TIME_WAIT, which is another
    /// structure.
    #[inline(always)]
    pub fn error(self) -> u32 {
        SK_ERR.read_of::<u32, DIRECT>(self.address, 0)
    }

    /// The peer's FIN has been taken.
    #[inline(always)]
    pub fn done(self) -> bool {
        SOCK_DONE_BIT.bit_of(SK_FLAGS.read_of::<u64, DIRECT>(self.address, 0))
    }

    /// Its cookie; `None` when nobody has asked for it, so that it cannot be dispatch's.
    #[inline(always)]
    pub fn cookie(self) -> Option<u64> {
        match SK_COOKIE.read_of::<u64, DIRECT>(self.address, 0) {
            0 => {
                count(Stat::Strangers);
                None
            }
            cookie => Some(cookie),
        }
    }

    /// Address of the structure.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.address
    }

    /// The process connected it; not accepted.
    #[inline(always)]
    pub fn is_outgoing(self) -> bool {
        self.of_connect
    }

    /// It is in one of the watched network namespaces.
    #[inline(always)]
    pub fn is_in_watched_namespace(self) -> bool {
        self.in_watched_namespace()
    }

    /// The port of this end.
    #[inline(always)]
    pub fn local_port(self) -> u16 {
        self.local_port
    }

    /// Its cookie; 0 when nobody has asked for it.
    #[inline(always)]
    pub fn cookie_if_any(self) -> u64 {
        SK_COOKIE.read_of::<u64, DIRECT>(self.address, 0)
    }

    /// Writes its ends.
    #[inline(always)]
    pub fn write_tuple(self, tuple: &mut Tuple) {
        if SK_V6_DADDR.present() && SK_FAMILY.read_of::<u16, DIRECT>(self.address, 0) == AF_INET6 {
            SK_V6_RCV_SADDR.read_into(self.address, &mut tuple.local);
            SK_V6_DADDR.read_into(self.address, &mut tuple.remote);
        } else {
            // ::ffff:a.b.c.d
            tuple.local[10] = 0xff;
            tuple.local[11] = 0xff;
            SK_RCV_SADDR.read_into(self.address, &mut tuple.local[12..]);
            tuple.remote[10] = 0xff;
            tuple.remote[11] = 0xff;
            SK_DADDR.read_into(self.address, &mut tuple.remote[12..]);
        }
        tuple.local_port = self.local_port;
        tuple.remote_port = self.remote_port;
        tuple.netns = self.netns();
    }
}

/// Which of the connections of this tuple it is: the live one, else the last one.
#[inline(always)]
pub fn generation(tuple: &Tuple) -> u64 {
    // SAFETY: a value that is only written whole; it is copied at once.
    unsafe { GENERATION.get(tuple).or_else(|| LAST_GENERATION.get(tuple)) }.copied().unwrap_or(0)
}

/// A new connection uses this tuple.
#[inline(always)]
pub fn established(tuple: &Tuple, at: u64) {
    if GENERATION.insert(tuple, at, 0).is_err() {
        // It can be evicted from there before its connection ends.
        count(Stat::SocketsLost);
        let _ = LAST_GENERATION.insert(tuple, at, 0);
    }
}

/// The connection is gone.
#[inline(always)]
pub fn gone(end: &TupleGen) {
    if end.generation != 0 {
        let _ = LAST_GENERATION.insert(&end.tuple, end.generation, 0);
        let _ = GENERATION.remove(&end.tuple);
    }
}

/// A port in network order, taken byte by byte: after a byte swap older verifiers know no bounds of
/// the number.
#[inline(always)]
fn port(bytes: [u8; 2]) -> u16 {
    // SAFETY: a local variable. Volatile, because LLVM makes a byte swap of it otherwise.
    let (high, low) = unsafe { (read_volatile(&bytes[0]), read_volatile(&bytes[1])) };
    u16::from(high) << 8 | u16::from(low)
}
