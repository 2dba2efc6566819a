//! Memory of the real program at each of its limits: resident memory and socket buffers per
//! connection, times the default limit, stay below `MemoryMax=` of the unit.
//!
//! Needs `cargo xtask build`, and `ss` of iproute2. Prints a table.

use t3_testkit::soak::limits::{Kind, measure};

/// Most memory per connection of a kind in KiB.
const fn bound(kind: Kind) -> u64 {
    match kind {
        Kind::Idle => 48,
        Kind::UnfinishedHead => 160,
        Kind::AfterLargeHead => 16,
        Kind::LargeHeadUnread => 1024,
        Kind::UnreadDownload => 768,
        Kind::IdleSession => 32,
        Kind::UnreadSession => 640,
        Kind::UnreadBothWays => 1024,
    }
}

#[test]
fn memory_at_every_limit_stays_below_that_of_the_unit() {
    let limits = measure().unwrap();
    limits.print();
    for row in &limits.rows {
        assert!(row.total() < bound(row.kind) << 10, "{row:?}: above {} KiB", bound(row.kind));
    }
    assert_eq!(limits.rows.len(), Kind::ALL.len());
    assert_eq!(limits.findings(), [""; 0]);
}
