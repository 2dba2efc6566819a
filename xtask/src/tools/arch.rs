//! Architectures of the packages: their names in Debian and in Rust, and the tools for each.

use clap::ValueEnum;

/// An architecture of the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Amd64,
    /// Cross-built on amd64.
    Arm64,
}

impl Arch {
    /// The architecture of this host.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    /// Name in Debian: the field `Architecture` and part of the file name.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Name in Rust: `target_arch`.
    pub const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Target of rustc: static programs.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// A program of binutils for this architecture.
    pub fn binutils(self, name: &str) -> String {
        match self {
            Self::Amd64 => name.to_owned(),
            Self::Arm64 => format!("aarch64-linux-gnu-{name}"),
        }
    }

    /// Program that runs programs of this architecture here; `None`: they run directly.
    pub const fn emulator(self) -> Option<&'static str> {
        match self {
            Self::Amd64 => None,
            Self::Arm64 => Some("qemu-aarch64-static"),
        }
    }

    /// Variables for cargo: the linker, and the compiler of parts in C.
    pub fn variables(self) -> Vec<(String, String)> {
        match self {
            Self::Amd64 => Vec::new(),
            Self::Arm64 => {
                let gcc = self.binutils("gcc");
                ["CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "CC_aarch64_unknown_linux_musl"]
                    .map(|name| (name.to_owned(), gcc.clone()))
                    .to_vec()
            }
        }
    }
}
