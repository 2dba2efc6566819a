//! Fake of Loki and Prometheus: `query_range` as documented, with the lines and series of a test.
//! Records the queries.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Nanoseconds, stream, text.
pub type Line = (i64, &'static str, String);

/// Data and behaviour of the fake.
#[derive(Default)]
pub struct Stub {
    /// Lines by selector. Text after the selector filters by its first quoted part.
    pub lines: BTreeMap<String, Vec<Line>>,
    /// Results by Prometheus query.
    pub series: BTreeMap<String, Value>,
    /// Status and body of every response, if set.
    pub instead: Option<(u16, String)>,
    /// Delay of each response.
    pub delay: Duration,
    /// Received queries and headers.
    pub received: Mutex<Vec<(BTreeMap<String, String>, HeaderMap)>>,
}

impl Stub {
    pub async fn start(self) -> (SocketAddr, Arc<Self>) {
        self.start_with(None).await
    }

    pub async fn start_with(self, tls: Option<TlsAcceptor>) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stub = Arc::new(self);
        let ours = Arc::clone(&stub);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (stub, tls) = (Arc::clone(&ours), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stub, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stub, stream).await;
                            }
                        }
                    }
                });
            }
        });
        (address, stub)
    }

    pub fn queries(&self) -> Vec<String> {
        self.received.lock().unwrap().iter().map(|(query, _)| query["query"].clone()).collect()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let received = self.received.lock().unwrap();
        received.last().unwrap().1.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    async fn answer(&self, request: &Request<Incoming>) -> (u16, String) {
        let query: BTreeMap<String, String> =
            (request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')))
                .map(|(key, value)| {
                    (key.to_owned(), percent_decode_str(value).decode_utf8().unwrap().into_owned())
                })
                .collect();
        self.received.lock().unwrap().push((query.clone(), request.headers().clone()));
        tokio::time::sleep(self.delay).await;
        if let Some(instead) = &self.instead {
            return instead.clone();
        }
        match request.uri().path() {
            "/loki/api/v1/query_range" => self.loki(&query),
            "/api/v1/query_range" => {
                let result = self.series.get(&query["query"]).cloned().unwrap_or_else(|| json!([]));
                (
                    200,
                    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
                        .to_string(),
                )
            }
            _ => (404, "404 page not found".to_owned()),
        }
    }

    /// Start included, end excluded; up to `limit` lines over all streams, in the order of
    /// `direction`.
    fn loki(&self, query: &BTreeMap<String, String>) -> (u16, String) {
        let number = |key: &str| query[key].parse::<i64>().unwrap();
        let (start, end, limit) = (number("start"), number("end"), number("limit"));
        if limit > 1_000 {
            return (400, "max entries limit per query exceeded, limit > max_entries_limit".to_owned());
        }
        let found = self.lines.iter().find(|(selector, _)| query["query"].starts_with(selector.as_str()));
        let wanted = found
            .map_or("", |(selector, _)| query["query"][selector.len()..].split('"').nth(1).unwrap_or(""));
        let mut lines: Vec<_> = found.map_or(&[][..], |found| found.1).iter().collect();
        lines.retain(|(ns, _, text)| (start..end).contains(ns) && text.contains(wanted));
        lines.sort_by_key(|(ns, _, _)| if query["direction"] == "forward" { *ns } else { -*ns });
        lines.truncate(usize::try_from(limit).unwrap());
        let mut streams: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for (ns, stream, text) in lines {
            // Structured metadata is a third value.
            streams.entry(stream).or_default().push(json!([ns.to_string(), text, {"trace": "x"}]));
        }
        let result: Vec<_> = streams
            .into_iter()
            .map(|(name, values)| json!({"stream": {"job": name}, "values": values}))
            .collect();
        (
            200,
            json!({"status": "success", "data": {"resultType": "streams", "result": result, "stats": {}}})
                .to_string(),
        )
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stub: Arc<Stub>, stream: S) {
    let service = service_fn(|request: Request<Incoming>| {
        let stub = Arc::clone(&stub);
        async move {
            let (status, body) = stub.answer(&request).await;
            Ok::<_, Infallible>(
                Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap(),
            )
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
