//! Tests with a small BTF assembler, arbitrary and damaged bytes, and the running kernel's BTF.

use proptest::prelude::*;

use super::*;

/// BTF assembler. Ids count from 1 in the order of the calls.
#[derive(Default)]
struct Assembler {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Assembler {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.types.extend(word.to_ne_bytes()));
    }

    fn ty(&mut self, name: &str, kind: u32, flag: bool, vlen: u32, value: u32, details: &[u32]) -> u32 {
        let name = self.string(name);
        self.words(&[name, u32::from(flag) << 31 | kind << 24 | vlen, value]);
        self.words(details);
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.ty(name, kind::INT, false, 0, bytes, &[bytes * 8])
    }

    fn refers(&mut self, kind: u32, name: &str, to: u32) -> u32 {
        self.ty(name, kind, false, 0, to, &[])
    }

    /// Members as (name, type, bit offset, width of the bit field).
    fn aggregate(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32, u32)]) -> u32 {
        let flag = members.iter().any(|member| member.3 != 0);
        let mut details = Vec::new();
        for (name, ty, offset, width) in members {
            details.extend([self.string(name), *ty, *offset | *width << 24]);
        }
        self.ty(name, kind, flag, u32::try_from(members.len()).unwrap(), size, &details)
    }

    fn enumeration(&mut self, kind: u32, name: &str, values: &[(&str, u32)]) -> u32 {
        let mut details = Vec::new();
        for (name, value) in values {
            details.extend([self.string(name), *value]);
            if kind == kind::ENUM64 {
                details.push(0);
            }
        }
        self.ty(name, kind, false, u32::try_from(values.len()).unwrap(), 4, &details)
    }

    fn tracepoint(&mut self, name: &str, arguments: &[u32]) {
        let void = self.refers(kind::PTR, "", 0);
        let details: Vec<u32> =
            std::iter::once(void).chain(arguments.iter().copied()).flat_map(|ty| [0, ty]).collect();
        let vlen = u32::try_from(details.len() / 2).unwrap();
        let proto = self.ty("", kind::FUNC_PROTO, false, vlen, 0, &details);
        let pointer = self.refers(kind::PTR, "", proto);
        self.refers(kind::TYPEDEF, &format!("btf_trace_{name}"), pointer);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let types = u32::try_from(self.types.len()).unwrap();
        let strings = u32::try_from(self.strings.len()).unwrap();
        for word in [24, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}

/// A socket structure with the difficult cases: named and anonymous nested structures, unions,
/// arrays, bit fields.
fn sample() -> Vec<u8> {
    let mut a = Assembler::new();
    let u8_ = a.int("unsigned char", 1);
    let u16_ = a.int("unsigned short", 2);
    let u32_ = a.int("unsigned int", 4);
    let u64_ = a.int("unsigned long", 8);
    let cookie = a.aggregate(kind::STRUCT, "atomic64", 8, &[("counter", u64_, 0, 0)]);
    let cookie = a.refers(kind::TYPEDEF, "atomic64_t", cookie);
    let pair = a.aggregate(kind::STRUCT, "", 4, &[("dport", u16_, 0, 0), ("num", u16_, 16, 0)]);
    let ports = a.aggregate(kind::UNION, "", 4, &[("both", u32_, 0, 0), ("", pair, 0, 0)]);
    let v6 = a.ty("", kind::ARRAY, false, 0, 0, &[u8_, u32_, 16]);
    let state = a.refers(kind::VOLATILE, "", u8_);
    let state = a.refers(kind::CONST, "", state);
    let common = a.aggregate(
        kind::STRUCT,
        "sock_common",
        64,
        &[
            ("", ports, 32, 0),
            ("state", state, 64, 0),
            ("reuse", u8_, 72, 4),
            ("v6", v6, 96, 0),
            ("cookie", cookie, 256, 0),
        ],
    );
    let sock = a.aggregate(kind::STRUCT, "sock", 128, &[("first", u64_, 0, 0), ("common", common, 64, 0)]);
    let sock_ptr = a.refers(kind::CONST, "", sock);
    let sock_ptr = a.refers(kind::PTR, "", sock_ptr);
    let skb = a.ty("sk_buff", kind::FWD, false, 0, 0, &[]);
    let skb_ptr = a.refers(kind::PTR, "", skb);
    let reason = a.enumeration(kind::ENUM, "reason", &[("R_NONE", 0), ("R_CLOSE", 11)]);
    a.enumeration(kind::ENUM64, "wide", &[("W_ONE", 1)]);
    a.tracepoint("send_reset", &[sock_ptr, skb_ptr, reason]);
    let int = a.int("int", 4);
    a.tracepoint("victim", &[int]);
    a.ty("tag", kind::DECL_TAG, false, 0, int, &[0]);
    a.ty("f", kind::FLOAT, false, 0, 8, &[]);
    a.ty("sec", kind::DATASEC, false, 1, 8, &[int, 0, 4]);
    // Types that refer to themselves.
    let next = a.count + 1;
    a.refers(kind::TYPEDEF, "ouroboros", next);
    let next = a.count + 1;
    a.aggregate(kind::STRUCT, "matryoshka", 8, &[("", next, 0, 0)]);
    a.bytes()
}

#[test]
fn members_are_found_by_name() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    for (structure, path, offset, size) in [
        ("sock", "first", 0, 8),
        ("sock", "common", 8, 64),
        ("sock", "common.both", 12, 4),
        ("sock", "common.dport", 12, 2),
        ("sock", "common.num", 14, 2),
        ("sock", "common.state", 16, 1),
        ("sock", "common.v6", 20, 16),
        ("sock", "common.cookie", 40, 8),
        ("sock", "common.cookie.counter", 40, 8),
        ("sock_common", "num", 6, 2),
    ] {
        assert_eq!(btf.member(structure, path), Ok(MemberLocation { offset, size }), "{structure}.{path}");
    }
}

