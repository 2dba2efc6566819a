//! Passes over a journal in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use t3_record::{CloseRecord, How, Reconciled, Verdict};

use super::{
    super::{
        boot_moment::BootMoment,
        scan::{OldestEntry, Scanned},
    },
    *,
};

const BOOT: &str = "b1";
const ALIVE: u32 = 7;
const DEAD: u32 = 8;
const OPENED_US: u64 = 1_772_331_225_000_000;

/// A journal in memory, with what happens while it syncs.
#[derive(Default)]
struct Memory {
    entries: Mutex<Vec<Found>>,
    while_it_syncs: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    /// Happens when a pass searches for the last sign of life of an ended dispatch.
    while_it_searches: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    is_down: bool,
    /// Fails only after a scan.
    is_down_after_scan: bool,
    syncs: AtomicUsize,
    oldest: Option<OldestEntry>,
    clean_boots: Vec<&'static str>,
    read_from: Mutex<Vec<From>>,
}

impl JournalView for Memory {
    async fn sync(&self) -> Result<(), ScanError> {
        lock(&self.while_it_syncs).drain(..).for_each(|happens| happens());
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let is_down = self.is_down || self.is_down_after_scan && !lock(&self.read_from).is_empty();
        if is_down { Err(ScanError::NoProgram) } else { Ok(()) }
    }

    async fn scan(&self, from: &From, each: &mut (dyn FnMut(Found) + Send)) -> Result<Scanned, ScanError> {
        lock(&self.read_from).push(from.clone());
        let first = match from {
            From::Cursor(cursor) => cursor.parse().unwrap(),
            From::Boots => 0,
        };
        let entries = lock(&self.entries);
        entries[first..].iter().cloned().for_each(each);
        Ok(Scanned { cursor: Some(entries.len().to_string()), ..Scanned::default() })
    }

    async fn recorded(&self, conns: &[String]) -> Result<BTreeSet<String>, ScanError> {
        let closes = |found: &Found| match found {
            Found::Close { conn } => Some(conn.clone()),
            Found::Open(_) => None,
        };
        Ok(lock(&self.entries).iter().filter_map(closes).filter(|conn| conns.contains(conn)).collect())
    }

    async fn oldest_entry(&self) -> Result<Option<OldestEntry>, ScanError> {
        Ok(self.oldest.clone())
    }

    async fn last_sign(&self, boot: &str, pid: Option<u32>) -> Result<Option<Moment>, ScanError> {
        assert_eq!(pid.is_some(), boot == BOOT, "of the host in an earlier boot, else of dispatch");
        lock(&self.while_it_searches).drain(..).for_each(|happens| happens());
        // The wall clock was set forward by an hour.
        Ok(Some(Moment { wall_us: OPENED_US + 3_603_000_000, monotonic: 8_000_000_000 }))
    }

    async fn ended_cleanly(&self, boot: &str) -> Result<bool, ScanError> {
        Ok(self.clean_boots.contains(&boot))
    }
}

struct Scene {
    journal: Memory,
    store: std::sync::Arc<Mutex<Store>>,
    registered: Vec<&'static str>,
    /// Ended dispatches whose successor is awaited.
    awaited: Vec<u32>,
}

impl Scene {
    fn new(entries: impl IntoIterator<Item = Found>) -> Self {
        let journal = Memory { entries: Mutex::new(entries.into_iter().collect()), ..Memory::default() };
        let store = std::sync::Arc::new(Mutex::new(Store::open(None, 1 << 20)));
        Self { journal, store, registered: Vec::new(), awaited: Vec::new() }
    }

    async fn pass(&self) -> Result<Finished, ScanError> {
        let started = |pid| (pid == ALIVE).then_some(0);
        let owners = Owners {
            is_registered: &|conn| self.registered.contains(&conn),
            is_awaited: &|pid| self.awaited.contains(&pid),
            started,
        };
        run(&self.journal, &self.store, &Host::in_boot(BOOT), owners).await
    }

    /// Number of reconciled sessions, and the records to write.
    async fn result(&self) -> (u64, Vec<CloseRecord>) {
        let finished = self.pass().await.unwrap();
        let writes = finished.writes.iter();
        (finished.reconciled, writes.map(|write| write.record.record().unwrap()).collect())
    }

    fn report(&self, conn: &str, made: BootMoment) {
        report(&self.store, conn, made);
    }
}

fn report(store: &Mutex<Store>, conn: &str, made: BootMoment) {
    let record = reconcile(&session(conn), UnclosedEnd::DispatchDied, None);
    lock(store).reported(&record, made, || dispatch(ALIVE), false);
}

