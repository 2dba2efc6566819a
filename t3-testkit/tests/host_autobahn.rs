//! Autobahn conformance suite: its fuzzing client against its own echo server, once directly and
//! once through dispatch. Every case must have the same result, each connection one record.
//!
//! Needs root, and the suite, which `cargo xtask test --tier host` installs. `T3_QUICK` selects the
//! cases of framing, fragments, UTF-8 and closing. The 216 compression cases send 100 instead of
//! 1,000 messages each, except with `T3_AUTOBAHN_MESSAGES=1000`.

use std::{collections::BTreeMap, time::Duration};

use t3_record::Verdict;
use t3_testkit::{
    autobahn::{Report, Run, Suite, differences},
    harness::{NO_LIMITS, Setup, Stack, free_port},
    journald::Journal,
    prerequisite,
    restart::{Fixture, Options},
};

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, auto-fragmentation.
const QUICK: &[&str] = &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

#[test]
fn every_case_has_the_same_result_through_dispatch() {
    let test = "every_case_has_the_same_result_through_dispatch";
    let Some(suite) = prerequisite::or_skip(test, Suite::find()) else { return };
    let quick = std::env::var_os("T3_QUICK").is_some();
    let (cases, expected) = if quick { (QUICK, 247) } else { (&["*"][..], 517) };
    let messages = std::env::var("T3_AUTOBAHN_MESSAGES").map_or(100, |text| text.parse().unwrap());

    let mut setup = Setup::users(1).unwrap();
    // One user opens hundreds of WebSockets per minute here.
    setup.dispatch_arguments = NO_LIMITS.map(str::to_owned).to_vec();
    let stack = Stack::start(setup, Journal::private().unwrap()).unwrap();
    let port = free_port().unwrap();
    let _echoes = [(port, port), (stack.port("u0").unwrap(), stack.address.port())]
        .map(|(port, asked)| suite.echo(port, asked).unwrap());
    let run = |to| suite.run(&Run { to, user: "u0", cases, messages });
    // In parallel: each run keeps one core busy.
    let (direct, through) = std::thread::scope(|scope| {
        let direct = scope.spawn(|| run(([127, 0, 0, 1], port).into()).unwrap());
        let through = run(stack.address).unwrap();
        (direct.join().unwrap(), through)
    });

    assert_same(&direct, &through, expected);
    stack.journal.wait_closes(expected, Duration::from_secs(30), |_| true).unwrap();
    assert_eq!(stack.journal.opens().unwrap().len(), expected);
    let closes = stack.journal.closes(|_| true).unwrap();
    let mut verdicts = BTreeMap::<String, usize>::new();
    for (record, _) in &closes {
        assert_ne!(record.verdict, Verdict::Unknown, "{}", record.to_line());
        *verdicts.entry(record.verdict.to_string()).or_default() += 1;
    }
    println!("{} records: {verdicts:?}", closes.len());
    assert_eq!(closes.len(), expected, "one record per connection");
    let mut names: Vec<_> = closes.iter().map(|(record, _)| &record.conn).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), expected, "unique connection ids");
}

/// Sessions that are open during a restart, in up to so many runs of all cases.
const ENOUGH: usize = 10;
const PASSES: usize = 3;
/// Time between two restarts. A case takes some milliseconds, those with a wait a second.
const BETWEEN: Duration = Duration::from_millis(150);

#[test]
fn every_case_has_the_same_result_over_restarts() {
    let test = "every_case_has_the_same_result_over_restarts";
    let Some(suite) = prerequisite::or_skip(test, Suite::find()) else { return };
    let expected = 247;
    let mut fixture = Fixture::start(&Options::default()).unwrap();
    let (port, address) = (free_port().unwrap(), fixture.stack.address);
    let _echoes = [(port, port), (fixture.serve_ports[0], address.port())]
        .map(|(port, asked)| suite.echo(port, asked).unwrap());
    let run = |to| suite.run(&Run { to, user: "u0", cases: QUICK, messages: 100 }).unwrap();
    let direct = run(([127, 0, 0, 1], port).into());
    let (mut restarts, mut resumed) = (0, 0);
    // The faster the host, the fewer sessions are open during a restart.
    for pass in 1..=PASSES {
        let through = std::thread::scope(|scope| {
            let through = scope.spawn(|| run(address));
            while !through.is_finished() {
                std::thread::sleep(BETWEEN);
                // A crash ends the connections whose handshake is in progress, of which there are
                // many.
                fixture.restart().unwrap();
                restarts += 1;
            }
            through.join().unwrap()
        });
        assert_same(&direct, &through, expected);
        let closes = fixture.records(pass * expected).unwrap();
        assert_eq!(closes.len(), pass * expected, "one record per connection");
        resumed = closes.iter().filter(|(record, _)| record.resumed.is_some_and(|n| n > 0)).count();
        println!("{restarts} restarts; {resumed} of {} sessions were open during one", closes.len());
        if resumed >= ENOUGH {
            break;
        }
    }
    assert!(resumed >= ENOUGH, "too few to prove something: {resumed}");
}

/// Every case has the same result.
fn assert_same(direct: &Report, through: &Report, expected: usize) {
    let different = differences(direct, through);
    println!(
        "{} cases, {} identical; directly {:?}",
        direct.cases.len(),
        direct.cases.len() - different.len(),
        direct.tally()
    );
    different.iter().for_each(|(number, what)| println!("  {number}: {what}"));
    assert!(different.is_empty(), "{} cases differ: {:?}", different.len(), different.keys());
    assert_eq!(through.cases.len(), expected);
    // Two runs that fail in the same way would prove nothing.
    let ok = direct.tally().get("OK").copied().unwrap_or(0);
    assert!(ok * 10 >= expected * 9, "{:?}", direct.tally());
}
