//! Fake DNS-over-HTTPS resolver (JSON API) with one answer that the test sets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

pub struct Doh {
    pub address: SocketAddr,
    answer: Arc<Mutex<Option<Ipv4Addr>>>,
}

impl Doh {
    pub async fn start(acceptor: TlsAcceptor, answer: Ipv4Addr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Some(answer)));
        let shared = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), *shared.lock().unwrap());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let asked = head.starts_with("GET /dns-query?name=t3.example.test&type=A HTTP/1.1\r\n")
                        && head.to_lowercase().contains("accept: application/dns-json\r\n");
                    let (status, body) = match answer {
                        _ if !asked => (400, String::new()),
                        None => (200, r#"{"Status":3}"#.to_owned()),
                        Some(ip) => {
                            let record = r#"{"name":"t3.example.test","type":1,"TTL":60,"data":"IP"}"#;
                            (
                                200,
                                format!(
                                    r#"{{"Status":0,"Answer":[{}]}}"#,
                                    record.replace("IP", &ip.to_string())
                                ),
                            )
                        }
                    };
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: application/dns-json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, answer }
    }

    pub fn answer(&self, answer: Option<Ipv4Addr>) {
        *self.answer.lock().unwrap() = answer;
    }
}
