//! A fake `t3 serve`: its HTTP responses and heartbeat, and every kind of end on request.
//!
//! One event loop, as in node, so that a busy loop stops all responses; the other threads are idle.
//! Orders are lines on a control socket or text messages that start with `!`, and apply to the
//! newest open session. Does not log to the journal.

mod act;
mod auth;
mod http;
mod order;
mod session;
mod socket;

pub use act::eat_if_asked;
pub use auth::CREDENTIAL_PREFIX;
pub use order::{BadOrder, Opening, Order, PairingAnswer, SessionAnswer};

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};

use crate::{
    error::{Attempt, Result},
    sys,
};

/// Options of the fake serve.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "t3-serve-standin",
    about = "Behave like t3 serve and end connections as ordered (for tests and the demo)"
)]
pub struct Options {
    /// Port to listen on.
    #[arg(long)]
    pub port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub ip: IpAddr,
    /// Length of the accept queue.
    #[arg(long, default_value_t = 1024)]
    pub backlog: u32,
    /// Unix socket for orders, one per line; the reply is `ok` or an error.
    #[arg(long)]
    pub control: Option<PathBuf>,
    /// Threads of the process, as in node; one does all the work.
    #[arg(long, default_value_t = 4)]
    pub threads: usize,
    /// Response to WebSocket handshakes: accept, silent, status:N, garbage, wrong_accept, eof,
    /// reset.
    #[arg(long, default_value = "accept")]
    pub opening: Opening,
    /// Do not listen before the order `listen`.
    #[arg(long)]
    pub no_listen: bool,
    /// Accept permessage-deflate when the client offers it, as t3 serve does.
    #[arg(long)]
    pub deflate: bool,
    /// End the first thread after the start; the process and its other threads continue.
    #[arg(long)]
    pub first_thread_ends: bool,
    /// Name shown on the page.
    #[arg(long, default_value = "demo")]
    pub user: String,
}

/// State shared by all tasks.
#[derive(Debug)]
struct Shared {
    user: String,
    is_deflate_accepted: bool,
    opening: Mutex<Opening>,
    auth: Mutex<auth::Auth>,
    /// The requested state of the listener, and the actual one.
    listening: watch::Sender<bool>,
    bound: watch::Sender<bool>,
    sessions: Mutex<Vec<mpsc::UnboundedSender<Ordered>>>,
}

/// Waits for a signal that asks to end.
fn stop_request() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// An order to a session, and the channel for its completion.
#[derive(Debug)]
struct Ordered {
    order: Order,
    done: Option<oneshot::Sender<()>>,
}

/// Runs until the process exits.
pub fn run(options: &Options) -> Result<()> {
    for _ in 1..options.threads {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    if options.first_thread_ends {
        let options = options.clone();
        std::thread::spawn(move || {
            if let Err(error) = event_loop(&options) {
                eprintln!("t3-serve-standin: {error}");
                std::process::exit(1);
            }
        });
        sys::end_thread();
    }
    event_loop(options)
}

fn event_loop(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.attempt(|| "start the event loop".to_owned())?.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let shared = Arc::new(Shared {
        user: options.user.clone(),
        is_deflate_accepted: options.deflate,
        opening: Mutex::new(options.opening),
        auth: Mutex::default(),
        listening: watch::Sender::new(!options.no_listen),
        bound: watch::Sender::new(false),
        sessions: Mutex::default(),
    });
    if let Some(path) = &options.control {
        let listener = UnixListener::bind(path).attempt(|| format!("listen on {}", path.display()))?;
        tokio::spawn(control(listener, Arc::clone(&shared)));
    }
    let address = SocketAddr::new(options.ip, options.port);
    let mut listening = shared.listening.subscribe();
    loop {
        let wanted = listening.wait_for(|wanted| *wanted).await.is_ok();
        if !wanted {
            return Ok(());
        }
        let listener = listen(address, options.backlog).attempt(|| format!("listen on {address}"))?;
        shared.bound.send_replace(true);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let _ = stream.set_nodelay(true);
                        tokio::spawn(http::connection(stream, Arc::clone(&shared)));
                    }
                }
                _ = listening.wait_for(|wanted| !*wanted) => break,
            }
        }
        drop(listener);
        shared.bound.send_replace(false);
    }
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

async fn control(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(orders(stream, Arc::clone(&shared)));
    }
}

async fn orders(stream: UnixStream, shared: Arc<Shared>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match line.parse::<Order>() {
            Ok(order) => {
                if order.ends_the_process() {
                    // No reply is possible after it.
                    let _ = writer.write_all(b"ok\n").await;
                }
                shared.carry_out(order).await
            }
            Err(bad) => Err(bad.to_string()),
        };
        let answer = answer.map_or_else(|why| format!("{why}\n"), |()| "ok\n".to_owned());
        if writer.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// Executes an order, on the newest open session if it is for sessions.
    async fn carry_out(self: &Arc<Self>, order: Order) -> Result<(), String> {
        match order {
            Order::Opening(opening) => {
                *self.opening.lock().unwrap_or_else(PoisonError::into_inner) = opening;
                Ok(())
            }
            Order::Session(answer) => {
                self.auth().session = answer;
                Ok(())
            }
            Order::Pairing(answer) => {
                self.auth().pairing = answer;
                Ok(())
            }
            Order::Listen(wanted) => {
                self.listening.send_replace(wanted);
                let done = self.bound.subscribe().wait_for(|bound| *bound == wanted).await.is_ok();
                if done { Ok(()) } else { Err("the listener has ended".to_owned()) }
            }
            Order::After(delay, order) => {
                tokio::time::sleep(delay).await;
                Box::pin(self.carry_out(*order)).await
            }
            order if order.is_for_the_process() => act::at_process(&order).map_err(|error| error.to_string()),
            Order::Graceful(delay, order) => {
                let shared = Arc::clone(self);
                let asked = stop_request().map_err(|error| error.to_string())?;
                tokio::spawn(async move {
                    asked.await;
                    let _ = shared.order_newest(*order).await;
                    tokio::time::sleep(delay).await;
                    std::process::exit(0);
                });
                Ok(())
            }
            order => self.order_newest(order).await,
        }
    }

    /// Executes an order on the newest open session.
    async fn order_newest(&self, order: Order) -> Result<(), String> {
        let newest = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.retain(|session| !session.is_closed());
            sessions.last().cloned()
        };
        let Some(newest) = newest else { return Err("no session is open".to_owned()) };
        let (done, finished) = oneshot::channel();
        let gone = "the session ended before the order was executed";
        newest.send(Ordered { order, done: Some(done) }).map_err(|_| gone.to_owned())?;
        finished.await.map_err(|_| gone.to_owned())
    }

    fn opening(&self) -> Opening {
        *self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn auth(&self) -> MutexGuard<'_, auth::Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enlist(&self, session: mpsc::UnboundedSender<Ordered>) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}
