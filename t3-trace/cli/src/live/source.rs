//! Where `live` hears of closes: the daemon's socket, and the journal while that is not there.
//!
//! Two tasks feed one channel, and the journal is still read for a moment after the socket is back,
//! so that nothing falls between them; the reader leaves out what it has seen already.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use t3_record::{
    CloseRecord,
    journal::CLOSE_ID,
    vocabulary::KernelSource,
    wire::{FromTrace, MAX_MESSAGE, Role, Status, ToTrace, VERSION, live::Sessions},
};
use t3_trace_host::{
    clock::realtime_secs,
    journal_trust::{DISPATCH_USER, Trust},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_seqpacket::UnixSeqpacket;

use crate::journal::json_entry;

/// How long until the socket is tried again.
pub const RETRY: Duration = Duration::from_secs(2);
/// How long the journal is still read when the socket is back.
const OVERLAP: Duration = Duration::from_secs(3);
/// How often the open sessions are asked for.
const ASK: Duration = Duration::from_secs(1);
/// A question that was not answered for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the daemon's state is asked for, in questions for the open sessions.
const STATUS_EVERY: u32 = 5;

/// What `live` hears.
#[derive(Debug)]
pub enum Item {
    /// A close, and when (seconds since the epoch).
    Closed(Box<CloseRecord>, u64),
    /// The daemon left out so many records, because we were too slow.
    Skipped(u64),
    /// The daemon's socket answers.
    Connected(Daemon),
    /// It does not, and why; said once for each reason. Closes come from the journal until it does.
    Disconnected(String),
    /// A part of the open sessions.
    Sessions(Box<Sessions>),
    /// How the daemon is.
    Status(Box<Status>),
    /// Something to say to the operator.
    Message(String),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Where.
    pub socket: PathBuf,
    /// Its process: another one is a daemon that was restarted.
    pub pid: Option<i32>,
    /// What its kernel side gives.
    pub kernel: KernelSource,
    /// It tells the open sessions.
    pub has_sessions: bool,
}

/// What is wanted beside the closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// Nothing: dispatch need not count aloud for us.
    Closes,
    /// The open sessions and the daemon's state, again and again.
    Everything,
}

/// The socket is there, or since when it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    DownSince(u64),
}

/// Starts both sources.
#[must_use]
pub fn start(socket: &Path, subscription: Subscription) -> mpsc::Receiver<Item> {
    let (items, received) = mpsc::channel(256);
    let (link, link_seen) = watch::channel(Link::Up);
    tokio::spawn(follow_socket(socket.to_owned(), subscription, items.clone(), link));
    tokio::spawn(follow_journal(items, link_seen));
    received
}

