//! Tests with this process and its children as listeners.

use super::*;

fn wait_for<T>(mut find: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..200 {
        if let Some(found) = find() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

#[test]
fn a_listener_owns_its_port_only_since_its_start() {
    let owners = PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    owners.want([(address.port(), std::process::id())]);
    let owner = wait_for(|| owners.at(address, clock::monotonic())).unwrap();
    assert_eq!(owner.pid, std::process::id());
    assert!(owner.exists());
    assert_eq!(owners.at(address, owner.started_at - 1), None);
}

#[test]
fn a_port_added_later_is_searched_immediately() {
    let owners = PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    owners.want_also(address, std::process::id());
    assert!(wait_for(|| owners.at(address, clock::monotonic())).is_some());
}

#[test]
fn a_direct_search_finds_a_listener_once() {
    let found = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&found);
    let report = move |listener: &Listener| report.lock().unwrap().push(listener.owner.pid);
    let owners = PortOwners::start(None, Box::new(report), Box::new(|| vec![std::process::id()])).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..3 {
        // The thread does not know this port.
        owners.search(address.port(), std::process::id());
        assert_eq!(owners.at(address, clock::monotonic()).unwrap().pid, std::process::id());
        std::thread::sleep(SEARCH_AGAIN);
    }
    assert_eq!(*found.lock().unwrap(), [std::process::id()]);
}

#[test]
fn a_closed_listener_is_remembered() {
    let owners = PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    owners.want([(address.port(), std::process::id())]);
    wait_for(|| owners.at(address, clock::monotonic())).unwrap();
    drop(listener);
    owners.want([]);
    assert!(owners.at(address, clock::monotonic()).is_some());
}

#[test]
fn the_address_of_a_connection_selects_its_listener() {
    let listener = |ip: &str, pid: u32, started_at: Nanos, gone_at| Listener {
        ip: ip.parse().unwrap(),
        inode: u64::from(pid),
        owner: Arc::new(PortOwner {
            pid,
            comm: "t3".to_owned(),
            start_ticks: started_at,
            started_at,
            cgroup: None,
        }),
        others: Vec::new(),
        gone_at,
    };
    let owners = PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap();
    owners.shared.lock().listeners.insert(
        3773,
        VecDeque::from([
            listener("127.0.0.2", 1, 10, None),
            listener("127.0.0.1", 2, 20, Some(30)),
            listener("::", 3, 15, None),
            listener("0.0.0.0", 4, 12, None),
            listener("::1", 5, 40, None),
        ]),
    );
    let pid = |ip: &str, moment| {
        owners.at(SocketAddr::new(ip.parse().unwrap(), 3773), moment).map(|owner| owner.pid)
    };
    assert_eq!(pid("127.0.0.1", 25), Some(2));
    assert_eq!(pid("::ffff:127.0.0.1", 25), Some(2), "a mapped address is the same one");
    assert_eq!(pid("127.0.0.2", 50), Some(1));
    assert_eq!(pid("127.0.0.1", 31 + GONE), Some(4), "the first is gone; IPv4 comes before both");
    assert_eq!(pid("::1", 39), Some(3));
    assert_eq!(pid("::1", 40), Some(5));
    assert_eq!(pid("127.0.0.1", 5), None, "none had started");
}

fn accepted_by(
    owners: &PortOwners,
    local: SocketAddr,
    remote: SocketAddr,
    moment: Nanos,
) -> Option<Arc<PortOwner>> {
    let holders = owners.find_holders(local, remote, std::process::id());
    acceptor(holders.into_iter().filter_map(|pid| owners.read(pid)), moment)
}

#[test]
fn a_connection_belongs_to_the_process_that_holds_it() {
    let owners = PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (local, remote) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let pid = || {
        let owner = accepted_by(&owners, local, remote, clock::monotonic());
        owner.map(|owner| owner.pid)
    };
    assert_eq!(pid(), None, "not accepted yet");
    let accepted = listener.accept().unwrap();
    assert_eq!(wait_for(pid), Some(std::process::id()));
    assert!(owners.known_holders(local, remote, std::process::id()).is_some(), "read before");
    let started = PortOwner::of(std::process::id(), None).unwrap().started_at;
    assert_eq!(accepted_by(&owners, local, remote, started - 1), None, "inherited later");
    drop((accepted, client));
    assert_eq!(wait_for(|| pid().is_none().then_some(())), Some(()));
}

#[test]
fn oom_victims_are_kept_with_their_argv_up_to_a_limit() {
    let owners = PortOwners::start(None, Box::new(|_| ()), Box::new(Vec::new)).unwrap();
    for n in 0..100 {
        owners.oom(std::process::id(), n);
    }
    let victims = owners.victims_since(0);
    assert_eq!((victims.len(), victims[0].at), (VICTIMS, 36));
    assert!(victims[0].argv.as_deref().is_some_and(|argv| !argv.is_empty()));
    assert_eq!(owners.victims_since(99).len(), 1);
}
