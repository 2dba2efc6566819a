//! Hooks and inventory.

use t3_record::vocabulary::KernelSource;
use t3_trace_host::kernel::{ConnectionsOf, Kernel, Outgoing};

use crate::fixture::kernel;

#[test]
fn every_hook_is_attached_or_has_a_reason() {
    let Some(kernel) = kernel() else { return };
    for hook in kernel.hooks() {
        let why = hook.why.as_deref().unwrap_or_default();
        eprintln!("{:32} {} {why}", hook.name, hook.attached.as_deref().unwrap_or("-"));
        assert_eq!(hook.attached.is_none(), hook.why.is_some(), "{hook:?}");
        // Available on all kernels from 5.10.
        let everywhere = hook.name.contains(':') && hook.name != "sock:inet_sk_error_report";
        assert!(!everywhere || hook.attached.as_deref() == Some("tracepoint"), "{hook:?}");
    }
    let functions =
        kernel.hooks().iter().any(|hook| hook.name.starts_with("tcp_") && hook.attached.is_some());
    assert_eq!(kernel.source(), if functions { KernelSource::Kprobe } else { KernelSource::Tracepoint });
    assert_eq!(kernel.missing(), Vec::<String>::new(), "a kernel without these is rare: inspect it");
}

#[test]
fn accepts_are_seen_for_other_ports_than_those_of_serve() {
    let Some(mut kernel) = kernel() else { return };
    let of = |port| ConnectionsOf { port, ..ConnectionsOf::default() };
    let accept = |kernel: &Kernel| {
        let hook = kernel.hooks().iter().find(|hook| hook.name == "inet_csk_accept").unwrap();
        (hook.attached.clone(), hook.why.is_some())
    };
    let at_load = accept(&kernel);
    kernel.watch(&[], &[3773], &[]).unwrap();
    kernel.watch_connections(&[of(3773)], &Outgoing::default()).unwrap();
    assert_eq!(accept(&kernel), at_load, "the listener of a serve port is known");
    kernel.watch_connections(&[of(3773), of(8080)], &Outgoing::default()).unwrap();
    let by_read = (Some("tracepoint".to_owned()), false);
    assert_eq!(accept(&kernel), if at_load.0.is_none() { by_read } else { at_load });
}

#[test]
fn the_inventory_has_every_map_with_its_size() {
    let Some(kernel) = kernel() else { return };
    let inventory = kernel.inventory();
    let names: Vec<_> = inventory.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["SOCKETS", "SERVE_ENDS", "GENERATION", "PROCESSES", "EVENTS"]);
    for table in &inventory.tables {
        assert!(table.size > 0 && table.used.is_none_or(|used| used <= table.size), "{table:?}");
    }
    assert!(inventory.events.is_some());
    let offered = t3_trace_host::kernel::offered().unwrap();
    for hook in kernel.hooks().iter().filter(|hook| hook.name.contains(':')) {
        let there = offered.iter().find(|(name, _)| *name == hook.name).unwrap().1;
        assert!(there || hook.attached.is_none(), "attached to a hook that the kernel lacks: {hook:?}");
    }
}
