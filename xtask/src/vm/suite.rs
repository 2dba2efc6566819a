//! Debian releases whose kernels are supported.

use clap::ValueEnum;

/// A Debian release, by the name its package archive uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Debian 11, Linux 5.10: no `inet_sk_error_report`.
    Bullseye,
    /// Debian 12, Linux 6.1: the most common kernel.
    Bookworm,
    /// Debian 13, Linux 6.12: reset reasons.
    Trixie,
}

impl Suite {
    /// All of them; the most common kernel first, so that its failure shows first.
    pub const ALL: [Self; 3] = [Self::Bookworm, Self::Bullseye, Self::Trixie];

    /// The archive's name of the release.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// How `uname -r` of its kernel begins.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Bullseye => "5.10.",
            Self::Bookworm => "6.1.",
            Self::Trixie => "6.12.",
        }
    }
}
