//! Tests of the writer with real sockets.

use std::{
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Command,
};

use rustix::{
    fs::{SealFlags, fcntl_get_seals},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use super::*;

fn entry(n: usize) -> Fields {
    vec![("MESSAGE".into(), format!("record {n}"))]
}

fn message(datagram: &[u8]) -> String {
    let text = String::from_utf8_lossy(datagram);
    text.lines().find_map(|line| line.strip_prefix("MESSAGE=")).unwrap_or_default().to_owned()
}

#[test]
fn records_wait_for_journald_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let writer = Writer::start_with("test", Sink::Journald, &path, 100).unwrap();
    let mut outcomes: Vec<_> = (0..40).map(|n| writer.write(entry(n))).collect();
    assert_eq!(writer.flush(Duration::from_millis(50)), 40);
    assert_eq!(writer.stats(), Stats { written: 0, dropped: 0, rejected: 0, waiting: 40 });

    let journald = UnixDatagram::bind(&path).unwrap();
    let mut buffer = [0; 4096];
    for n in 0..40 {
        let length = journald.recv(&mut buffer).unwrap();
        assert_eq!(message(&buffer[..length]), format!("record {n}"));
    }
    assert_eq!(writer.flush(Duration::from_secs(10)), 0);
    assert!(outcomes.iter_mut().all(|o| o.try_recv() == Ok(Outcome::Written)));
    assert_eq!(writer.stats(), Stats { written: 40, dropped: 0, rejected: 0, waiting: 0 });
}

#[test]
fn records_above_the_bound_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let writer = Writer::start_with("test", Sink::Journald, &path, 5).unwrap();
    let outcomes: Vec<_> = (0..20).map(|n| writer.write(entry(n))).collect();
    let dropped = writer.dropped();
    // The thread may be sending one in addition to the five in the queue.
    assert!((14..=15).contains(&dropped), "{dropped}");
    let notified =
        outcomes.into_iter().filter_map(|mut o| o.try_recv().ok()).filter(|o| *o == Outcome::Dropped).count();
    assert_eq!(notified as u64, dropped);
    assert_eq!(writer.stats(), Stats { written: 0, dropped, rejected: 0, waiting: 20 - dropped });
}

#[test]
fn a_value_with_a_newline_stays_one_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journald = UnixDatagram::bind(&path).unwrap();
    let writer = Writer::start_with("test", Sink::Journald, &path, 5).unwrap();
    drop(writer.write(vec![("T3_X".into(), "a\nT3_FORGED=1".into())]));
    let mut buffer = [0; 4096];
    let length = journald.recv(&mut buffer).unwrap();
    let mut expected = b"T3_X\n".to_vec();
    expected.extend_from_slice(&13u64.to_le_bytes());
    expected.extend_from_slice(b"a\nT3_FORGED=1\nSYSLOG_IDENTIFIER=test\n");
    assert_eq!(&buffer[..length], expected);
}

/// A writer, the socket it sends to, and its folder.
fn start(bound: usize) -> (Writer, UnixDatagram, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let journald = UnixDatagram::bind(&path).unwrap();
    journald.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let writer = Writer::start_with("test", Sink::Journald, &path, bound).unwrap();
    (writer, journald, dir)
}

/// Receives an entry as journald does; true if it came as a memfd.
fn receive(journald: &UnixDatagram) -> (Vec<u8>, bool) {
    let mut bytes = vec![0; 1 << 20];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(journald, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    bytes.truncate(received.bytes);
    let files: Vec<OwnedFd> = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect(),
            _ => Vec::new(),
        })
        .collect();
    let Some(file) = files.into_iter().next() else { return (bytes, false) };
    assert!(bytes.is_empty(), "a memfd comes without a payload");
    let required = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    assert!(fcntl_get_seals(&file).unwrap().contains(required), "journald takes only a sealed memfd");
    let mut file =
        std::fs::File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    (bytes, true)
}

#[test]
fn a_record_is_in_the_socket_when_write_returns() {
    let (writer, journald, _dir) = start(5);
    let mut outcome = writer.write(entry(1));
    assert_eq!(outcome.try_recv(), Ok(Outcome::Written));
    assert_eq!(writer.stats(), Stats { written: 1, ..Stats::default() });
    journald.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let length = journald.recv(&mut buffer).unwrap();
    assert_eq!(message(&buffer[..length]), "record 1");
}

#[test]
fn a_journald_that_does_not_read_never_blocks_the_caller() {
    const RECORDS: usize = 3000;
    let (writer, journald, _dir) = start(RECORDS);
    let begin = Instant::now();
    let outcomes: Vec<_> = (0..RECORDS).map(|n| writer.write(entry(n))).collect();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let stats = writer.stats();
    assert!(stats.written > 0, "the first ones went out at once");
    assert!(stats.waiting > 0 && stats.waiting == RECORDS as u64 - stats.written, "{stats:?}");
    let mut buffer = [0; 4096];
    for n in 0..RECORDS {
        let length = journald.recv(&mut buffer).unwrap();
        assert_eq!(message(&buffer[..length]), format!("record {n}"));
    }
    assert_eq!(writer.flush(Duration::from_secs(10)), 0);
    assert!(outcomes.into_iter().all(|mut outcome| outcome.try_recv() == Ok(Outcome::Written)));
}

