//! Upload and download of 2 GiB through the real program: every byte arrives, and memory stays
//! flat, also while the receiver does not read.
//!
//! With `T3_QUICK` only 128 MiB. Needs `cargo xtask build` and `VmHWM` in `/proc/PID/status`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use t3_testkit::{
    harness::{Setup, Stack},
    journald::Journal,
};

const BODY: u64 = 2 << 30;
/// With `T3_QUICK`; still far above [`MOST`].
const QUICK_BODY: u64 = 128 << 20;
/// Maximum growth of dispatch's memory in bytes: buffers of one connection, and memory that the
/// allocator keeps.
const MOST: u64 = 16 << 20;
/// Pause of the receiver after half of the body.
const PAUSE: Duration = Duration::from_secs(2);
const PIECE: usize = 256 << 10;

/// Peak resident memory of a process in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Period of the pattern in bytes: not a power of two, so that lost, duplicated or moved bytes are
/// detected.
const PERIOD: usize = PIECE + 3;

/// The pattern twice, so that a piece from any offset is contiguous.
fn pattern() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        // Marsaglia's xorshift: cheap and not periodic within the pattern.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let once: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    [once.as_slice(), once.as_slice()].concat()
}

/// Expected bytes at this offset of a body.
fn piece(pattern: &[u8], body: u64, offset: u64) -> &[u8] {
    let at = usize::try_from(offset % PERIOD as u64).unwrap();
    let length = usize::try_from((body - offset).min(PIECE as u64)).unwrap();
    &pattern[at..at + length]
}

fn write_body(out: &mut impl Write, body: u64) {
    let pattern = pattern();
    let mut offset = 0;
    while offset < body {
        let piece = piece(&pattern, body, offset);
        out.write_all(piece).unwrap();
        offset += piece.len() as u64;
    }
}

/// Reads a body and returns the number of correct bytes before the first wrong piece. Pauses after
/// half of the body.
fn read_body(from: &mut impl Read, body: u64) -> u64 {
    let pattern = pattern();
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < body {
        let expected = piece(&pattern, body, offset);
        let read = &mut buffer[..expected.len()];
        if from.read_exact(read).is_err() || read != expected {
            return offset;
        }
        offset += expected.len() as u64;
        if offset == body / 2 {
            thread::sleep(PAUSE);
        }
    }
    offset
}

fn head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "connection ended after {head:?}");
    }
    head
}

/// A serve with one path for uploads and one for downloads.
fn serve(listener: &TcpListener, body: u64) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut reader = BufReader::with_capacity(PIECE, stream.try_clone().unwrap());
        let request = head(&mut reader);
        if request.starts_with("POST /up ") {
            assert!(request.to_lowercase().contains(&format!("\r\ncontent-length: {body}\r\n")), "{request}");
            let right = read_body(&mut reader, body).to_string();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{right}",
                right.len()
            )
            .unwrap();
        } else {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {body}\r\n\r\n").unwrap();
            write_body(&mut stream, body);
        }
    }
}

fn send_request(stack: &Stack, line: &str, length: u64) -> TcpStream {
    let mut stream = TcpStream::connect(stack.address).unwrap();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: u0\r\nCookie: t3_session=x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn two_gibibytes_in_each_direction_do_not_raise_memory() {
    let mut setup = Setup::users(1).unwrap();
    setup.trace = false;
    let listener = TcpListener::bind(("127.0.0.1", setup.users["u0"])).unwrap();
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    let body = if std::env::var_os("T3_QUICK").is_some() { QUICK_BODY } else { BODY };
    thread::spawn(move || serve(&listener, body));
    let pid = stack.dispatch_pid();
    let before = peak(pid);

    let stream = send_request(&stack, "POST /up", body);
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || write_body(&mut writer, body));
    let mut answer = String::new();
    BufReader::new(stream).read_to_string(&mut answer).unwrap();
    writing.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
    let up = peak(pid) - before;

    let mut reader = BufReader::with_capacity(PIECE, send_request(&stack, "GET /down", 0));
    let answer = head(&mut reader);
    assert!(answer.to_lowercase().contains(&format!("\r\ncontent-length: {body}\r\n")), "{answer}");
    assert_eq!(read_body(&mut reader, body), body);
    let both = peak(pid) - before;

    println!("peak memory: {} KiB more after the upload, {} KiB after both", up >> 10, both >> 10);
    assert!(both < MOST, "{both} bytes above the initial {before}");
}
