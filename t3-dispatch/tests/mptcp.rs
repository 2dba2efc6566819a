//! A listener of systemd with `SocketProtocol=mptcp`: clients over MPTCP and over TCP are served.
//! Needs a kernel with MPTCP.

#![cfg(test)]

mod fixture;

use std::{io::Error, net::SocketAddr};

use fixture::{Fixture, frame, head, switching};
use socket2::{Domain, Protocol, Socket, Type};
use t3_dispatch::process::run;
use t3_testkit::{handshake, prerequisite};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn socket(protocol: Protocol) -> Result<Socket, Error> {
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))
}

/// Adds an MPTCP listener to dispatch; returns its address.
fn listen(fixture: &Fixture) -> Result<SocketAddr, Error> {
    let socket = socket(Protocol::MPTCP)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    run::start(&fixture.app, vec![listener]);
    Ok(address)
}

fn connect(to: SocketAddr, protocol: Protocol) -> TcpStream {
    let socket = socket(protocol).unwrap();
    socket.connect(&to.into()).unwrap();
    assert_eq!(socket.protocol().unwrap(), Some(protocol));
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_over_mptcp_are_served_like_those_over_tcp() {
    let fixture = Fixture::new(&[]).await;
    let Some(address) = prerequisite::or_skip("MPTCP", listen(&fixture)) else { return };
    for protocol in [Protocol::TCP, Protocol::MPTCP] {
        let mut client = connect(address, protocol);
        let request = "GET / HTTP/1.1\r\nHost: t3\r\nX-Authentik-Username: ann\r\n\r\n";
        client.write_all(request.as_bytes()).await.unwrap();
        let serving = async {
            let (mut serve, _) = fixture.accept().await;
            serve.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(head(&mut client), serving);
        assert!(answer.starts_with("HTTP/1.1 204 "), "{protocol:?}: {answer}");

        let mut client = connect(address, protocol);
        let request = handshake::request("/ws", [("X-Authentik-Username", "ann")]);
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut serve, _) = fixture.accept().await;
        serve.write_all(switching().as_bytes()).await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 101 "), "{protocol:?}");
        let message = frame(0x81, b"from serve", false);
        serve.write_all(&message).await.unwrap();
        let mut got = vec![0; message.len()];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, message, "{protocol:?}");
    }
}