fn session(conn: &str) -> UnclosedSession {
    UnclosedSession {
        conn: conn.into(),
        user: "wizard".into(),
        ip: "192.0.2.1".into(),
        ray: None,
        opened: Moment { wall_us: OPENED_US, monotonic: 5_000_000_000 },
    }
}

fn dispatch(pid: u32) -> DispatchId {
    DispatchId { boot: BOOT.into(), pid: Some(pid), ran_at: 5_000_000_000 }
}

fn made(monotonic: Nanos) -> BootMoment {
    BootMoment { boot: BOOT.into(), at: Moment { wall_us: OPENED_US, monotonic } }
}

fn open_in(boot: &str, conn: &str, pid: u32) -> Found {
    Found::Open(OpenEntry {
        conn: conn.into(),
        user: "wizard".into(),
        ip: "192.0.2.1".into(),
        ray: None,
        is_kept: false,
        boot_id: boot.into(),
        pid: Some(pid),
        monotonic_us: 5_000_000,
        realtime_us: OPENED_US,
    })
}

fn open(conn: &str, pid: u32) -> Found {
    open_in(BOOT, conn, pid)
}

fn close(conn: &str) -> Found {
    Found::Close { conn: conn.into() }
}

#[tokio::test]
async fn an_open_of_a_dead_dispatch_without_a_close_gets_one() {
    let scene = Scene::new([open("a", DEAD), open("b", DEAD), close("a"), open("c", ALIVE)]);
    assert_eq!(scene.result().await, (1, vec![]), "only the next pass knows that nobody wrote it");
    let (reconciled, records) = scene.result().await;
    assert_eq!((reconciled, records.len()), (0, 1));
    let record = &records[0];
    assert_eq!(
        (record.conn.as_str(), record.verdict, record.how),
        ("b", Verdict::DispatchDied, Some(How::ProxyGone))
    );
    assert_eq!((record.reconciled, record.dur_ms), (Some(Reconciled::Journal), 3_000));
    // Not again while the writer has it.
    assert_eq!(scene.result().await, (0, vec![]));
    lock(&scene.store).sent("b", t3_journal::Outcome::Written);
    lock(&scene.journal.entries).push(close("b"));
    assert_eq!(scene.result().await, (0, vec![]));
    let open: Vec<_> = lock(&scene.store).ledger.open().map(|(conn, _)| conn.to_owned()).collect();
    assert_eq!(open, ["c"]);
    assert_eq!(
        *lock(&scene.journal.read_from),
        [From::Boots, From::Cursor("4".into()), From::Cursor("4".into()), From::Cursor("4".into())]
    );
}

#[tokio::test]
async fn a_registered_session_is_left_to_its_disconnect() {
    let scene = Scene { registered: vec!["a"], ..Scene::new([open("a", DEAD)]) };
    assert_eq!(scene.result().await, (0, vec![]));
    assert_eq!(scene.result().await, (0, vec![]));
}

/// An open that dispatch keeps in a descriptor store.
fn kept(found: Found) -> Found {
    match found {
        Found::Open(open) => Found::Open(OpenEntry { is_kept: true, ..open }),
        close @ Found::Close { .. } => close,
    }
}

#[tokio::test]
async fn a_kept_session_waits_for_the_successor_of_its_dispatch() {
    let entries = [kept(open("a", DEAD)), open("b", DEAD), kept(open_in("b-loss", "c", DEAD))];
    let mut scene = Scene { awaited: vec![DEAD], ..Scene::new(entries) };
    let finished = scene.pass().await.unwrap();
    assert_eq!((finished.reconciled, finished.awaited), (2, 1), "a reboot ends every session");
    assert_eq!(scene.pass().await.unwrap().awaited, 1);
    scene.registered = vec!["a"];
    assert_eq!(scene.pass().await.unwrap().awaited, 0);
    lock(&scene.store).opened(session("a"), dispatch(ALIVE), true);
    (scene.registered, scene.awaited) = (vec![], vec![]);
    assert_eq!(scene.pass().await.unwrap().reconciled, 0, "its successor runs");
    lock(&scene.store).opened(session("a"), dispatch(DEAD), true);
    assert_eq!(scene.pass().await.unwrap().reconciled, 1);
}

#[tokio::test]
async fn a_session_that_is_registered_while_the_pass_decides_is_left_to_its_dispatch() {
    let mut scene = Scene::new([]);
    lock(&scene.store).opened(session("a"), dispatch(DEAD), true);
    let store = std::sync::Arc::clone(&scene.store);
    scene.journal.while_it_searches =
        Mutex::new(vec![Box::new(move || lock(&store).opened(session("a"), dispatch(ALIVE), true))]);
    assert_eq!(scene.result().await, (0, vec![]));
    assert_eq!(lock(&scene.store).ledger.open().count(), 1);
}

