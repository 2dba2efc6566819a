//! Values of the eBPF programs' globals for the running kernel, from BTF.
//!
//! Pure. `t3_trace_abi::globals` lists them.

use std::collections::BTreeMap;

use t3_trace_abi::globals::{ABSENT, ARGUMENTS, Argument, Callable, MEMBERS, SOCK_DONE, Shape};

use super::btf::{Btf, BtfError, TypeName};

/// Globals of the programs, and names of reset reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Name and value of each global.
    pub globals: Vec<(&'static str, u16)>,
    /// `enum sk_rst_reason` in lower case, without its prefix; empty before 6.10.
    pub reset_reasons: BTreeMap<u32, String>,
    /// What this kernel lacks, one line each.
    pub missing: Vec<String>,
}

impl Layout {
    /// Resolves the globals from the kernel's BTF.
    ///
    /// # Errors
    /// A member is missing that is required to identify sockets.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, BtfError> {
        let mut layout = Self::default();
        for member in MEMBERS {
            let offset = btf.member(member.structure, member.path).and_then(|found| {
                // With another size it is not what the programs expect.
                u16::try_from(found.offset)
                    .ok()
                    .filter(|offset| *offset != ABSENT && found.size == member.size)
                    .ok_or(BtfError::Malformed("unexpected size of a member"))
            });
            let value = match offset {
                Ok(offset) => offset,
                Err(error) if member.needed => return Err(error),
                Err(error) => {
                    layout.missing.push(format!("{}: {error}", member.global));
                    ABSENT
                }
            };
            layout.globals.push((member.global, value));
        }
        for argument in ARGUMENTS {
            layout.globals.push((argument.global, u16::from(has(btf, argument))));
        }
        let done = btf.enumerators("sock_flags").ok().and_then(|flags| {
            flags.iter().find(|(name, _)| *name == "SOCK_DONE").and_then(|(_, bit)| u16::try_from(*bit).ok())
        });
        layout.globals.push((SOCK_DONE, done.unwrap_or(ABSENT)));
        let reasons = btf.enumerators("sk_rst_reason").unwrap_or_default();
        layout.reset_reasons = reasons
            .iter()
            .filter_map(|(name, value)| Some((*value, name.strip_prefix("SK_RST_REASON_")?.to_lowercase())))
            // The kernel's value for "no reason given".
            .filter(|(_, name)| name != "not_specified")
            .collect();
        Ok(layout)
    }
}

fn has(btf: &Btf<'_>, argument: &Argument) -> bool {
    let wanted = match argument.shape {
        Shape::Enum(name) => TypeName::Enum(name),
        Shape::Pointer(name) => TypeName::Pointer(name),
        Shape::Int(name) => TypeName::Int(name),
    };
    let arguments = match argument.of {
        Callable::Tracepoint(name) => btf.tracepoint(name),
        Callable::Function(name) => btf.function(name),
    };
    arguments.is_ok_and(|arguments| arguments.get(argument.index) == Some(&wanted))
}
