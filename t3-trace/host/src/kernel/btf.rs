//! Reads BTF: offsets of structure members, enum values, arguments of tracepoints.
//!
//! Pure functions on bytes (Documentation/bpf/btf.rst). The input is not trusted: every offset is
//! checked, and every chain of types is followed for a limited number of steps. Supports only what
//! the loader needs.

use std::ops::Range;

const MAGIC: u16 = 0xeb9f;
/// Limit for chains of typedefs, qualifiers and nested structures; no kernel comes near it.
const MAX_DEPTH: usize = 32;

/// Kinds of types (include/uapi/linux/btf.h).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Error of a BTF look-up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The bytes are not BTF, or are truncated.
    #[error("cannot read BTF: {0}")]
    Malformed(&'static str),
    /// The kernel has no such type.
    #[error("the kernel's BTF has no {0}")]
    NoType(String),
    #[error("the kernel's struct {structure} has no member {path}")]
    NoMember { structure: String, path: String },
    /// The member is a bit field, which cannot be read as bytes.
    #[error("the kernel's {structure}.{path} is a bit field")]
    BitField { structure: String, path: String },
}

/// Position of a member in its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLocation {
    /// Bytes from the structure's start.
    pub offset: u32,
    /// Size in bytes.
    pub size: u32,
}

/// Type without typedefs and qualifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeName<'a> {
    /// An integer, by the compiler's name.
    Int(&'a str),
    /// An enum.
    Enum(&'a str),
    /// A pointer to a structure.
    Pointer(&'a str),
    /// Anything else.
    Other,
}

/// One type: its fixed part and the position of its details.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    vlen: u32,
    kind_flag: bool,
    /// Size in bytes, or the type it refers to.
    size_or_type: u32,
    details: usize,
}

/// Parsed BTF. Borrows the bytes and keeps the start of each type.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Start of type `i + 1`; type 0 is void.
    starts: Vec<u32>,
}

