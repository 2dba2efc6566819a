//! A fake edge (tunnel, edge proxy) between the client and dispatch: relays bytes over several
//! tunnel connections; each can be cut with all its sessions at the same time.
//!
//! Does not parse HTTP. A cut is a FIN towards dispatch if nothing is unread, as from a process
//! that exits.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use crate::error::{Attempt, Result};

/// Connections over one tunnel connection: both sockets of each.
type Tunnel = Vec<(TcpStream, TcpStream)>;

/// The running fake edge.
#[derive(Debug)]
pub struct Edge {
    /// Address for clients.
    pub address: SocketAddr,
    tunnels: Arc<Mutex<Vec<Tunnel>>>,
}

impl Edge {
    /// Starts one with `tunnels` tunnel connections; clients are assigned in turn.
    pub fn start(tunnels: usize, to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).attempt(|| "listen as the edge".to_owned())?;
        let address = listener.local_addr().attempt(|| "ask for the edge's address".to_owned())?;
        let tunnels = Arc::new(Mutex::new((0..tunnels).map(|_| Tunnel::new()).collect::<Vec<_>>()));
        let shared = Arc::downgrade(&tunnels);
        std::thread::spawn(move || {
            for (turn, browser) in listener.incoming().flatten().enumerate() {
                let Some(tunnels) = shared.upgrade() else { return };
                let Ok(pair) = join(browser, to) else { continue };
                let mut tunnels = tunnels.lock().unwrap_or_else(PoisonError::into_inner);
                let count = tunnels.len().max(1);
                if let Some(tunnel) = tunnels.get_mut(turn % count) {
                    tunnel.push(pair);
                }
            }
        });
        Ok(Self { address, tunnels })
    }

    /// Cuts one tunnel connection with all its sessions.
    pub fn lose(&self, number: usize) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = tunnels.get_mut(number).map(std::mem::take).unwrap_or_default();
        // All sockets towards dispatch first, so that the cuts are as close together as in reality.
        for (_, dispatch) in &lost {
            let _ = dispatch.shutdown(Shutdown::Both);
        }
        for (browser, _) in &lost {
            let _ = browser.shutdown(Shutdown::Both);
        }
    }

    /// Cuts all, as a restart does.
    pub fn restart(&self) {
        let count = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).len();
        (0..count).for_each(|number| self.lose(number));
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.restart();
        // Wakes the thread of the listener, which then exits.
        self.tunnels = Arc::default();
        let _ = TcpStream::connect(self.address);
    }
}

fn join(browser: TcpStream, to: SocketAddr) -> io::Result<(TcpStream, TcpStream)> {
    let dispatch = TcpStream::connect(to)?;
    for stream in [&browser, &dispatch] {
        stream.set_nodelay(true)?;
    }
    pump(browser.try_clone()?, dispatch.try_clone()?);
    pump(dispatch.try_clone()?, browser.try_clone()?);
    Ok((browser, dispatch))
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