#[tokio::test]
async fn a_session_that_a_successor_ends_is_left_to_it() {
    let scene = Scene::new([]);
    lock(&scene.store).opened(session("a"), dispatch(DEAD), true);
    assert!(lock(&scene.store).handed_over("a", dispatch(ALIVE)));
    assert!(!lock(&scene.store).handed_over("b", dispatch(ALIVE)));
    assert_eq!(scene.result().await, (0, vec![]));
    assert!(lock(&scene.store).handed_over("a", dispatch(DEAD)), "the successor ends, too");
    assert_eq!(scene.result().await.0, 1);
}

#[tokio::test]
async fn an_earlier_boot_ended_by_a_reboot_or_by_a_loss_of_power() {
    // The pid runs again in this boot.
    let mut scene = Scene::new([open_in("b-reboot", "a", ALIVE), open_in("b-loss", "b", ALIVE)]);
    scene.journal.clean_boots = vec!["b-reboot"];
    assert_eq!(scene.result().await, (2, vec![]));
    let (_, records) = scene.result().await;
    let of = |conn: &str| records.iter().find(|record| record.conn == conn).unwrap();
    for (conn, how) in [("a", How::Reboot), ("b", How::PowerLoss)] {
        assert_eq!((of(conn).verdict, of(conn).how), (Verdict::Unknown, Some(how)), "{conn}");
    }
}

#[tokio::test]
async fn a_record_reported_while_the_journal_syncs_waits_for_the_next_pass() {
    let scene = Scene::new([]);
    let store = std::sync::Arc::clone(&scene.store);
    lock(&scene.journal.while_it_syncs).push(Box::new(move || report(&store, "a", made(9))));
    assert_eq!(scene.result().await, (0, vec![]));
    // The control: it had not arrived before the next sync.
    assert_eq!(scene.result().await.1.len(), 1);
}

#[tokio::test]
async fn nothing_is_decided_without_a_journal() {
    let mut scene = Scene::new([open("a", DEAD)]);
    scene.journal.is_down = true;
    scene.report("b", made(9));
    for _ in 0..3 {
        assert!(scene.pass().await.is_err());
        assert_eq!(lock(&scene.store).counts().missing, 0);
    }
    scene.journal.is_down = false;
    let (reconciled, records) = scene.result().await;
    assert_eq!((reconciled, records.len()), (1, 1), "the record that dispatch reported did not arrive");
}

#[tokio::test]
async fn a_close_ends_its_session_only_when_it_is_on_disk() {
    let mut scene = Scene::new([open("a", ALIVE), close("a")]);
    lock(&scene.store).opened(session("a"), dispatch(ALIVE), false);
    scene.journal.is_down_after_scan = true;
    assert!(scene.pass().await.is_err());
    assert!(lock(&scene.store).ledger.get("a").is_some());
    assert_eq!(lock(&scene.store).cursor(), None);
    scene.journal.is_down_after_scan = false;
    assert_eq!(scene.result().await, (0, vec![]));
    assert_eq!(lock(&scene.store).ledger.len(), 0);
    // Without a close, one sync is enough.
    let before = scene.journal.syncs.swap(0, Ordering::Relaxed);
    assert_eq!(scene.result().await, (0, vec![]));
    assert_eq!((before, scene.journal.syncs.into_inner()), (4, 1));
}

#[tokio::test]
async fn a_close_that_is_read_before_its_open_counts() {
    // journalctl orders entries of different files by the wall clock, which can be set.
    let scene = Scene::new([close("a"), open("a", DEAD)]);
    assert_eq!(scene.result().await, (1, vec![]));
    assert_eq!(scene.result().await, (0, vec![]), "the search finds it");
    assert_eq!(lock(&scene.store).ledger.len(), 0);
}

#[tokio::test]
async fn a_record_older_than_the_journal_has_been_vacuumed() {
    for (made_at, boot, missing) in [(4_999_999, BOOT, 0), (5_000_000, BOOT, 1), (4_999_999, "another", 1)] {
        let mut scene = Scene::new([]);
        scene.journal.oldest = Some(OldestEntry { boot_id: boot.into(), monotonic_us: 5_000 });
        scene.report("a", made(made_at));
        assert_eq!(scene.result().await.1.len(), missing, "{made_at} {boot}");
        assert_eq!(lock(&scene.store).counts().missing, missing as u64);
    }
}
