//! Every hook is attached or says why not.

use t3_record::vocabulary::KernelSource;

use crate::bench::kernel;

#[test]
fn every_hook_is_attached_or_says_why() {
    let Some(kernel) = kernel() else { return };
    for hook in kernel.hooks() {
        let why = hook.why.as_deref().unwrap_or_default();
        eprintln!("{:32} {} {why}", hook.name, hook.attached.as_deref().unwrap_or("-"));
        assert_eq!(hook.attached.is_none(), hook.why.is_some(), "{hook:?}");
        // On all kernels from 5.10 on.
        let everywhere = hook.name.contains(':') && hook.name != "sock:inet_sk_error_report";
        assert!(!everywhere || hook.attached.as_deref() == Some("tracepoint"), "{hook:?}");
    }
    let functions = kernel.hooks().iter().any(|hook| !hook.name.contains(':') && hook.attached.is_some());
    assert_eq!(kernel.source(), if functions { KernelSource::Kprobe } else { KernelSource::Tracepoint });
    assert_eq!(
        kernel.missing(),
        Vec::<String>::new(),
        "kernels without these are rare enough to be looked at"
    );
}

#[test]
fn the_inventory_has_every_table_with_its_size() {
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
        assert!(there || hook.attached.is_none(), "attached to what the kernel does not have: {hook:?}");
    }
}