#[test]
fn missing_types_and_members_are_errors() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    for path in ["nothing", "common.nothing", "common.num.nothing", "first.common", "", "common.", ".common"]
    {
        assert!(matches!(btf.member("sock", path), Err(BtfError::NoMember { .. })), "{path:?}");
    }
    assert!(matches!(btf.member("sock", "common.reuse"), Err(BtfError::BitField { .. })));
    for structure in ["soc", "sock_", "", "reason", "ouroboros"] {
        assert!(btf.member(structure, "first").is_err(), "{structure:?}");
    }
    assert!(btf.member("matryoshka", "doll").is_err());
    assert!(btf.enumerators("sock").is_err());
    assert!(btf.tracepoint("ouroboros").is_err());
}

#[test]
fn enums_and_tracepoints() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.enumerators("reason").unwrap(), [("R_NONE", 0), ("R_CLOSE", 11)]);
    assert_eq!(btf.enumerators("wide").unwrap(), [("W_ONE", 1)]);
    let arguments = [TypeName::Pointer("sock"), TypeName::Pointer("sk_buff"), TypeName::Enum("reason")];
    assert_eq!(btf.tracepoint("send_reset").unwrap(), arguments);
    assert_eq!(btf.tracepoint("victim").unwrap(), [TypeName::Int("int")]);
}

#[test]
fn truncated_bytes_are_rejected() {
    let bytes = sample();
    for len in 0..bytes.len() {
        assert!(Btf::parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
}

/// Calls every function: none may panic.
fn query(bytes: &[u8]) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    for structure in ["sock", "sock_common", "matryoshka", "reason", ""] {
        for path in ["common.cookie.counter", "common.num", "v6", "doll", "", "."] {
            let _ = btf.member(structure, path);
        }
        let _ = btf.enumerators(structure);
    }
    let _ = btf.tracepoint("send_reset");
    let _ = crate::kernel::layout::Layout::resolve(&btf);
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        query(&bytes);
        let mut with_magic = MAGIC.to_ne_bytes().to_vec();
        with_magic.extend(&bytes);
        query(&with_magic);
    }

    #[test]
    fn damaged_bytes_do_not_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = sample();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        query(&bytes);
    }
}

/// Checks known offsets on any host with BTF.
#[test]
fn the_running_kernel_can_be_read() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        assert!(std::env::var_os("CI").is_none(), "this kernel has no BTF");
        eprintln!("skipped: this kernel has no BTF");
        return;
    };
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member("list_head", "prev"), Ok(MemberLocation { offset: 8, size: 8 }));
    assert_eq!(btf.member("task_struct", "comm").unwrap().size, 16);
    let set_state = btf.tracepoint("inet_sock_set_state").unwrap();
    assert_eq!(set_state, [TypeName::Pointer("sock"), TypeName::Int("int"), TypeName::Int("int")]);
    let layout = crate::kernel::layout::Layout::resolve(&btf).unwrap();
    assert_eq!(layout.missing, Vec::<String>::new());
    let number = |name: &str| layout.globals.iter().find(|(global, _)| *global == name).unwrap().1;
    assert_eq!(number("SOCK_DONE_BIT"), 1);
    assert_eq!(number("HAS_RST_REASON") == 1, !layout.reset_reasons.is_empty());
}
