//! Sessions of a simulated proxy, and one row for each way in which a pair is not certain.

use proptest::prelude::*;

use super::*;

const SECOND: Nanos = 1_000 * MS;
const PROXY: u32 = 77;

/// Number of a session, the same for both legs.
type Id = u32;
type Table = Pairs<(Direction, Id), (Direction, Id)>;

/// A session: its traffic as (time, bytes from the client, bytes from serve).
#[derive(Debug, Clone)]
struct Session {
    id: Id,
    traffic: Vec<(Nanos, u64, u64)>,
    down: Acts,
    up: Acts,
    /// Time of the close of each leg.
    closed: (Nanos, Nanos),
}

/// Bytes of the handshakes.
const REQUEST: (u64, u64) = (300, 420);
const RESPONSE: (u64, u64) = (190, 160);
/// Time that the proxy needs.
const FORWARD: Nanos = MS;

impl Session {
    /// Heartbeats of 40 and 60 bytes at these times, ended by the client.
    fn new(id: Id, beats: &[Nanos], end: Nanos) -> Self {
        let traffic = beats.iter().map(|at| (*at, 40, 60)).collect();
        let down = Acts { received: Some(end), sent: Some(end + 2 * FORWARD) };
        let up = Acts { received: Some(end + 3 * FORWARD), sent: Some(end + FORWARD) };
        Self { id, traffic, down, up, closed: (end + 4 * FORWARD, end + 4 * FORWARD) }
    }

    fn ended_by_serve(mut self) -> Self {
        std::mem::swap(&mut self.down, &mut self.up);
        self
    }

    fn totals(&self, direction: Direction, at: Nanos) -> (u64, u64, Nanos, Nanos) {
        let past = self.traffic.iter().filter(|(time, ..)| *time <= at);
        let (mut from_client, mut from_serve, mut client_at, mut serve_at) = (0, 0, 0, 0);
        for (time, client, serve) in past {
            from_client += client;
            from_serve += serve;
            client_at = if *client > 0 { *time } else { client_at };
            serve_at = if *serve > 0 { *time } else { serve_at };
        }
        match direction {
            Direction::Down => {
                (REQUEST.0 + from_client, RESPONSE.0 + from_serve, client_at, serve_at + FORWARD)
            }
            Direction::Up => {
                (RESPONSE.1 + from_serve, REQUEST.1 + from_client, serve_at, client_at + FORWARD)
            }
        }
    }

    fn sample(&self, direction: Direction, at: Nanos) -> Sample {
        let (received, sent, last_received, last_sent) = self.totals(direction, at);
        Sample { received, sent, last_received, last_sent, precision: 0, retrans: 0, is_queued: false }
    }
}

/// Runs the sessions; returns the pairs and the number of decided connections. `hidden` legs are
/// not known to the table.
fn run(sessions: &[Session], hidden: &[(Direction, Id)], until: Nanos) -> (Vec<(Id, Id)>, usize) {
    let mut table = Table::default();
    let mut legs: Vec<(Direction, &Session)> =
        sessions.iter().flat_map(|session| BOTH.map(|direction| (direction, session))).collect();
    legs.retain(|(direction, session)| !hidden.contains(&(*direction, session.id)));
    for (direction, session) in &legs {
        table.open(PROXY, *direction, (*direction, session.id), 0);
    }
    let mut closes: Vec<_> = legs
        .iter()
        .map(|(direction, session)| {
            let (acts, at) = match direction {
                Direction::Down => (session.down, session.closed.0),
                Direction::Up => (session.up, session.closed.1),
            };
            (at, *direction, *session, acts)
        })
        .collect();
    closes.sort_by_key(|(at, ..)| *at);
    let (mut pairs, mut decided) = (Vec::new(), 0);
    let mut take = |outcomes: Vec<Outcome<(Direction, Id)>>| {
        for outcome in outcomes {
            match outcome {
                Outcome::Pair { down, up } => {
                    pairs.push((down.1, up.1));
                    decided += 2;
                }
                Outcome::Single(_) => decided += 1,
            }
        }
    };
    let mut closes = closes.into_iter().peekable();
    for now in (0..until).step_by(usize::try_from(100 * MS).unwrap()) {
        if now % (2 * SECOND) == 0 {
            for (direction, session) in &legs {
                let key = (*direction, session.id);
                table.sample(PROXY, *direction, key, now, session.sample(*direction, now));
            }
        }
        while let Some((at, direction, session, acts)) = closes.next_if(|(at, ..)| *at <= now) {
            let (received, sent, ..) = session.totals(direction, at);
            let ending = Ending { at, acts, totals: Some((received, sent)) };
            let key = (direction, session.id);
            take(table.close(PROXY, direction, key, ending, key).map(Outcome::Single).into_iter().collect());
        }
        let acts = |(direction, id): &(Direction, Id)| {
            let session = sessions.iter().find(|session| session.id == *id).unwrap();
            let acts = if *direction == Direction::Down { session.down } else { session.up };
            let past = |at: Option<Nanos>| at.filter(|at| *at <= now);
            Acts { received: past(acts.received), sent: past(acts.sent) }
        };
        take(table.due(now, false, acts));
    }
    (pairs, decided)
}

