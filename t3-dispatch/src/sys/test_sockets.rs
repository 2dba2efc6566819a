//! Connected sockets for tests.

use std::net::{TcpListener, TcpStream};

/// Both ends of a TCP connection over loopback: client and server.
pub(super) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}
