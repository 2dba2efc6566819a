//! A look at t3-trace through its evidence socket: is it there, what does its kernel side give, is dispatch connected to it?

use std::{io::Read, path::Path, time::Duration};

use socket2::{Domain, SockAddr, Socket, Type};
use t3_record::wire::{FromTrace, MAX_MESSAGE, Role, Status, ToTrace, VERSION};

use crate::error::{Attempt, Result, TestError};

/// Asks the daemon how it is.
///
/// # Errors
/// It is not there, refuses, or speaks another language.
pub fn status(path: &Path) -> Result<Status> {
    let what = || format!("ask t3-trace on {} for its status", path.display());
    let mut socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).attempt(what)?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).attempt(what)?;
    socket.connect(&SockAddr::unix(path).attempt(what)?).attempt(what)?;
    for message in [ToTrace::Hello { v: VERSION, role: Role::Subscriber }, ToTrace::Status] {
        let packet = serde_json::to_vec(&message).attempt(what)?;
        socket.send(&packet).attempt(what)?;
    }
    let mut packet = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.read(&mut packet).attempt(what)?;
        let packet = packet.get(..length).unwrap_or_default();
        match serde_json::from_slice(packet) {
            Ok(FromTrace::Status(status)) => return Ok(*status),
            Ok(FromTrace::Refused { why }) => return Err(TestError::Unexpected { what: what(), got: why }),
            Ok(_) => {}
            Err(error) => return Err(TestError::Unexpected { what: what(), got: error.to_string() }),
        }
    }
}
