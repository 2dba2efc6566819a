//! Values of the eBPF programs' globals for the running kernel, from BTF.
//!
//! Pure. `t3_trace_abi::globals` lists them.

use std::collections::BTreeMap;

use t3_trace_abi::globals::{
    ABSENT, ARGUMENTS, Argument, Callable, ITER_TYPE_MASK, ITERATORS, MEMBERS, MESSAGE, Member, SOCK_DONE,
    Shape,
};

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
            let value = match offset(btf, member) {
                Ok(offset) => offset,
                Err(error) if member.needed => return Err(error),
                Err(error) => {
                    layout.missing.push(format!("{}: {error}", member.global));
                    ABSENT
                }
            };
            layout.globals.push((member.global, value));
        }
        layout.globals.extend(message(btf));
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

fn offset(btf: &Btf<'_>, member: &Member) -> Result<u16, BtfError> {
    let found = btf.member(member.structure, member.path)?;
    // With another size it is not what the programs expect.
    u16::try_from(found.offset)
        .ok()
        .filter(|offset| *offset != ABSENT && found.size == member.size)
        .ok_or(BtfError::Malformed("unexpected size of a member"))
}

/// How the buffer of a message is found.
fn message(btf: &Btf<'_>) -> Vec<(&'static str, u16)> {
    let mut globals: Vec<(&'static str, u16)> = Vec::new();
    for member in MESSAGE {
        if let Ok(offset) = offset(btf, member) {
            globals.push((member.global, offset));
        }
    }
    // With the direction in the two lowest bits.
    let is_wide = globals.iter().any(|(name, _)| *name == "MSG_TYPE_WIDE");
    globals.push((ITER_TYPE_MASK, if is_wide { !3 } else { u16::MAX }));
    let kinds = btf.enumerators("iter_type").unwrap_or_default();
    for wanted in ITERATORS {
        let kind = kinds.iter().find(|(name, _)| name == wanted);
        globals.extend(kind.and_then(|(_, kind)| Some((*wanted, u16::try_from(*kind).ok()?))));
    }
    globals
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