fn beats(phase: Nanos) -> Vec<Nanos> {
    (0..6).map(|n| phase + n * 10 * SECOND).collect()
}

const END: Nanos = 60 * SECOND;
const UNTIL: Nanos = 70 * SECOND;

#[track_caller]
fn check(sessions: &[Session], hidden: &[(Direction, Id)], expected: &[(Id, Id)]) {
    let (mut pairs, decided) = run(sessions, hidden, UNTIL);
    pairs.sort_unstable();
    assert_eq!(pairs, expected);
    assert_eq!(decided, sessions.len() * 2 - hidden.len(), "each connection is decided once");
}

#[test]
fn one_session_is_a_pair_whichever_side_ends_it() {
    check(&[Session::new(1, &beats(SECOND), END)], &[], &[(1, 1)]);
    check(&[Session::new(1, &beats(SECOND), END).ended_by_serve()], &[], &[(1, 1)]);
}

#[test]
fn too_little_traffic_proves_nothing() {
    let few = |count| Session::new(1, &beats(SECOND)[..count], END);
    // The first sample has the first heartbeat.
    check(&[few(4)], &[], &[(1, 1)]);
    check(&[few(3)], &[], &[]);
    check(&[few(0)], &[], &[]);
}

#[test]
fn sessions_with_traffic_at_different_times_are_distinguished() {
    let sessions = [
        Session::new(1, &beats(SECOND), END),
        Session::new(2, &beats(SECOND + 20 * MS), END),
        Session::new(3, &beats(4 * SECOND), END),
    ];
    check(&sessions, &[], &[(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_proxy_sends_after_it_received_and_not_long_after() {
    let messages = |id, at: Nanos| {
        let mut session = Session::new(id, &[], END);
        session.traffic = beats(at).into_iter().map(|at| (at, 0, 500)).collect();
        session
    };
    // Messages of serve, without an answer: the one that is sent first cannot be the other's.
    let upstream_of = |id| [(Direction::Down, id)];
    for (at, is_pair) in [(0, true), (15 * MS, false), (200 * MS, false), (300 * MS, false)] {
        let sessions = [messages(1, SECOND), messages(2, SECOND + at)];
        let both = [upstream_of(2), [(Direction::Up, 1)]].concat();
        // Downstream leg 1 with upstream leg 2, which receives later.
        check(&sessions, &both, if is_pair { &[(1, 2)] } else { &[] });
    }
    for (at, is_pair) in [(200 * MS, true), (300 * MS, false)] {
        let sessions = [messages(1, SECOND), messages(2, SECOND + at)];
        let both = [upstream_of(1), [(Direction::Up, 2)]].concat();
        // Downstream leg 2, which sends later, with upstream leg 1.
        check(&sessions, &both, if is_pair { &[(2, 1)] } else { &[] });
    }
}

#[test]
fn a_size_in_one_direction_distinguishes() {
    let mut other = Session::new(2, &beats(SECOND), END);
    other.traffic[5].2 += 1;
    check(&[Session::new(1, &beats(SECOND), END), other], &[], &[(1, 1), (2, 2)]);
}

#[test]
fn equal_sessions_are_paired_by_an_end_alone_in_time() {
    let equal = [
        Session::new(1, &beats(SECOND), END),
        Session::new(2, &beats(SECOND), END + 2 * SECOND),
        Session::new(3, &beats(SECOND), END + 4 * SECOND).ended_by_serve(),
    ];
    check(&equal, &[], &[(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn equal_sessions_that_end_together_stay_single() {
    for apart in [0, 5 * MS, 500 * MS] {
        let equal = [Session::new(1, &beats(SECOND), END), Session::new(2, &beats(SECOND), END + apart)];
        check(&equal, &[], &[]);
    }
}

#[test]
fn the_client_of_one_and_the_serve_of_an_equal_one_end_together() {
    // Session 1 is ended by its client, session 2 by serve, at the same moment; the proxy ends the
    // other leg of each only later.
    let later = END + 5 * SECOND;
    let mut one = Session::new(1, &beats(SECOND), END);
    one.up = Acts { received: None, sent: Some(later) };
    one.closed.1 = later + MS;
    let mut two = Session::new(2, &beats(SECOND), END).ended_by_serve();
    two.down = Acts { received: None, sent: Some(later) };
    two.closed.0 = later + MS;
    let sessions = [one, two];
    check(&sessions, &[], &[]);
    // The same when nothing else is known.
    check(&sessions, &[(Direction::Up, 1), (Direction::Down, 2)], &[]);
}

#[test]
fn simultaneous_ends_need_traffic_of_different_sizes() {
    let mut session = Session::new(1, &beats(SECOND), END);
    session.up = Acts { received: Some(END), sent: Some(END + MS) };
    check(&[session.clone()], &[], &[]);
    session.traffic[2].2 = 1_000;
    session.traffic[3].2 = 2_000;
    check(&[session], &[], &[(1, 1)]);
}

#[test]
fn a_leg_whose_partner_is_hidden_is_not_given_another_one() {
    let sessions = [Session::new(1, &beats(SECOND), END), Session::new(2, &beats(2 * SECOND), END)];
    check(&sessions, &[(Direction::Up, 1)], &[(2, 2)]);
    check(&sessions, &[(Direction::Up, 1), (Direction::Down, 2)], &[]);
}

#[test]
fn a_leg_that_stays_open_is_single() {
    let mut session = Session::new(1, &beats(SECOND), END);
    session.closed.1 = UNTIL * 2;
    let (pairs, decided) = run(&[session], &[], UNTIL);
    assert_eq!((pairs, decided), (vec![], 1));
}

#[test]
fn an_open_connection_that_is_ending_is_a_rival() {
    // Session 2 ends with session 1, but its sockets close only later: its peers are slow.
    let mut two = Session::new(2, &beats(SECOND), END);
    two.closed = (END + 5 * SECOND, END + 5 * SECOND);
    let (pairs, decided) = run(&[Session::new(1, &beats(SECOND), END), two], &[], UNTIL);
    assert_eq!((pairs, decided), (vec![], 4));
}

#[test]
fn totals_that_a_proxy_cannot_have_are_a_contradiction() {
    let mut session = Session::new(1, &beats(SECOND), END);
    // The proxy forwards what came last, or not; it sends nothing that did not come.
    session.traffic.push((END - MS, 10, 0));
    check(&[session.clone()], &[], &[(1, 1)]);
    let mut table = Table::default();
    let (down, up) = ((Direction::Down, 1), (Direction::Up, 1));
    for (direction, key) in [(Direction::Down, down), (Direction::Up, up)] {
        table.open(PROXY, direction, key, 0);
        for at in (0..END).step_by(usize::try_from(2 * SECOND).unwrap()) {
            table.sample(PROXY, direction, key, at, session.sample(direction, at));
        }
    }
    let (received, sent, ..) = session.totals(Direction::Down, END);
    let ending = Ending { at: END, acts: session.down, totals: Some((received, sent)) };
    assert_eq!(table.close(PROXY, Direction::Down, down, ending, down), None);
    let (received, sent, ..) = session.totals(Direction::Up, END);
    let ending = Ending { at: END, acts: session.up, totals: Some((received, sent + 2)) };
    assert_eq!(table.close(PROXY, Direction::Up, up, ending, up), None);
    let outcomes = table.due(END + HELD, false, |_| Acts::default());
    assert_eq!(outcomes, [Outcome::Single(down), Outcome::Single(up)]);
}

#[test]
fn all_are_decided_at_the_end_of_the_daemon() {
    let sessions = [Session::new(1, &beats(SECOND), END), Session::new(2, &beats(SECOND), END + SECOND)];
    let mut table = Table::default();
    for session in &sessions {
        for direction in BOTH {
            let key = (direction, session.id);
            table.open(PROXY, direction, key, 0);
            for at in (0..END).step_by(usize::try_from(2 * SECOND).unwrap()) {
                table.sample(PROXY, direction, key, at, session.sample(direction, at));
            }
        }
    }
    for (direction, acts) in [(Direction::Down, sessions[0].down), (Direction::Up, sessions[0].up)] {
        let ending = Ending { at: END, acts, totals: None };
        assert_eq!(table.close(PROXY, direction, (direction, 1), ending, (direction, 1)), None);
    }
    assert_eq!(table.due(END, false, |_| Acts::default()), []);
    // Whether the equal session ends at that time is not known yet.
    let outcomes = table.due(END, true, |_| Acts::default());
    assert_eq!(outcomes, BOTH.map(|direction| Outcome::Single((direction, 1))));
    assert_eq!(table.next_due(), None);
}

#[test]
fn nothing_remains_of_a_process_without_connections() {
    let mut table = Table::default();
    for direction in BOTH {
        table.open(PROXY, direction, (direction, 1), 0);
    }
    assert_eq!(table.wanted().len(), 2);
    table.forget(PROXY, Direction::Up, (Direction::Up, 1), 1);
    assert_eq!(table.wanted(), [], "a process with one direction only");
    let ending = Ending { at: 2, acts: Acts::default(), totals: None };
    let key = (Direction::Down, 1);
    assert_eq!(table.close(PROXY, Direction::Down, key, ending, key), Some(key));
    assert!(table.processes.is_empty() && table.open == 0);
}

#[test]
fn a_connection_whose_close_was_lost_is_forgotten() {
    let mut table = Table::default();
    let both = BOTH.map(|direction| (PROXY, direction, (direction, 1)));
    table.begin_pass(&both, 0);
    for pass in 1..=3 {
        assert_eq!(table.wanted().len(), 2, "{pass}");
        table.begin_pass(&both[..1], pass);
    }
    assert_eq!(table.open, 1);
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Sessions of which a third is idle, a third has messages of serve and a third has equal phases.
fn crowd(seed: u64, count: u32) -> Vec<Session> {
    let mut numbers = Numbers(seed);
    let session = |id| {
        let kind = id % 3;
        let phase = if kind == 2 { u64::from(id / 3 % 2 + 1) } else { numbers.below(10_000) };
        let end = END + numbers.below(8_000) * MS;
        let mut session = Session::new(id, &beats(phase * MS + MS), end);
        if kind == 1 {
            let message = |_| ((1 + numbers.below(59_000)) * MS, 0, 1 + numbers.below(300));
            session.traffic.extend((0..8).map(message));
            session.traffic.sort_unstable();
        }
        match numbers.below(4) {
            0 => session = session.ended_by_serve(),
            1 => session.up = Acts { received: Some(end), sent: Some(end + MS) },
            _ => {}
        }
        session
    };
    (1..=count).map(session).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_pair_is_wrong_and_each_connection_is_decided_once(seed: u64, hidden in 0_u32..20) {
        let sessions = crowd(seed, 60);
        let hidden: Vec<_> = (0..hidden).map(|n| (BOTH[usize::from(n % 2 == 0)], n * 3 + 1)).collect();
        let (pairs, decided) = run(&sessions, &hidden, UNTIL);
        prop_assert!(pairs.iter().all(|(down, up)| down == up), "{pairs:?}");
        let legs = sessions.len() * 2 - hidden.iter().filter(|(_, id)| *id <= 60).count();
        prop_assert_eq!(decided, legs);
        prop_assert!(hidden.len() > 5 || pairs.len() > 20, "{} pairs", pairs.len());
    }
}
