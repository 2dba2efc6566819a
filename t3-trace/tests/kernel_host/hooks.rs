//! Every hook is attached or says why not.

use t3_record::words::KernelSource;

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