async fn follow_socket(
    path: PathBuf,
    subscription: Subscription,
    items: mpsc::Sender<Item>,
    link: watch::Sender<Link>,
) {
    let mut said = None;
    loop {
        let why = match subscribe(&path).await {
            Ok((socket, daemon)) => {
                said = None;
                link.send_replace(Link::Up);
                let asks = subscription == Subscription::Everything && daemon.has_sessions;
                let _ = items.send(Item::Connected(daemon)).await;
                listen(&socket, asks, &items).await
            }
            Err(why) => why,
        };
        if items.is_closed() {
            return;
        }
        link.send_if_modified(|link| {
            let fell = *link == Link::Up;
            if fell {
                *link = Link::DownSince(realtime_secs());
            }
            fell
        });
        if said.as_ref() != Some(&why) {
            let _ = items.send(Item::Disconnected(why.clone())).await;
            said = Some(why);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn say(items: &mpsc::Sender<Item>, text: String) {
    let _ = items.send(Item::Message(text)).await;
}

/// Connects and introduces itself; the error is a sentence for the operator.
async fn subscribe(path: &Path) -> Result<(UnixSeqpacket, Daemon), String> {
    let at = path.display();
    let socket = UnixSeqpacket::connect(path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!("t3-trace does not run (nobody answers at {at})")
        }
        std::io::ErrorKind::PermissionDenied => format!("no permission for {at}: join the group t3-trace"),
        _ => format!("connect to {at}: {error}"),
    })?;
    let hello = serde_json::to_vec(&ToTrace::Hello { v: VERSION, role: Role::Subscriber });
    let hello = hello.map_err(|error| error.to_string())?;
    socket.send(&hello).await.map_err(|error| format!("talk to t3-trace at {at}: {error}"))?;
    match receive(&socket, &mut vec![0; MAX_MESSAGE]).await {
        Ok(Some(FromTrace::Welcome { kernel, sessions, .. })) => {
            let pid = socket.peer_cred().ok().and_then(|peer| peer.pid());
            Ok((socket, Daemon { socket: path.to_owned(), pid, kernel, has_sessions: sessions }))
        }
        Ok(Some(FromTrace::Refused { why })) => Err(format!("t3-trace refused: {why}")),
        Ok(_) => Err("t3-trace said something else than welcome".to_owned()),
        Err(why) => Err(why),
    }
}

/// Reads until the connection ends, and says why it did.
async fn listen(socket: &UnixSeqpacket, asks: bool, items: &mpsc::Sender<Item>) -> String {
    let mut pending = PendingQueries::default();
    let mut time_to_ask = interval(ASK);
    time_to_ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let heard = tokio::select! {
            heard = receive(socket, &mut buffer) => heard,
            _ = time_to_ask.tick(), if asks => match pending.ask(socket).await {
                Ok(()) => continue,
                Err(error) => return format!("t3-trace has gone: {error}"),
            },
        };
        let item = match heard {
            Ok(Some(FromTrace::Closed { record })) => Item::Closed(record, realtime_secs()),
            Ok(Some(FromTrace::Skipped { records })) => Item::Skipped(records),
            Ok(Some(FromTrace::Sessions(part))) => {
                pending.answered(part.more);
                Item::Sessions(part)
            }
            Ok(Some(FromTrace::Status(status))) => Item::Status(status),
            Ok(Some(FromTrace::Refused { why })) => return format!("t3-trace refused: {why}"),
            // What is not for us, or from a newer daemon.
            Ok(_) => continue,
            Err(why) => return why,
        };
        if items.send(item).await.is_err() {
            return String::new();
        }
    }
}

/// One question at a time, so that a daemon that stands still is not buried under them.
#[derive(Default)]
struct PendingQueries {
    waiting_since: Option<Instant>,
    asked: u32,
}

impl PendingQueries {
    async fn ask(&mut self, socket: &UnixSeqpacket) -> std::io::Result<()> {
        if self.waiting_since.is_some_and(|since| since.elapsed() < PATIENCE) {
            return Ok(());
        }
        self.waiting_since = Some(Instant::now());
        let state = self.asked.is_multiple_of(STATUS_EVERY).then_some(ToTrace::Status);
        self.asked = self.asked.wrapping_add(1);
        for question in state.into_iter().chain([ToTrace::Sessions]) {
            socket.send(&serde_json::to_vec(&question)?).await?;
        }
        Ok(())
    }

    fn answered(&mut self, more: bool) {
        if !more {
            self.waiting_since = None;
        }
    }
}

/// `None`: a message that this version does not know.
async fn receive(socket: &UnixSeqpacket, buffer: &mut [u8]) -> Result<Option<FromTrace>, String> {
    match socket.recv(buffer).await.map(|message| message.bytes_read()) {
        Ok(0) => Err("t3-trace has gone".to_owned()),
        Ok(length) => Ok(serde_json::from_slice(&buffer[..length]).ok()),
        Err(error) => Err(format!("t3-trace has gone: {error}")),
    }
}

