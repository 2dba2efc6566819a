//! A link of the path that the test can break: forwards bytes from its own address to the next hop.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub struct BreakableLink {
    pub address: SocketAddr,
    to: watch::Sender<SocketAddr>,
    /// Generation of connections: an increase resets those of older generations.
    cut: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// A listener with a full accept queue, and the connections that fill it.
    hole: Mutex<Option<(Socket, Vec<Socket>)>>,
}

impl BreakableLink {
    pub fn open(address: SocketAddr, to: SocketAddr) -> Arc<Self> {
        let link = Arc::new(Self {
            address,
            to: watch::Sender::new(to),
            cut: watch::Sender::new(0),
            task: Mutex::default(),
            hole: Mutex::default(),
        });
        link.listen();
        link
    }

    /// Starts to forward connections.
    pub fn listen(&self) {
        self.hole.lock().unwrap().take();
        let listener = self.bind(128);
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let (to, cut) = (self.to.subscribe(), self.cut.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = *to.borrow();
                tokio::spawn(forward(near, target, cut.clone()));
            }
        });
        *self.task.lock().unwrap() = Some(task);
    }

    /// Forwards new connections to another hop.
    pub fn set_target(&self, to: SocketAddr) {
        self.to.send_replace(to);
    }

    /// Resets all open connections.
    pub fn reset(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }

    /// Closes the listener and resets all open connections.
    pub async fn close(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        self.reset();
    }

    /// Drops every SYN, as a listener with a full accept queue does.
    pub async fn drop_packets(&self) {
        self.close().await;
        let hole = self.bind(0);
        let mut fill = Vec::new();
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // Fails once the queue is full.
            let _ = socket.connect_timeout(&self.address.into(), Duration::from_millis(300));
            fill.push(socket);
        }
        *self.hole.lock().unwrap() = Some((hole, fill));
    }

    fn bind(&self, backlog: i32) -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&self.address.into()).unwrap();
        socket.listen(backlog).unwrap();
        socket
    }
}

async fn forward(mut near: TcpStream, to: SocketAddr, mut cut: watch::Receiver<u64>) {
    let now = *cut.borrow();
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = cut.wait_for(|cut| *cut != now) => {
            SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}
