//! A fake `t3 serve`: this test binary again, with orders on its standard input.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    net::sockopt::set_socket_linger,
    process::{Pid, Signal, kill_process},
};

const ADDRESS: &str = "T3_TEST_SERVE_ADDRESS";

/// Handle of the process; ends it on drop.
pub struct Serve {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

impl Serve {
    /// Starts it; it listens only after the order `listen`.
    pub fn start(ip: &str) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::new(ip, port);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serve::serve_process", "--ignored", "--nocapture"])
            .env(ADDRESS, address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from, address }
    }

    pub fn listening(ip: &str) -> Self {
        let mut serve = Self::start(ip);
        serve.order("listen");
        serve
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends an order and waits until it is done.
    pub fn order(&mut self, order: &str) {
        writeln!(self.to, "{order}").unwrap();
        let mut line = String::new();
        while !line.contains("@done") {
            line.clear();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "serve ended instead of doing {order:?}");
        }
    }

    /// Sends the last order and waits for the exit.
    pub fn end_by(&mut self, order: &str) -> ExitStatus {
        writeln!(self.to, "{order}").unwrap();
        self.child.wait().unwrap()
    }

    pub fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself. An order applies to the connection accepted last.
#[test]
#[ignore = "started by the other tests"]
fn serve_process() {
    let address: SocketAddr = std::env::var(ADDRESS).expect("started by the other tests").parse().unwrap();
    let mut listener = None;
    let mut held: Vec<TcpStream> = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (order, value) = line.split_once(' ').unwrap_or((&line, ""));
        match order {
            "listen" => listener = Some(TcpListener::bind(address).unwrap()),
            "accept" => held.push(listener.as_ref().unwrap().accept().unwrap().0),
            // Waits for a byte without reading it.
            "await_byte" => assert_eq!(held.last().unwrap().peek(&mut [0]).unwrap(), 1),
            "await_end" => {
                let mut rest = Vec::new();
                let _ = held.last().unwrap().read_to_end(&mut rest);
            }
            "shutdown" => held.last().unwrap().shutdown(std::net::Shutdown::Write).unwrap(),
            "close" => drop(held.pop().unwrap()),
            "reset" => {
                let stream = held.pop().unwrap();
                set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
            "end_first_thread" => end_first_thread(),
            "exit" => std::process::exit(value.parse().unwrap()),
            "fault" => fault(),
            "allocate" => allocate(),
            other => panic!("unknown order {other:?}"),
        }
        println!("@done");
    }
}

#[expect(unsafe_code, reason = "the fault is intended")]
fn fault() {
    // SAFETY: none; the fault must terminate the process.
    unsafe { std::ptr::dangling_mut::<u64>().write_volatile(1) }
}

/// Ends the thread whose id is that of the process; this one must be another.
#[expect(unsafe_code, reason = "a thread that is not the own one ends in a signal handler")]
fn end_first_thread() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: a system call with constant arguments; it ends the thread that runs the handler.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    let pid = std::process::id();
    assert_ne!(
        rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs(),
        pid,
        "this is the first thread"
    );
    // SAFETY: the handler only ends its thread; the target is a thread of this process.
    unsafe {
        libc::signal(libc::SIGUSR1, end as *const () as libc::sighandler_t);
        libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1);
    }
    let state = || std::fs::read_to_string("/proc/self/stat").unwrap();
    crate::fixture::wait_for("the first thread has ended", || state().contains(") Z "));
}

/// Allocates memory until the OOM kill.
fn allocate() {
    let mut all = Vec::new();
    for _ in 0..64 {
        all.push(std::hint::black_box(vec![1_u8; 4 << 20]));
    }
    panic!("256 MiB were allocated in {} pieces without an OOM kill", all.len());
}