async fn follow_journal(items: mpsc::Sender<Item>, mut link: watch::Receiver<Link>) {
    loop {
        let Ok(Link::DownSince(since)) = link.wait_for(|link| *link != Link::Up).await.map(|link| *link)
        else {
            return;
        };
        let back = async {
            let _ = link.wait_for(|link| *link == Link::Up).await;
            tokio::time::sleep(OVERLAP).await;
        };
        tokio::select! {
            () = back => {}
            why = read_journal(since, &items) => {
                if items.is_closed() {
                    return;
                }
                say(&items, why).await;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Reads until journalctl ends, and says why it did.
async fn read_journal(since: u64, items: &mpsc::Sender<Item>) -> String {
    let child = Command::new("journalctl")
        .args(["--follow", "--quiet", "--no-pager", "--output=json", "--all"])
        // Closes from before are history: `live` shows what happens from now on.
        .args(["--lines=all".to_owned(), format!("--since=@{since}"), format!("MESSAGE_ID={CLOSE_ID}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return format!("journalctl does not run: {error}"),
    };
    let Some(output) = child.stdout.take() else { return "journalctl has no output".to_owned() };
    let trust = Trust::in_user(DISPATCH_USER);
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match json_entry::close(&line, trust) {
            Ok(Some((record, at))) => {
                if items.send(Item::Closed(Box::new(record), at)).await.is_err() {
                    return String::new();
                }
            }
            Ok(None) => {}
            Err(error) => say(items, error.to_string()).await,
        }
    }
    "journalctl has ended".to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use tokio_seqpacket::UnixSeqpacketListener;

    use super::*;

    /// A daemon whose answers the test writes.
    struct Fake {
        listener: UnixSeqpacketListener,
        path: PathBuf,
        _dir: tempfile::TempDir,
    }

    impl Fake {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("socket");
            Self { listener: UnixSeqpacketListener::bind(&path).unwrap(), path, _dir: dir }
        }

        async fn welcome(&mut self, sessions: bool) -> UnixSeqpacket {
            let viewer = self.listener.accept().await.unwrap();
            let hello = ToTrace::Hello { v: VERSION, role: Role::Subscriber };
            assert_eq!(asked(&viewer).await, Some(hello));
            say(&viewer, &FromTrace::Welcome { v: VERSION, kernel: KernelSource::Off, sessions }).await;
            viewer
        }
    }

    async fn say(viewer: &UnixSeqpacket, message: &FromTrace) {
        viewer.send(&serde_json::to_vec(message).unwrap()).await.unwrap();
    }

    /// The next question; `None` when none comes for longer than it may take.
    async fn asked(viewer: &UnixSeqpacket) -> Option<ToTrace> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = timeout(ASK + ASK / 2, viewer.recv(&mut buffer)).await.ok()?;
        serde_json::from_slice(&buffer[..received.unwrap().bytes_read()]).unwrap()
    }

    #[tokio::test]
    async fn who_wants_only_closes_or_meets_an_older_daemon_asks_for_nothing() {
        for (subscription, sessions) in [(Subscription::Closes, true), (Subscription::Everything, false)] {
            let mut fake = Fake::new();
            let _items = start(&fake.path, subscription);
            let viewer = fake.welcome(sessions).await;
            assert_eq!(asked(&viewer).await, None, "{subscription:?}");
        }
    }

    #[tokio::test]
    async fn a_question_waits_for_the_answer_to_the_one_before() {
        let mut fake = Fake::new();
        let mut items = start(&fake.path, Subscription::Everything);
        let viewer = fake.welcome(true).await;
        assert!(matches!(items.recv().await, Some(Item::Connected(daemon)) if daemon.pid.is_some()));
        assert_eq!(asked(&viewer).await, Some(ToTrace::Status));
        assert_eq!(asked(&viewer).await, Some(ToTrace::Sessions));
        say(&viewer, &FromTrace::Sessions(Box::new(Sessions { more: true, ..Sessions::default() }))).await;
        assert_eq!(asked(&viewer).await, None, "the answer is not whole");
        say(&viewer, &FromTrace::Sessions(Box::default())).await;
        assert_eq!(asked(&viewer).await, Some(ToTrace::Sessions), "the state is asked for less often");
        drop(viewer);
        loop {
            if let Item::Disconnected(why) = items.recv().await.unwrap() {
                assert!(why.contains("t3-trace has gone"), "{why}");
                break;
            }
        }
        fake.welcome(true).await;
        loop {
            if let Item::Connected(_) = items.recv().await.unwrap() {
                break;
            }
        }
    }
}
