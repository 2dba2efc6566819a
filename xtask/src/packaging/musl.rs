//! Version of the musl libc that the toolchain links into static programs.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};

use crate::tools::arch::Arch;
use crate::tools::toolchain;

/// The version, from the library itself: the toolchain does not state it elsewhere.
pub fn version(arch: Arch) -> Result<String> {
    let file = toolchain::target_dir(arch.target())?.join("lib/self-contained/libc.a");
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    version_in(&bytes).with_context(|| format!("no version of musl in {}", file.display()))
}

/// The only string of the form 1.2.3 in the library: the object `__libc_version`.
fn version_in(bytes: &[u8]) -> Option<String> {
    let strings = bytes.split(|byte| *byte == 0).filter(|bytes| bytes.len() < 16);
    let found: BTreeSet<_> =
        strings.filter_map(|bytes| std::str::from_utf8(bytes).ok()).filter(|text| is_version(text)).collect();
    found.iter().next().filter(|_| found.len() == 1).map(|text| (*text).to_owned())
}

fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.').count() == 3 && text.split('.').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn the_only_version_is_taken() {
        assert_eq!(version_in(b"\x7fELF\0\x01\x001.2.5\0GCC: (GNU) 9.4.0\0").as_deref(), Some("1.2.5"));
        assert_eq!(version_in(b"\x001.2.5\0\x001.2.5\0").as_deref(), Some("1.2.5"));
        assert_eq!(version_in(b"\x001.2.5\0\x001.2.6\0"), None);
        assert_eq!(version_in(b"\x001.2\x001.2.\0version 1.2.5\0"), None);
    }
}
