//! Fixture: the kernel side or the reason why there is none, dispatch's sockets, and waiting for
//! facts.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::net::sockopt::{set_socket_linger, socket_cookie};
use t3_record::evidence::SocketFacts;
use t3_trace_host::kernel::{Generation, Kernel, Options, ServeTuple};

use crate::serve::Serve;

/// The kernel side, or `None` after the reason was printed.
pub fn kernel_with(options: &Options) -> Option<Kernel> {
    match Kernel::load(options) {
        Ok(kernel) => Some(kernel),
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            assert!(std::env::var_os("CI").is_none(), "skipped: {why}");
            eprintln!("skipped: {why}");
            None
        }
    }
}

pub fn kernel() -> Option<Kernel> {
    kernel_with(&Options::default())
}

/// An upstream leg: dispatch's socket and the keys of both ends.
pub struct Leg {
    pub stream: TcpStream,
    pub cookie: u64,
    pub tuple: ServeTuple,
    pub generation: Generation,
}

impl Leg {
    /// Connects to serve, waits for the accept, and registers.
    pub fn open(kernel: &Kernel, serve: &mut Serve) -> Self {
        let to = serve.address;
        Self::open_to(kernel, serve, to)
    }

    /// As [`Self::open`], to another address of serve.
    pub fn open_to(kernel: &Kernel, serve: &mut Serve, to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        serve.order("accept");
        Self::register(kernel, stream)
    }

    pub fn register(kernel: &Kernel, stream: TcpStream) -> Self {
        let cookie = socket_cookie(stream.as_fd()).unwrap();
        let tuple = ServeTuple::mirror(stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let generation = kernel.serve_generation(&tuple);
        assert!(generation.established_at().is_some(), "the connection was watched from its start");
        Self { stream, cookie, tuple, generation }
    }

    /// Facts of dispatch's end.
    pub fn dispatch_end(&self, kernel: &Kernel) -> SocketFacts {
        kernel.socket(self.cookie).unwrap_or_default()
    }

    /// Facts of serve's end.
    pub fn serve_end(&self, kernel: &Kernel) -> SocketFacts {
        kernel.serve_end(&self.tuple, self.generation).unwrap_or_default()
    }
}

/// Closes with RST.
pub fn reset(stream: TcpStream) {
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A connection within this process: the accepted socket and its peer.
pub fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Waits for a condition. It usually holds within microseconds; the limit only ends a failing test.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
