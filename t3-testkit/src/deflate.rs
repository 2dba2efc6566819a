//! permessage-deflate (RFC 7692) of one endpoint, with context takeover in both directions. No IO.
//!
//! As negotiated by Chromium and serve: window of 15 bits, every text message compressed, however
//! short. A heartbeat has 17 bytes as first message and 4 or 5 later.

use miniz_oxide::{
    DataFormat, MZFlush,
    deflate::{
        core::{CompressorOxide, create_comp_flags_from_zip_params},
        stream::deflate,
    },
    inflate::stream::{InflateState, inflate},
};

/// Name of the extension (RFC 7692 section 7).
pub const EXTENSION: &str = "permessage-deflate";
/// Offer of Chromium.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// RSV1 in the first byte of a frame: the message is compressed (section 6).
pub const COMPRESSED: u8 = 0x40;

/// End of a flushed block, which the sender removes (section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Default level of zlib.
const LEVEL: i32 = 6;
/// A raw stream with the largest window.
const WINDOW_BITS: i32 = -15;

/// Compressor and decompressor of one endpoint.
pub struct Codec {
    compressor: Box<CompressorOxide>,
    decompressor: Box<InflateState>,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Codec")
    }
}

impl Default for Codec {
    fn default() -> Self {
        let flags = create_comp_flags_from_zip_params(LEVEL, WINDOW_BITS, 0);
        Self {
            compressor: Box::new(CompressorOxide::new(flags)),
            decompressor: InflateState::new_boxed(DataFormat::Raw),
        }
    }
}

impl Codec {
    /// Compresses a message.
    pub fn compress(&mut self, mut message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        // Incompressible data grows by less than this.
        let mut piece = vec![0; message.len() * 2 + 64];
        loop {
            let result = deflate(&mut self.compressor, message, &mut piece, MZFlush::Sync);
            payload.extend_from_slice(piece.get(..result.bytes_written).unwrap_or_default());
            message = message.get(result.bytes_consumed..).unwrap_or_default();
            if result.status.is_err() || result.bytes_written < piece.len() {
                break;
            }
        }
        if payload.ends_with(&TAIL) {
            payload.truncate(payload.len() - TAIL.len());
        }
        payload
    }

    /// Decompresses a message; `None` if it is invalid.
    pub fn decompress(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let with_tail = [payload, &TAIL].concat();
        let mut rest = with_tail.as_slice();
        let (mut message, mut piece) = (Vec::new(), vec![0; 16 << 10]);
        while !rest.is_empty() {
            let result = inflate(&mut self.decompressor, rest, &mut piece, MZFlush::None);
            result.status.ok()?;
            message.extend_from_slice(piece.get(..result.bytes_written)?);
            rest = rest.get(result.bytes_consumed..)?;
            if result.bytes_consumed == 0 && result.bytes_written == 0 {
                return None;
            }
        }
        // The rest of the output, if the last piece was full.
        loop {
            let result = inflate(&mut self.decompressor, &[], &mut piece, MZFlush::None);
            if result.bytes_written == 0 {
                return Some(message);
            }
            message.extend_from_slice(piece.get(..result.bytes_written)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HEARTBEAT, HEARTBEAT_ANSWER};

    #[test]
    fn heartbeats_have_the_sizes_of_a_real_client() {
        let mut client = Codec::default();
        let sizes: Vec<_> = (0..6).map(|_| client.compress(HEARTBEAT.as_bytes()).len()).collect();
        assert_eq!(sizes[0], 17);
        assert!(sizes[1..].iter().all(|size| (4..=5).contains(size)), "{sizes:?}");
    }

    #[test]
    fn messages_are_read_back_with_the_context_of_earlier_ones() {
        let (mut one, mut other) = (Codec::default(), Codec::default());
        let noise: Vec<u8> =
            (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let texts = [HEARTBEAT.as_bytes(), HEARTBEAT_ANSWER.as_bytes(), &noise, HEARTBEAT.as_bytes()];
        for text in texts.into_iter().cycle().take(20) {
            let payload = one.compress(text);
            assert_eq!(other.decompress(&payload).as_deref(), Some(text));
        }
        assert_eq!(Codec::default().decompress(&[0xff; 9]), None);
    }
}
