//! Swap of the host, by sysinfo(2): a unit with `ProcSubset=pid` has no `/proc/meminfo`.

use rustix::system::sysinfo;

/// Free swap in bytes; `None` on a host without swap.
#[must_use]
pub fn free() -> Option<u64> {
    let info = sysinfo();
    of(info.totalswap, info.freeswap, info.mem_unit)
}

/// Sizes in units of `unit` bytes.
fn of(total: u64, free: u64, unit: u32) -> Option<u64> {
    (total > 0).then(|| free.saturating_mul(unit.max(1).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_no_swap_is_no_size() {
        assert_eq!(of(4, 3, 4096), Some(12_288));
        assert_eq!(of(4, 0, 1), Some(0), "full");
        assert_eq!(of(4, 3, 0), Some(3), "kernels before 2.3.23");
        assert_eq!(of(0, 0, 1), None);
        assert_eq!(of(u64::MAX, u64::MAX, 2), Some(u64::MAX));
    }

    #[test]
    fn the_kernel_and_proc_agree() {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("SwapTotal:")).unwrap();
        assert_eq!(free().is_none(), total.trim() == "0 kB", "{total}");
    }
}
