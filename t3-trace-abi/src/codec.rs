//! Copying a record out of bytes: field by field, so that no byte pattern is ever trusted as a
//! value.

/// Bytes that are not the record they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// Which record.
    pub record: &'static str,
    /// How many bytes it has.
    pub expected: usize,
    /// How many there were.
    pub found: usize,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { record, expected, found } = self;
        write!(f, "a {record} record of the eBPF programs has {expected} bytes, not {found}")
    }
}

impl core::error::Error for DecodeError {}

/// A value with a fixed place in a record.
pub trait Wire: Sized {
    /// Bytes it takes.
    const SIZE: usize;
    /// Its name in errors.
    const NAME: &'static str;

    /// Reads it from the start of exactly [`Wire::SIZE`] bytes; missing bytes count as zero.
    fn read(bytes: &[u8]) -> Self;

    /// Writes it to the start of `bytes`; what does not fit is left out.
    fn write(&self, bytes: &mut [u8]);

    /// Reads it from bytes that come from outside.
    ///
    /// # Errors
    /// When there are more or fewer than [`Wire::SIZE`] bytes.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() == Self::SIZE {
            Ok(Self::read(bytes))
        } else {
            Err(DecodeError { record: Self::NAME, expected: Self::SIZE, found: bytes.len() })
        }
    }
}

macro_rules! wire_int {
    ($($int:ty),+) => { $(
        impl Wire for $int {
            const SIZE: usize = size_of::<$int>();
            const NAME: &'static str = stringify!($int);

            fn read(bytes: &[u8]) -> Self {
                let mut value = [0; size_of::<$int>()];
                value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Self::from_ne_bytes(value)
            }

            fn write(&self, bytes: &mut [u8]) {
                bytes.iter_mut().zip(self.to_ne_bytes()).for_each(|(to, from)| *to = from);
            }
        }
    )+ };
}

wire_int!(u8, u16, u32, i32, u64);

impl<const N: usize> Wire for [u8; N] {
    const SIZE: usize = N;
    const NAME: &'static str = "bytes";

    fn read(bytes: &[u8]) -> Self {
        let mut value = [0; N];
        value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        value
    }

    fn write(&self, bytes: &mut [u8]) {
        bytes.iter_mut().zip(self).for_each(|(to, from)| *to = *from);
    }
}

/// Declares a `repr(C)` record together with its decoder, and refuses to compile when the compiler
/// would add padding.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident = $size:literal { $($(#[$fmeta:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $type,)+ }

        impl $name {
            /// All bytes zero: nothing has been seen.
            pub const ZERO: Self = Self { $($field: <$type as $crate::codec::Zero>::ZERO,)+ };
        }

        impl $crate::codec::Zero for $name {
            const ZERO: Self = Self::ZERO;
        }

        impl $crate::codec::Wire for $name {
            const SIZE: usize = $size;
            const NAME: &'static str = stringify!($name);

            fn read(bytes: &[u8]) -> Self {
                $(let $field = <$type as $crate::codec::Wire>::read(
                    bytes.get(core::mem::offset_of!($name, $field)..).unwrap_or_default(),
                );)+
                Self { $($field,)+ }
            }

            fn write(&self, bytes: &mut [u8]) {
                $(if let Some(place) = bytes.get_mut(core::mem::offset_of!($name, $field)..) {
                    self.$field.write(place);
                })+
            }
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            // The fields fill it: no hidden padding, which the programs would hand out
            // uninitialised.
            assert!(0 $(+ size_of::<$type>())+ == $size);
        };
    };
}
pub(crate) use record;

/// A value whose bytes are all zero.
pub trait Zero {
    /// That value.
    const ZERO: Self;
}

macro_rules! zero_int {
    ($($int:ty),+) => { $(impl Zero for $int { const ZERO: Self = 0; })+ };
}

zero_int!(u8, u16, u32, i32, u64);

impl<const N: usize> Zero for [u8; N] {
    const ZERO: Self = [0; N];
}