impl<'a> Btf<'a> {
    /// Parses the contents of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// [`BtfError::Malformed`], also for kinds of types that are newer than this program.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let short = BtfError::Malformed("truncated header");
        if u16_at(bytes, 0) != Some(MAGIC) {
            return Err(BtfError::Malformed("wrong magic number or byte order"));
        }
        let header = u32_at(bytes, 4).ok_or(short.clone())?;
        let mut section = [0; 4];
        for (i, value) in section.iter_mut().enumerate() {
            *value = u32_at(bytes, 8 + 4 * i).ok_or(short.clone())?;
        }
        let [type_off, type_len, str_off, str_len] = section;
        let types = slice(bytes, header, type_off, type_len)
            .ok_or(BtfError::Malformed("the types exceed the file"))?;
        let strings = slice(bytes, header, str_off, str_len)
            .ok_or(BtfError::Malformed("the strings exceed the file"))?;
        let mut btf = Self { types, strings, starts: Vec::new() };
        btf.index()?;
        Ok(btf)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let start = u32::try_from(at).map_err(|_| BtfError::Malformed("more than 4 GiB of types"))?;
            let ty = self.type_at(at).ok_or(BtfError::Malformed("truncated type"))?;
            let details = match ty.kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * ty.vlen as usize,
                kind::ENUM | kind::FUNC_PROTO => 8 * ty.vlen as usize,
                kind::PTR
                | kind::FWD
                | kind::TYPEDEF
                | kind::VOLATILE
                | kind::CONST
                | kind::RESTRICT
                | kind::FUNC
                | kind::FLOAT
                | kind::TYPE_TAG => 0,
                _ => return Err(BtfError::Malformed("unknown kind of type")),
            };
            self.starts.push(start);
            at = ty.details + details;
        }
        if at == self.types.len() { Ok(()) } else { Err(BtfError::Malformed("the last type is truncated")) }
    }

    /// Finds a member by path (`.` steps into a structure; anonymous structures are searched, too).
    ///
    /// # Errors
    /// The structure or member does not exist, or is a bit field.
    pub fn member(&self, structure: &str, path: &str) -> Result<MemberLocation, BtfError> {
        let no_member = || BtfError::NoMember { structure: structure.to_owned(), path: path.to_owned() };
        let mut found = false;
        for ty in self.named(structure).filter(|ty| ty.kind == kind::STRUCT) {
            found = true;
            if let Some((bits, bit_field, id)) = self.walk(ty, path) {
                if bit_field || bits % 8 != 0 {
                    return Err(BtfError::BitField {
                        structure: structure.to_owned(),
                        path: path.to_owned(),
                    });
                }
                let size = self.size(id, 0).ok_or_else(no_member)?;
                return Ok(MemberLocation { offset: bits / 8, size });
            }
        }
        if found { Err(no_member()) } else { Err(BtfError::NoType(format!("struct {structure}"))) }
    }

    /// Constants of an enum in the order of declaration; 64-bit values are cut to the lower 32
    /// bits.
    ///
    /// # Errors
    /// The enum does not exist.
    pub fn enumerators(&self, name: &str) -> Result<Vec<(&'a str, u32)>, BtfError> {
        let ty = self
            .named(name)
            .find(|ty| matches!(ty.kind, kind::ENUM | kind::ENUM64))
            .ok_or_else(|| BtfError::NoType(format!("enum {name}")))?;
        let stride = if ty.kind == kind::ENUM { 8 } else { 12 };
        let value = |i: u32| {
            let at = ty.details + stride * i as usize;
            Some((self.string(u32_at(self.types, at)?)?, u32_at(self.types, at + 4)?))
        };
        Ok((0..ty.vlen).filter_map(value).collect())
    }

    /// Argument types of a tracepoint, as its programs receive them. BTF has no argument names.
    ///
    /// # Errors
    /// The kernel has no such tracepoint.
    pub fn tracepoint(&self, name: &str) -> Result<Vec<TypeName<'a>>, BtfError> {
        let typedef = format!("btf_trace_{name}");
        let none = || BtfError::NoType(format!("tracepoint {name}"));
        let ty = self.named(&typedef).find(|ty| ty.kind == kind::TYPEDEF).ok_or_else(none)?;
        let pointer = self.strip(ty.size_or_type).filter(|ty| ty.kind == kind::PTR).ok_or_else(none)?;
        let proto =
            self.strip(pointer.size_or_type).filter(|ty| ty.kind == kind::FUNC_PROTO).ok_or_else(none)?;
        // The first argument is the tracepoint's own data.
        Ok(self.arguments(proto).skip(1).collect())
    }

    /// Argument types of a function.
    ///
    /// # Errors
    /// The kernel's BTF has no such function.
    pub fn function(&self, name: &str) -> Result<Vec<TypeName<'a>>, BtfError> {
        let none = || BtfError::NoType(format!("function {name}"));
        let function = self.named(name).find(|ty| ty.kind == kind::FUNC).ok_or_else(none)?;
        let proto = self.by_id(function.size_or_type).filter(|ty| ty.kind == kind::FUNC_PROTO);
        Ok(self.arguments(proto.ok_or_else(none)?).collect())
    }

    fn arguments(&self, proto: Type) -> impl Iterator<Item = TypeName<'a>> {
        (0..proto.vlen).map(move |i| {
            u32_at(self.types, proto.details + 8 * i as usize + 4)
                .map_or(TypeName::Other, |id| self.name_of(id))
        })
    }

    fn name_of(&self, id: u32) -> TypeName<'a> {
        let Some(ty) = self.strip(id) else { return TypeName::Other };
        let name = |ty: Type| self.string(ty.name).unwrap_or_default();
        match ty.kind {
            kind::INT => TypeName::Int(name(ty)),
            kind::ENUM | kind::ENUM64 => TypeName::Enum(name(ty)),
            kind::PTR => match self.strip(ty.size_or_type) {
                Some(to) if matches!(to.kind, kind::STRUCT | kind::FWD) => TypeName::Pointer(name(to)),
                _ => TypeName::Other,
            },
            _ => TypeName::Other,
        }
    }

    /// Follows a path: returns bits from the start, whether it is a bit field, and the member's
    /// type.
    fn walk(&self, structure: Type, path: &str) -> Option<(u32, bool, u32)> {
        let mut here = structure;
        let mut bits: u32 = 0;
        let mut steps = path.split('.').peekable();
        while let Some(step) = steps.next() {
            let (offset, bit_field, id) = self.find(here, step, 0)?;
            bits = bits.checked_add(offset)?;
            if steps.peek().is_none() {
                return Some((bits, bit_field, id));
            }
            here = self.strip(id)?;
        }
        None
    }

    /// Finds a member by name, also in anonymous structures and unions.
    fn find(&self, ty: Type, name: &str, depth: usize) -> Option<(u32, bool, u32)> {
        // An empty name would find the first anonymous member.
        if name.is_empty() || depth > MAX_DEPTH || !matches!(ty.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for i in 0..ty.vlen {
            let at = ty.details + 12 * i as usize;
            let (member, id) = (self.string(u32_at(self.types, at)?)?, u32_at(self.types, at + 4)?);
            let raw = u32_at(self.types, at + 8)?;
            // With the flag, the upper byte is the width of a bit field, 0 for an ordinary member.
            let (offset, width) = if ty.kind_flag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            if member == name {
                return Some((offset, width != 0, id));
            }
            if member.is_empty()
                && let Some(inner) = self.strip(id)
                && let Some((more, bit_field, id)) = self.find(inner, name, depth + 1)
            {
                return Some((offset.checked_add(more)?, bit_field, id));
            }
        }
        None
    }

    fn size(&self, id: u32, depth: usize) -> Option<u32> {
        let ty = self.strip(id)?;
        match ty.kind {
            kind::PTR => Some(8),
            kind::ARRAY if depth < MAX_DEPTH => {
                let element = self.size(u32_at(self.types, ty.details)?, depth + 1)?;
                element.checked_mul(u32_at(self.types, ty.details + 8)?)
            }
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                Some(ty.size_or_type)
            }
            _ => None,
        }
    }

    /// Returns the type without typedefs and qualifiers.
    fn strip(&self, id: u32) -> Option<Type> {
        let mut ty = self.by_id(id)?;
        for _ in 0..MAX_DEPTH {
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    ty = self.by_id(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn named(&self, name: &str) -> impl Iterator<Item = Type> {
        let wanted = name.as_bytes();
        self.starts.iter().filter_map(|start| self.type_at(*start as usize)).filter(move |ty| {
            let rest = self.strings.get(ty.name as usize..).unwrap_or_default();
            rest.strip_prefix(wanted).is_some_and(|end| end.first() == Some(&0))
        })
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        let start = self.starts.get((id as usize).checked_sub(1)?)?;
        self.type_at(*start as usize)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = u32_at(self.types, at + 4)?;
        Some(Type {
            name: u32_at(self.types, at)?,
            kind: info >> 24 & 0x1f,
            vlen: info & 0xffff,
            kind_flag: info >> 31 == 1,
            size_or_type: u32_at(self.types, at + 8)?,
            details: at + 12,
        })
    }

    fn string(&self, offset: u32) -> Option<&'a str> {
        let rest = self.strings.get(offset as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(range(at, 2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(range(at, 4)?)?.try_into().ok()?))
}

fn range(at: usize, len: usize) -> Option<Range<usize>> {
    Some(at..at.checked_add(len)?)
}

fn slice(bytes: &[u8], header: u32, offset: u32, len: u32) -> Option<&[u8]> {
    let start = (header as usize).checked_add(offset as usize)?;
    bytes.get(range(start, len as usize)?)
}

#[cfg(test)]
mod tests;
