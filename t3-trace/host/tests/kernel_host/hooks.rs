//! Hooks and inventory.

use t3_record::vocabulary::KernelSource;

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
