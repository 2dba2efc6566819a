//! Client of the evidence socket, for the status of t3-trace.

use std::{io::Read, path::Path, time::Duration};

use socket2::{Domain, SockAddr, Socket, Type};
use t3_record::wire::{FromTrace, MAX_MESSAGE, Role, Status, ToTrace, VERSION};

use crate::error::{Attempt, Result, TestError};

/// Queries the status of the daemon.
pub fn status(path: &Path) -> Result<Status> {
    let what = || format!("query the status of t3-trace on {}", path.display());
    let mut socket = connect(path, &what)?;
    for message in [ToTrace::Hello { v: VERSION, role: Role::Subscriber }, ToTrace::Status] {
        send(&socket, &message, &what)?;
    }
    loop {
        match receive(&mut socket, &what)? {
            FromTrace::Status(status) => return Ok(*status),
            FromTrace::Refused { why } => return Err(TestError::Unexpected { what: what(), got: why }),
            _ => {}
        }
    }
}

/// Asks the daemon to compare sessions and journal now. Returns when it has, or after some seconds:
/// without a journald it takes longer.
pub fn reconcile(path: &Path) -> Result<()> {
    let what = || format!("ask t3-trace on {} to reconcile", path.display());
    let mut socket = connect(path, &what)?;
    for message in [ToTrace::Hello { v: VERSION, role: Role::Subscriber }, ToTrace::Reconcile] {
        send(&socket, &message, &what)?;
    }
    loop {
        match receive(&mut socket, &what) {
            Ok(FromTrace::Reconciled { .. }) => return Ok(()),
            Ok(FromTrace::Refused { why }) => return Err(TestError::Unexpected { what: what(), got: why }),
            Ok(_) => {}
            Err(TestError::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Connects in a role and disconnects.
pub fn hello(path: &Path, role: Role) -> Result<()> {
    let what = || format!("connect to t3-trace on {} as {role:?}", path.display());
    let mut socket = connect(path, &what)?;
    send(&socket, &ToTrace::Hello { v: VERSION, role }, &what)?;
    match receive(&mut socket, &what)? {
        FromTrace::Welcome { .. } => Ok(()),
        FromTrace::Refused { why } => Err(TestError::Unexpected { what: what(), got: why }),
        other => Err(TestError::Unexpected { what: what(), got: format!("{other:?}") }),
    }
}

fn connect(path: &Path, what: &dyn Fn() -> String) -> Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).attempt(what)?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).attempt(what)?;
    socket.connect(&SockAddr::unix(path).attempt(what)?).attempt(what)?;
    Ok(socket)
}

fn send(socket: &Socket, message: &ToTrace, what: &dyn Fn() -> String) -> Result<()> {
    let packet = serde_json::to_vec(message).attempt(what)?;
    socket.send(&packet).attempt(what).map(drop)
}

fn receive(socket: &mut Socket, what: &dyn Fn() -> String) -> Result<FromTrace> {
    let mut packet = vec![0; MAX_MESSAGE];
    let length = socket.read(&mut packet).attempt(what)?;
    let packet = packet.get(..length).unwrap_or_default();
    serde_json::from_slice(packet)
        .map_err(|error| TestError::Unexpected { what: what(), got: error.to_string() })
}
