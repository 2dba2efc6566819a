//! Every close is recorded once, and losses are counted.

use std::os::unix::fs::MetadataExt as _;
use std::{net::TcpListener, os::fd::AsFd};

use rustix::net::sockopt::socket_cookie;
use t3_trace_host::kernel::{Change, EventKind, Functions, Options, SocketKey};

use crate::fixture::{kernel, kernel_with, pair, reset, wait_for};

const CONNECTIONS: usize = 300;

#[test]
fn every_connection_is_recorded_with_its_end() {
    record_every_connection(&Options::default());
}

#[test]
fn programs_without_types_of_the_kernel_record_the_same() {
    record_every_connection(&Options { functions: Functions::Tracepoint, ..Options::default() });
}

fn record_every_connection(options: &Options) {
    let Some(mut kernel) = kernel_with(options) else { return };
    let is_typed = kernel.program_times().iter().any(|time| time.program == "btf_inet_sock_set_state");
    eprintln!(
        "{:?}: state changes are read {}",
        options.functions,
        if is_typed { "directly" } else { "by helpers" }
    );
    assert!(!is_typed || options.functions == Functions::Best);
    let mut events = kernel.take_events().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    kernel.watch(&[listener.local_addr().unwrap().port()], &[], &[]).unwrap();
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let (accepted, client) = pair(&listener);
        open.push((socket_cookie(accepted.as_fd()).unwrap(), accepted, client));
    }
    let mut expected = Vec::new();
    for (i, (cookie, accepted, client)) in open.into_iter().enumerate() {
        let change = match i % 4 {
            0 => {
                drop(client);
                Change::FinIn
            }
            1 => {
                reset(client);
                Change::RstIn
            }
            2 => {
                drop(accepted);
                expected.push((cookie, Change::FinOut));
                continue;
            }
            _ => {
                reset(accepted);
                expected.push((cookie, Change::RstOut));
                continue;
            }
        };
        expected.push((cookie, change));
        wait_for("the event was recorded", || kernel.socket(cookie).is_some());
    }
    for (cookie, change) in &expected {
        let trace = kernel.socket(*cookie).unwrap_or_default();
        let seen = [
            (trace.fin_in, Change::FinIn),
            (trace.fin_out, Change::FinOut),
            (trace.rst_in, Change::RstIn),
            (trace.rst_out, Change::RstOut),
        ];
        let first = seen.into_iter().filter_map(|(at, change)| Some((at?, change))).min_by_key(|(at, _)| *at);
        assert_eq!(first.map(|(_, change)| change), Some(*change), "{trace:?}");
    }
    assert_eq!(kernel.remembered_sockets(), CONNECTIONS);
    assert_eq!(kernel.lost().total(), 0);

    let mut announced = Vec::new();
    while let Some(event) = events.next_event() {
        if let EventKind::Socket { socket: SocketKey::Cookie(cookie), change } = event.kind {
            announced.push((cookie, change));
        }
    }
    for ending in &expected {
        assert_eq!(announced.iter().filter(|event| *event == ending).count(), 1, "{ending:?}");
    }
}

#[test]
fn unwatched_ports_are_not_recorded() {
    let Some(mut kernel) = kernel() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let close_some = || {
        for _ in 0..50 {
            let (accepted, client) = pair(&listener);
            let _ = socket_cookie(accepted.as_fd()).unwrap();
            drop(client);
            drop(accepted);
        }
    };
    kernel.watch(&[port ^ 1], &[port ^ 2], &[]).unwrap();
    close_some();
    assert_eq!((kernel.remembered_sockets(), kernel.sent()), (0, 0));
    // Control: with a watched port they are recorded.
    kernel.watch(&[port], &[], &[]).unwrap();
    close_some();
    assert_eq!(kernel.remembered_sockets(), 50);
    kernel.watch(&[], &[], &[]).unwrap();
    close_some();
    assert_eq!(kernel.remembered_sockets(), 50);
}

#[test]
fn other_network_namespaces_are_not_recorded() {
    let Some(mut kernel) = kernel_with(&Options::default()) else { return };
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    let own = u32::try_from(own).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let close_some = || {
        for _ in 0..50 {
            let (accepted, client) = pair(&listener);
            let _ = socket_cookie(accepted.as_fd()).unwrap();
            drop(client);
            drop(accepted);
        }
    };
    kernel.watch(&[port], &[port], &[own ^ 1]).unwrap();
    close_some();
    assert_eq!((kernel.remembered_sockets(), kernel.table_load(&kernel.lost()).added), (0, 0));
    // Controls: the own namespace, one of several, and all.
    for (namespaces, sockets) in [(vec![own], 50), (vec![own ^ 1, own], 100), (vec![], 150)] {
        kernel.watch(&[port], &[], &namespaces).unwrap();
        close_some();
        assert_eq!(kernel.remembered_sockets(), sockets);
    }
    kernel.watch(&[port], &[], &[own ^ 1]).unwrap();
    close_some();
    assert_eq!((kernel.remembered_sockets(), kernel.table_load(&kernel.lost()).added), (150, 150));
}

#[test]
fn facts_are_recorded_without_events_about_sockets() {
    let Some(mut kernel) = kernel_with(&Options { socket_events: false, ..Options::default() }) else {
        return;
    };
    let mut events = kernel.take_events().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    kernel.watch(&[listener.local_addr().unwrap().port()], &[], &[]).unwrap();
    let (accepted, client) = pair(&listener);
    let cookie = socket_cookie(accepted.as_fd()).unwrap();
    drop(client);
    wait_for("FIN came in", || kernel.socket(cookie).is_some_and(|facts| facts.fin_in.is_some()));
    drop(accepted);
    let facts = kernel.socket(cookie).unwrap();
    assert!(
        facts.fin_out > facts.fin_in && facts.closer.is_some_and(|closer| closer.pid == std::process::id())
    );
    assert_eq!(kernel.sent(), 3, "FIN in, FIN out and CLOSE are counted");
    assert!(events.next_event().is_none_or(|event| !matches!(event.kind, EventKind::Socket { .. })));
    assert_eq!(kernel.lost().total(), 0);
}

#[test]
fn events_lost_by_a_full_ring_are_counted_and_facts_are_kept() {
    let Some(mut kernel) = kernel_with(&Options { ring_bytes: 4_096, ..Options::default() }) else { return };
    let mut events = kernel.take_events().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    kernel.watch(&[listener.local_addr().unwrap().port()], &[], &[]).unwrap();
    let mut cookies = Vec::new();
    for _ in 0..CONNECTIONS {
        let (accepted, client) = pair(&listener);
        cookies.push(socket_cookie(accepted.as_fd()).unwrap());
        drop(client);
        wait_for("FIN came in", || kernel.socket(*cookies.last().unwrap()).is_some());
        drop(accepted);
    }
    for cookie in &cookies {
        let trace = kernel.socket(*cookie).unwrap_or_default();
        assert!(trace.fin_in.is_some() && trace.fin_out > trace.fin_in, "{trace:?}");
    }
    let mut read = 0;
    while events.next_event().is_some() {
        read += 1;
    }
    let lost = kernel.lost();
    assert_eq!(kernel.sent(), read);
    assert!(read < 4_096 / 80 + 1, "{read} events do not fit");
    // FIN in, FIN out and CLOSE of each.
    assert_eq!(read + lost.events, 3 * CONNECTIONS as u64, "{lost:?}");
    assert_eq!(lost.map_full(), 0);
}
