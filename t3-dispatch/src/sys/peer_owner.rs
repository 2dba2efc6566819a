//! Owner of the other end of a connection: the user of a process of this host, or another host.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use t3_record::evidence::SeenEnd;
use tokio::net::TcpStream;

use crate::sys::{
    local_address,
    socket_owner::{SocketOwners, State},
    tcp_info,
};

/// States CLOSE and CLOSE_WAIT (include/net/tcp_states.h).
const CLOSED: u8 = 7;
const CLOSE_WAIT: u8 = 8;

/// Owner of the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerOwner {
    /// Another host.
    Remote,
    /// A process of this host, and its user; `None` if the user cannot be determined.
    Local(Option<u32>),
    /// A process of this host that has closed its socket, so that its user cannot be determined,
    /// and no response can reach it.
    Closed(SeenEnd),
}

/// The other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEnd {
    pub owner: PeerOwner,
    /// Time since its last data arrived, or since the handshake.
    pub queued: Duration,
}

/// Determines the owner of the other end of a connection from `remote` to `local`.
pub async fn of(
    owners: &Arc<SocketOwners>,
    stream: &TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
) -> PeerEnd {
    let is_local = local_address::is_local(remote, local);
    let found = if !is_local {
        None
    } else if owners.is_indexed() {
        user(owners, local, remote)
    } else {
        let owners = Arc::clone(owners);
        tokio::task::spawn_blocking(move || user(&owners, local, remote)).await.unwrap_or(None)
    };
    // A connection that was reset has freed its addresses, and the socket that was found can be of
    // a later connection from them. Checked after the lookup: until now, it was not.
    let (state, queued) = tcp_info::arrival(stream).unwrap_or((CLOSED, Duration::ZERO));
    let owner = match (found, state) {
        (_, CLOSED) => PeerOwner::Closed(SeenEnd::Reset),
        _ if !is_local => PeerOwner::Remote,
        (None, CLOSE_WAIT) => PeerOwner::Closed(SeenEnd::Eof),
        (found, _) => PeerOwner::Local(found),
    };
    PeerEnd { owner, queued }
}

fn user(owners: &SocketOwners, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let found = match owners.peer(local, remote) {
        Ok(found) => found?,
        Err(error) => {
            tracing::error!("cannot determine the user of a local connection: {error}");
            return None;
        }
    };
    // Without an inode, no process holds the socket any more, and the kernel reports root.
    (found.inode != 0 && found.state != State::Listen).then_some(found.uid)
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use tokio::net::TcpListener;

    use super::*;

    async fn connected() -> (std::net::TcpStream, TcpStream) {
        let listener = TcpListener::bind("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// The owner of the client's end of an accepted connection.
    async fn owner(owners: &Arc<SocketOwners>, accepted: &TcpStream, client: SocketAddr) -> PeerOwner {
        of(owners, accepted, accepted.local_addr().unwrap(), client).await.owner
    }

    fn sources() -> [Arc<SocketOwners>; 2] {
        [SocketOwners::new(None), SocketOwners::from_tables()].map(Arc::new)
    }

    #[tokio::test]
    async fn the_user_of_a_local_process_is_found() {
        let own = Some(rustix::process::geteuid().as_raw());
        for owners in sources() {
            let (client, accepted) = connected().await;
            let from = client.local_addr().unwrap();
            assert_eq!(owner(&owners, &accepted, from).await, PeerOwner::Local(own));
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(owner(&owners, &accepted, from).await, PeerOwner::Local(own), "half-closed");
        }
    }

    #[tokio::test]
    async fn a_connection_of_another_host_has_no_owner_and_may_be_reset() {
        let remote = "192.0.2.7:4000".parse().unwrap();
        for owners in sources() {
            let (client, accepted) = connected().await;
            assert_eq!(owner(&owners, &accepted, remote).await, PeerOwner::Remote);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(owner(&owners, &accepted, remote).await, PeerOwner::Remote, "half-closed");
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(owner(&owners, &accepted, remote).await, PeerOwner::Closed(SeenEnd::Reset), "RST");
        }
    }

    #[tokio::test]
    async fn a_socket_that_its_process_has_closed_has_no_user() {
        for owners in sources() {
            // The kernel reports such a socket as one of root.
            let (client, accepted) = connected().await;
            let from = client.local_addr().unwrap();
            drop(client);
            assert_eq!(owner(&owners, &accepted, from).await, PeerOwner::Closed(SeenEnd::Eof), "FIN");
            let (client, accepted) = connected().await;
            let from = client.local_addr().unwrap();
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(owner(&owners, &accepted, from).await, PeerOwner::Closed(SeenEnd::Reset), "RST");
        }
    }
}
