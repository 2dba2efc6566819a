//! Tests on the loopback: a server that sends fixed bytes, with and without TLS.

use std::{io::Write as _, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto, pki_types::PrivateKeyDer},
};

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, response: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8_lossy(&head).into_owned()
}

async fn get(response: &'static str, limit: usize) -> (Result<Response<Bytes>, HttpError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Uri = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move { answer(listener.accept().await.unwrap().0, response).await });
    let client = HttpClient::new(None).unwrap();
    let request = Request::get("/x?y=1").header("host", "h").body(()).unwrap();
    let result = client.send(&url, request, limit).await;
    (result, server.await.unwrap())
}

#[tokio::test]
async fn a_response_is_read_completely_up_to_the_limit() {
    let (response, request) = get(OK, 5).await;
    assert_eq!(&response.unwrap().into_body()[..], b"hello");
    assert_eq!(request, "GET /x?y=1 HTTP/1.1\r\nhost: h\r\n\r\n");

    let (response, _) = get("HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\nlater", 64).await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), &response.into_body()[..]), (503, &b"later"[..]));
}

#[tokio::test]
async fn an_unusable_response_is_an_error_that_names_the_cause() {
    for (response, limit, cause) in [
        (OK, 4, "the response is longer than 4 bytes"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 64, "the response is incomplete: "),
        ("SSH-2.0-x\r\n", 64, "HTTP: "),
        ("", 64, "HTTP: "),
    ] {
        let error = get(response, limit).await.0.unwrap_err().to_string();
        assert!(error.starts_with(cause), "{response:?}: {error}");
    }
    let closed: Uri = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap()
    };
    let client = HttpClient::new(None).unwrap();
    let error = client.send(&closed, Request::new(()), 64).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot connect: Connection refused"), "{error}");
}

/// A TLS server with a self-signed certificate for `h.test`; returns its address and the PEM.
async fn tls_server() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["h.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                answer(stream, OK).await;
            }
        }
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_host_of_the_url_at_a_pinned_address() {
    let (address, pem) = tls_server().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    let private = HttpClient::new(Some(file.path())).unwrap();
    let public = HttpClient::new(None).unwrap();
    let (right, wrong): (Uri, Uri) =
        ("https://h.test/".parse().unwrap(), "https://other.test/".parse().unwrap());

    let stream = private.connect(&Endpoint::of(&right), address).await.unwrap();
    let response = exchange(stream, Request::new(()), 64).await.unwrap();
    assert_eq!(&response.into_body()[..], b"hello");
    for (client, url, cause) in [(&private, &wrong, "not valid for name"), (&public, &right, "UnknownIssuer")]
    {
        let error = client.connect(&Endpoint::of(url), address).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot set up TLS: ") && error.contains(cause), "{error}");
    }
}

#[test]
fn a_ca_file_without_certificates_is_an_error_that_names_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let name = file.path().display();
    let error = HttpClient::new(Some(file.path())).unwrap_err().to_string();
    assert_eq!(error, format!("cannot read certificates from {name}: expected PEM with BEGIN CERTIFICATE"));
    let error = HttpClient::new(Some(Path::new("/nonexistent"))).unwrap_err().to_string();
    assert!(error.starts_with("cannot read certificates from /nonexistent: "), "{error}");
}
