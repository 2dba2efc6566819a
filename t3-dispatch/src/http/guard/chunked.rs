//! Chunked bodies (RFC 9112 section 7.1) in strict syntax: no whitespace around sizes, CR LF after
//! every line and every chunk. Pure; skips the data of the chunks.

use super::{Violation, head::is_token_char};

/// Maximum number of hexadecimal digits of a size, with leading zeros.
const SIZE_DIGITS: u8 = 16;
/// Maximum size of the extensions of one chunk, in bytes.
const EXTENSION: u16 = 256;
/// Maximum size of the trailer section, in bytes; same as the limit of hyper.
const TRAILERS: u16 = 16 * 1024 - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

/// Parser of one chunked body.
#[derive(Debug, Clone)]
pub struct Chunks {
    at: At,
    digits: u8,
    /// The size so far, then the rest of the chunk.
    left: u64,
    extension: u16,
    trailers: u16,
    fields: usize,
    max_fields: usize,
}

impl Chunks {
    /// Returns a parser at the start of a body.
    #[must_use]
    pub fn new(max_fields: usize) -> Self {
        Self { at: At::Size, digits: 0, left: 0, extension: 0, trailers: 0, fields: 0, max_fields }
    }

    /// Parses more bytes. Returns how many of them are a valid part of this body, and whether it
    /// ends there.
    ///
    /// # Errors
    /// The violation, with the number of valid bytes before it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), (usize, Violation)> {
        let mut at = 0;
        while at < bytes.len() {
            if self.at == At::Data {
                let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.left -= take as u64;
                at += take;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            let ended = self.byte(bytes[at]).map_err(|why| (at, why))?;
            at += 1;
            if ended {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn byte(&mut self, byte: u8) -> Result<bool, Violation> {
        if matches!(self.at, At::Trailer | At::TrailerName | At::TrailerValue | At::TrailerLf) {
            self.trailers += 1;
            if self.trailers > TRAILERS {
                return Err(Violation::Trailers);
            }
        }
        self.at = match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Size, b';') if self.digits > 0 => At::Extension,
            (At::Size, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Violation::Chunk)?;
                self.digits += 1;
                if self.digits > SIZE_DIGITS {
                    return Err(Violation::Chunk);
                }
                self.left = self.left << 4 | u64::from(digit);
                At::Size
            }
            (At::Extension, b'\r') => At::SizeLf,
            (At::Extension, b'\t' | 0x20..=0x7e) => {
                self.extension += 1;
                if self.extension > EXTENSION {
                    return Err(Violation::ChunkExtension);
                }
                At::Extension
            }
            (At::SizeLf, b'\n') if self.left > 0 => At::Data,
            (At::SizeLf, b'\n') => At::Trailer,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                (self.digits, self.left, self.extension) = (0, 0, 0);
                At::Size
            }
            (At::Trailer, b'\r') => At::LastLf,
            (At::Trailer, _) if is_token_char(byte) => {
                self.fields += 1;
                if self.fields > self.max_fields {
                    return Err(Violation::Trailers);
                }
                At::TrailerName
            }
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerName, _) if is_token_char(byte) => At::TrailerName,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, b'\t' | 0x20..=0x7e | 0x80..) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::LastLf, b'\n') => return Ok(true),
            (At::Trailer | At::TrailerName | At::TrailerValue | At::TrailerLf | At::LastLf, _) => {
                return Err(Violation::Trailers);
            }
            _ => return Err(Violation::Chunk),
        };
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(text: &[u8]) -> Result<(usize, bool), (usize, Violation)> {
        Chunks::new(2).feed(text)
    }

    #[test]
    fn a_body_ends_with_its_last_chunk() {
        for text in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "00000000000000A\r\n0123456789\r\n000\r\n\r\n",
            "5;name=\"va lue\"; x\r\n\r\n\r\n\0\r\n0;y\r\n\r\n",
            "1\r\n0\r\n0\r\nExpires: never\r\nX-Sum:\r\n\r\n",
        ] {
            let mut bytes = text.as_bytes().to_vec();
            assert_eq!(feed(&bytes), Ok((text.len(), true)), "{text:?}");
            assert_eq!(feed(&bytes[..text.len() - 1]), Ok((text.len() - 1, false)), "{text:?}");
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            assert_eq!(feed(&bytes), Ok((text.len(), true)), "{text:?} and the next request");
        }
    }

    #[test]
    fn invalid_sizes_and_line_ends_are_rejected_at_the_first_wrong_byte() {
        use Violation as R;
        for (text, sound, why) in [
            ("\r\n", 0, R::Chunk),
            ("x\r\n", 0, R::Chunk),
            ("-1\r\n", 0, R::Chunk),
            ("+1\r\n", 0, R::Chunk),
            (" 1\r\n", 0, R::Chunk),
            ("1 \r\n", 1, R::Chunk),
            ("1\t;x\r\n", 1, R::Chunk),
            ("0x1\r\n", 1, R::Chunk),
            ("1_0\r\n", 1, R::Chunk),
            ("1\n", 1, R::Chunk),
            ("1\rx", 2, R::Chunk),
            ("1\r\nab\r\n", 4, R::Chunk),
            ("1\r\na\n", 4, R::Chunk),
            ("1\r\na0\r\n", 4, R::Chunk),
            (";x\r\n", 0, R::Chunk),
            ("1;x\n", 3, R::Chunk),
            ("1;\0\r\n", 2, R::Chunk),
            ("00000000000000001\r\n", 16, R::Chunk),
            ("10000000000000000\r\n", 16, R::Chunk),
            ("0\r\n\n", 3, R::Trailers),
            ("0\r\n\rx", 4, R::Trailers),
            ("0\r\nGET / HTTP/1.1\r\n", 6, R::Trailers),
            ("0\r\nX : 1\r\n", 4, R::Trailers),
            ("0\r\n: 1\r\n", 3, R::Trailers),
            ("0\r\nX: 1\n", 7, R::Trailers),
            ("0\r\nX: 1\r\n folded\r\n", 9, R::Trailers),
            ("0\r\nX: \0\r\n", 6, R::Trailers),
            ("0\r\nA: 1\r\nB: 2\r\nC: 3\r\n", 15, R::Trailers),
        ] {
            assert_eq!(feed(text.as_bytes()), Err((sound, why)), "{text:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(257));
        assert_eq!(feed(long.as_bytes()), Err((258, R::ChunkExtension)));
        let long = format!("0\r\nX: {}\r\n", "x".repeat(20_000));
        assert_eq!(feed(long.as_bytes()), Err((3 + usize::from(TRAILERS), R::Trailers)));
    }
}