#[test]
fn records_of_many_threads_keep_their_order_between_both_ways() {
    const THREADS: usize = 8;
    const RECORDS: usize = 400;
    let (writer, journald, _dir) = start(THREADS * RECORDS);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let writer = writer.clone();
            std::thread::spawn(move || {
                for n in 0..RECORDS {
                    drop(writer.write(vec![("MESSAGE".into(), format!("{thread} {n}"))]));
                    if n % 50 == 0 {
                        // The queue empties: the next ones are sent at once.
                        assert_eq!(writer.flush(Duration::from_secs(10)), 0);
                    }
                }
            })
        })
        .collect();
    let mut next = [0; THREADS];
    let mut buffer = [0; 4096];
    for count in 0..THREADS * RECORDS {
        if count % 300 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let length = journald.recv(&mut buffer).unwrap();
        let text = message(&buffer[..length]);
        let (thread, n) = text.split_once(' ').unwrap();
        let (thread, n): (usize, usize) = (thread.parse().unwrap(), n.parse().unwrap());
        assert_eq!(n, next[thread], "thread {thread}");
        next[thread] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // An entry counts as written only after its send returned, which can be after its arrival here.
    assert_eq!(writer.flush(Duration::from_secs(10)), 0);
    let written = (THREADS * RECORDS) as u64;
    assert_eq!(writer.stats(), Stats { written, ..Stats::default() });
}

#[test]
fn an_entry_that_is_too_long_for_a_datagram_comes_as_a_memfd_in_its_place() {
    let long = "x".repeat(2 << 20);
    let (writer, journald, _dir) = start(5);
    for value in ["1", &long, "2"] {
        let mut outcome = writer.write(vec![("MESSAGE".into(), value.to_owned())]);
        assert_eq!(outcome.try_recv(), Ok(Outcome::Written));
    }
    for (value, expect_memfd) in [("1", false), (&long, true), ("2", false)] {
        let (bytes, is_memfd) = receive(&journald);
        assert_eq!(is_memfd, expect_memfd);
        assert!(bytes == format!("MESSAGE={value}\nSYSLOG_IDENTIFIER=test\n").as_bytes());
    }
}

#[test]
fn a_long_entry_waits_in_the_queue_like_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let writer = Writer::start_with("test", Sink::Journald, &path, 5).unwrap();
    let long = "x".repeat(2 << 20);
    for value in ["1", &long, "2"] {
        drop(writer.write(vec![("MESSAGE".into(), value.to_owned())]));
    }
    assert_eq!(writer.stats(), Stats { waiting: 3, ..Stats::default() });
    let journald = UnixDatagram::bind(&path).unwrap();
    let order: Vec<_> = (0..3).map(|_| receive(&journald).1).collect();
    assert_eq!(order, [false, true, false]);
}

/// A socket that is connected to another one refuses the sender: EPERM (unix(7)).
#[test]
fn records_wait_for_a_socket_that_refuses_them() {
    let (writer, journald, dir) = start(5);
    let other = dir.path().join("other");
    let _other = UnixDatagram::bind(&other).unwrap();
    journald.connect(&other).unwrap();
    let mut outcome = writer.write(entry(1));
    assert_eq!(writer.flush(Duration::from_millis(300)), 1);
    assert!(outcome.try_recv().is_err());
    let path = dir.path().join("socket");
    std::fs::remove_file(&path).unwrap();
    let journald = UnixDatagram::bind(&path).unwrap();
    let (bytes, _) = receive(&journald);
    assert_eq!(message(&bytes), "record 1");
    assert_eq!(writer.flush(Duration::from_secs(10)), 0);
    assert_eq!(writer.stats(), Stats { written: 1, ..Stats::default() });
}

const LIMITED: &str = "T3_TEST_FILE_LIMIT";

/// Under a limit of the file size no memfd can hold the entry (EFBIG): a copy of this test runs
/// under that limit.
#[test]
fn an_entry_that_can_never_be_sent_is_set_aside_and_the_queue_goes_on() {
    if std::env::var_os(LIMITED).is_some() {
        return under_a_file_limit();
    }
    let own = std::env::current_exe().unwrap();
    let name = "writer::tests::an_entry_that_can_never_be_sent_is_set_aside_and_the_queue_goes_on";
    let run = |limit: &str| {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" --exact {name}");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).arg(&own).env(LIMITED, limit);
        let output = shell.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    };
    run("8");
    run("unlimited");
}

fn under_a_file_limit() {
    let is_limited = std::env::var(LIMITED).unwrap() != "unlimited";
    let long = "x".repeat(2 << 20);
    // Both ways: sent at once, and from the queue while the socket is missing.
    let (writer, journald, dir) = start(5);
    let other = dir.path().join("later");
    let waiting = Writer::start_with("test", Sink::Journald, &other, 5).unwrap();
    let values = ["1", long.as_str(), "2"];
    let write = |writer: &Writer, value: &str| writer.write(vec![("MESSAGE".into(), value.to_owned())]);
    let mut outcomes: Vec<_> = values.iter().map(|value| write(&writer, value)).collect();
    let mut queued: Vec<_> = values.iter().map(|value| write(&waiting, value)).collect();
    let later = UnixDatagram::bind(&other).unwrap();
    assert_eq!(waiting.flush(Duration::from_secs(10)), 0);
    let expected = if is_limited { Outcome::Rejected } else { Outcome::Written };
    for outcomes in [&mut outcomes, &mut queued] {
        let outcomes: Vec<_> = outcomes.iter_mut().map(|outcome| outcome.try_recv().unwrap()).collect();
        assert_eq!(outcomes, [Outcome::Written, expected, Outcome::Written]);
    }
    let (written, rejected) = if is_limited { (2, 1) } else { (3, 0) };
    for (writer, socket) in [(writer, journald), (waiting, later)] {
        assert_eq!(writer.stats(), Stats { written, rejected, ..Stats::default() });
        for _ in 0..written {
            let (bytes, _) = receive(&socket);
            assert!(!is_limited || bytes.len() < 100);
        }
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 64]).is_err(), "nothing else came");
    }
}
