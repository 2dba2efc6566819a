//! Which outgoing connections get a record.

use std::fs;

use t3_record::evidence::SocketFacts;
use t3_trace_host::{
    clock::SECOND,
    kernel::{Generation, Opener},
};

use super::*;

fn units(budget: u32) -> Units {
    let watched = WatchedUnit { port: Some(7_844), budget, ..WatchedUnit::new("tunnel.service".to_owned()) };
    Units::new(&[watched])
}

/// A connection of 60 s to this port, opened from this cgroup.
fn closed(port: u16, cgroup: Option<u64>) -> ClosedConnection {
    let task = Task { pid: 881, comm: "cloudflared".into() };
    ClosedConnection {
        at: 100 * SECOND,
        tuple: ServeTuple {
            local: "192.0.2.1:50000".parse().unwrap(),
            remote: format!("198.51.100.7:{port}").parse().unwrap(),
            netns: Some(7),
        },
        generation: Generation::of(40 * SECOND),
        socket: SocketFacts::default(),
        cookie: None,
        counters: None,
        opener: cgroup.map(|cgroup| Opener { at: 40 * SECOND, task, cgroup }),
        is_outgoing: true,
        close_frames: None,
    }
}

#[test]
fn connections_of_the_unit_to_its_port_are_recorded() {
    let mut units = units(2);
    units.cgroups.insert(5, "tunnel.service".to_owned());
    let Decision::Record { holder, is_older } = units.close(&closed(7_844, Some(5))) else { panic!() };
    assert_eq!((holder.task.pid, holder.unit.as_deref(), is_older), (881, Some("tunnel.service"), false));
    assert_eq!(units.close(&closed(443, Some(5))), Decision::Ignore, "another port");
    assert_eq!(units.close(&closed(7_844, Some(6))), Decision::Ignore, "another cgroup");
    assert_eq!(units.close(&closed(7_844, None)), Decision::Ignore, "not known");
    let short = ClosedConnection { generation: Generation::of(80 * SECOND), ..closed(7_844, Some(5)) };
    assert_eq!(units.close(&short), Decision::Ignore, "too short");
    // The unit has ended meanwhile.
    units.ended.push_back((9, "tunnel.service".to_owned()));
    assert!(matches!(units.close(&closed(7_844, Some(9))), Decision::Record { .. }));
    assert_eq!(
        units.close(&closed(7_844, Some(5))),
        Decision::OverBudget { unit: "tunnel.service".to_owned(), is_first: true }
    );
}

#[test]
fn a_connection_older_than_the_watch_is_recorded_whatever_its_age() {
    let mut units = units(10);
    let connection = ClosedConnection { generation: Generation::of(99 * SECOND), ..closed(7_844, None) };
    let task = Task { pid: 77, comm: "cloudflared".into() };
    let holder = Holder { task, unit: Some("tunnel.service".to_owned()) };
    units.add_older(vec![(connection.tuple, holder.clone())]);
    assert_eq!(units.outgoing().older, [connection.tuple]);
    let decision = units.close(&connection);
    assert_eq!(decision, Decision::Record { holder, is_older: true });
    assert_eq!(units.outgoing().older, []);
    assert_eq!(units.close(&connection), Decision::Ignore);
}

#[test]
fn the_cgroups_of_a_unit_are_found_again_after_its_restart() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("system.slice/tunnel.service");
    fs::create_dir_all(&dir).unwrap();
    let mut units = units(10);
    let first = units.set_cgroups(&Tree::read(root.path())).unwrap();
    assert_eq!(first, [(cgroup::id_of(&dir).unwrap(), "tunnel.service".to_owned())]);
    assert_eq!(units.set_cgroups(&Tree::read(root.path())), None);
    fs::remove_dir(&dir).unwrap();
    assert_eq!(units.set_cgroups(&Tree::read(root.path())), Some(vec![]));
    assert_eq!(units.ended, first);
    assert_eq!(units.outgoing().cgroups, [] as [u64; 0]);
    assert_eq!(units.outgoing().min_age, 30 * SECOND);
}
