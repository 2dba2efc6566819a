//! A stretch of the path that the test can break: a relay of bytes from an address of its own to
//! the next stop.

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

pub struct Gate {
    pub address: SocketAddr,
    to: watch::Sender<SocketAddr>,
    /// Counts up: connections of an older count end with a reset.
    cut: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// A listener whose queue is full, and what fills it.
    hole: Mutex<Option<(Socket, Vec<Socket>)>>,
}

impl Gate {
    pub fn open(address: SocketAddr, to: SocketAddr) -> Arc<Self> {
        let gate = Arc::new(Self {
            address,
            to: watch::Sender::new(to),
            cut: watch::Sender::new(0),
            task: Mutex::default(),
            hole: Mutex::default(),
        });
        gate.listen();
        gate
    }

    /// Passes on what comes, from now on.
    pub fn listen(&self) {
        self.hole.lock().unwrap().take();
        let listener = self.bind(128);
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let (to, cut) = (self.to.subscribe(), self.cut.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = *to.borrow();
                tokio::spawn(pass(near, target, cut.clone()));
            }
        });
        *self.task.lock().unwrap() = Some(task);
    }

    /// From now on to another stop.
    pub fn lead_to(&self, to: SocketAddr) {
        self.to.send_replace(to);
    }

    /// Resets every connection that is open.
    pub fn reset(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }

    /// Nobody listens any more; what is open is reset.
    pub async fn close(&self) {
        let task = self.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
        self.reset();
    }

    /// Swallows every SYN: a listener whose queue is full does not answer.
    pub async fn swallow(&self) {
        self.close().await;
        let hole = self.bind(0);
        let mut fill = Vec::new();
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            // Those that find the queue full do not get through, which is the point.
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

async fn pass(mut near: TcpStream, to: SocketAddr, mut cut: watch::Receiver<u64>) {
    let now = *cut.borrow();
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = cut.wait_for(|cut| *cut != now) => {
            SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}
