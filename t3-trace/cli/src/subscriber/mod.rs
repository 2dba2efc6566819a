//! Connection to the evidence socket as a subscriber.

use std::path::{Path, PathBuf};

use t3_record::{
    vocabulary::KernelSource,
    wire::{FromTrace, MAX_MESSAGE, Role, ToTrace, VERSION},
};
use tokio_seqpacket::UnixSeqpacket;

/// The connected daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    pub socket: PathBuf,
    /// Its process ID; it changes when the daemon restarts.
    pub pid: Option<i32>,
    /// Its source of kernel evidence.
    pub kernel: KernelSource,
    /// It reports open sessions.
    pub has_sessions: bool,
}

/// Connects and sends Hello.
///
/// # Errors
/// A clause for the operator.
pub async fn subscribe(path: &Path) -> Result<(UnixSeqpacket, Daemon), String> {
    let at = path.display();
    let socket = UnixSeqpacket::connect(path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            format!("no daemon at {at} (is t3-trace.service running?)")
        }
        std::io::ErrorKind::PermissionDenied => format!("no permission for {at} (join group t3-trace)"),
        _ => format!("cannot connect to {at}: {error}"),
    })?;
    let hello = serde_json::to_vec(&ToTrace::Hello { v: VERSION, role: Role::Subscriber });
    let hello = hello.map_err(|error| error.to_string())?;
    socket.send(&hello).await.map_err(|error| format!("cannot send to t3-trace at {at}: {error}"))?;
    match receive(&socket, &mut vec![0; MAX_MESSAGE]).await {
        Ok(Some(FromTrace::Welcome { kernel, sessions, .. })) => {
            let pid = socket.peer_cred().ok().and_then(|peer| peer.pid());
            Ok((socket, Daemon { socket: path.to_owned(), pid, kernel, has_sessions: sessions }))
        }
        Ok(Some(FromTrace::Refused { why })) => Err(format!("t3-trace refused the connection: {why}")),
        Ok(_) => Err("expected Welcome from t3-trace as the first message".to_owned()),
        Err(why) => Err(why),
    }
}

/// Receives a message; `None` if it is unknown to this version.
///
/// # Errors
/// The connection ended; a clause for the operator.
pub async fn receive(socket: &UnixSeqpacket, buffer: &mut [u8]) -> Result<Option<FromTrace>, String> {
    match socket.recv(buffer).await.map(|message| message.bytes_read()) {
        Ok(0) => Err("t3-trace disconnected".to_owned()),
        Ok(length) => Ok(serde_json::from_slice(&buffer[..length]).ok()),
        Err(error) => Err(format!("t3-trace disconnected: {error}")),
    }
}
