//! WebSocket peer that answers a ping only in part, which no library does. Frames of up to 125
//! bytes (RFC 6455 section 5.2) are read and written directly.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

/// Frames to answer.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    pub echo: bool,
    pub pong: bool,
}

/// Answers `complete` texts and their Pings, then only those of `answers`; returns when the client
/// closes. The stream is that of an accepted WebSocket.
pub async fn answer(mut stream: DuplexStream, complete: u32, answers: Answers) {
    let (mut texts, mut pings) = (0, 0);
    while let Some((opcode, payload)) = frame(&mut stream).await {
        let answer = match opcode {
            TEXT => {
                texts += 1;
                (texts <= complete || answers.echo).then_some(TEXT)
            }
            PING => {
                pings += 1;
                (pings <= complete || answers.pong).then_some(PONG)
            }
            CLOSE => return,
            _ => None,
        };
        let Some(opcode) = answer else { continue };
        let mut bytes = vec![FIN | opcode, u8::try_from(payload.len()).unwrap()];
        bytes.extend(payload);
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Opcode and payload of the next frame of a client, which is masked; `None` at the end.
async fn frame(stream: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (stream.read_u8().await.ok()?, stream.read_u8().await.ok()?);
    let len = second & 0x7f;
    assert!(first & FIN != 0 && second & 0x80 != 0 && len < 126, "{first:#x} {second:#x}");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.ok()?;
    let mut payload = vec![0; len.into()];
    stream.read_exact(&mut payload).await.ok()?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Some((first & 0x0f, payload))
}
