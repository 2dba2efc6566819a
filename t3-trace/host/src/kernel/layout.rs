//! What the programs must be told of the running kernel: the values of their globals, from BTF.
//!
//! Pure. The list of what is asked is `t3_trace_abi::globals`.

use std::collections::BTreeMap;

use t3_trace_abi::globals::{ABSENT, ARGUMENTS, Argument, MEMBERS, SOCK_DONE, Shape};

use super::btf::{Btf, BtfError, TypeName};

/// The globals of the programs, and the names of reset reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Name and value of each global.
    pub globals: Vec<(&'static str, u16)>,
    /// `enum sk_rst_reason` in lower case, without its prefix; empty before 6.10.
    pub reset_reasons: BTreeMap<u32, String>,
    /// What this kernel does not have and could have: one line each.
    pub missing: Vec<String>,
}

impl Layout {
    /// Asks the kernel's BTF.
    ///
    /// # Errors
    /// When something is missing without which sockets cannot be told apart.
    pub fn resolve(btf: &Btf<'_>) -> Result<Self, BtfError> {
        let mut layout = Self::default();
        for member in MEMBERS {
            let place = btf.member(member.structure, member.path).and_then(|place| {
                // Of another size it is not what the programs think it is.
                u16::try_from(place.offset)
                    .ok()
                    .filter(|offset| *offset != ABSENT && place.size == member.size)
                    .ok_or(BtfError::Malformed("a member has another size than expected"))
            });
            let value = match place {
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
            // The kernel's word for "no reason given".
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
    btf.tracepoint(argument.tracepoint).is_ok_and(|arguments| arguments.get(argument.index) == Some(&wanted))
}
