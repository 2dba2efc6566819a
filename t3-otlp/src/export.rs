//! One request to the collector, repeated until it has an answer (OTLP specification 1.7, section
//! OTLP/HTTP).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::Message;
use t3_http_client::HttpClient;
use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;

/// Longest response that is read, in bytes.
const MAX_RESPONSE: usize = 64 << 10;

/// A request of OTLP and its response.
pub trait Signal: Message {
    /// Path below the endpoint.
    const PATH: &'static str;

    /// Number of records that an accepted request nevertheless did not get in, and the reason.
    ///
    /// # Errors
    /// The response cannot be decoded.
    fn rejected(response: &[u8]) -> Result<(u64, String), prost::DecodeError>;
}

impl Signal for ExportLogsServiceRequest {
    const PATH: &'static str = "/v1/logs";

    fn rejected(response: &[u8]) -> Result<(u64, String), prost::DecodeError> {
        let partial = ExportLogsServiceResponse::decode(response)?.partial_success.unwrap_or_default();
        Ok((u64::try_from(partial.rejected_log_records).unwrap_or(0), partial.error_message))
    }
}

impl Signal for ExportTraceServiceRequest {
    const PATH: &'static str = "/v1/traces";

    fn rejected(response: &[u8]) -> Result<(u64, String), prost::DecodeError> {
        let partial = ExportTraceServiceResponse::decode(response)?.partial_success.unwrap_or_default();
        Ok((u64::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message))
    }
}

/// What an HTTP status means for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Accepted.
    Accepted,
    /// The collector cannot read it; sending it again cannot help.
    Rejected,
    /// Send it again: the collector is unavailable or overloaded, or is not configured correctly.
    /// The specification says that other statuses than 429, 502, 503 and 504 are not repeated; but
    /// 401 or 404 end when the operator has corrected an address or a token, and until then the
    /// records are safe in the journal.
    Again,
}

/// Returns the meaning of a status.
#[must_use]
pub fn meaning(status: StatusCode) -> Meaning {
    match status {
        _ if status.is_success() => Meaning::Accepted,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            Meaning::Rejected
        }
        _ => Meaning::Again,
    }
}

/// Connection to a collector.
#[derive(Debug)]
pub struct Collector {
    /// Trust in certificates.
    pub client: HttpClient,
    /// Base URL, such as `http://127.0.0.1:4318`.
    pub endpoint: Uri,
    /// Further header fields, such as a token.
    pub headers: HeaderMap,
    /// Limit of one request.
    pub timeout: Duration,
    /// Longest delay between two attempts.
    pub most_delay: Duration,
}

impl Collector {
    /// Sends a request until the collector accepts or rejects it; returns the number of rejected
    /// records of `n`. Never gives up otherwise: dropping the future ends it.
    pub async fn export<S: Signal>(&self, request: &S, n: u64) -> u64 {
        let body = Bytes::from(request.encode_to_vec());
        let mut backoff = Backoff::new(self.most_delay);
        loop {
            let (why, asked) = match self.attempt::<S>(body.clone()).await {
                Ok((status, _, response)) if meaning(status) == Meaning::Accepted => {
                    let (rejected, reason) = S::rejected(&response).unwrap_or_default();
                    if rejected > 0 {
                        tracing::error!(signal = S::PATH, rejected, %reason, "collector rejected records");
                    } else if !reason.is_empty() {
                        tracing::warn!(signal = S::PATH, %reason, "warning of the collector");
                    }
                    return rejected.min(n);
                }
                Ok((status, _, response)) if meaning(status) == Meaning::Rejected => {
                    let reason = String::from_utf8_lossy(&response).into_owned();
                    let status = status.as_u16();
                    tracing::error!(signal = S::PATH, status, rejected = n, %reason, "collector rejected a batch");
                    return n;
                }
                Ok((status, asked, _)) => (format!("HTTP {status}"), asked),
                Err(why) => (why, None),
            };
            let delay = backoff.delay(asked);
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(signal = S::PATH, records = n, delay_ms, "collector does not accept: {why}");
            sleep(delay).await;
        }
    }

    async fn attempt<S: Signal>(&self, body: Bytes) -> Result<(StatusCode, Option<Duration>, Bytes), String> {
        let base = self.endpoint.path().trim_end_matches('/');
        let mut request =
            Request::post(format!("{base}{}", S::PATH)).body(body).map_err(|e| e.to_string())?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        let host = self.endpoint.authority().map_or("", |authority| authority.as_str());
        headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|error| error.to_string())?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let sent = self.client.send_body(&self.endpoint, request, MAX_RESPONSE);
        let response = timeout(self.timeout, sent).await.map_err(|_| "no response in time".to_owned())?;
        let (head, body) = response.map_err(|error| error.to_string())?.into_parts();
        let asked = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((head.status, asked.map(Duration::from_secs), body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_dropped_only_if_it_cannot_be_read() {
        for (status, expected) in [
            (200, Meaning::Accepted),
            (202, Meaning::Accepted),
            (301, Meaning::Again),
            (400, Meaning::Rejected),
            (401, Meaning::Again),
            (404, Meaning::Again),
            (413, Meaning::Rejected),
            (429, Meaning::Again),
            (500, Meaning::Again),
            (503, Meaning::Again),
        ] {
            assert_eq!(meaning(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }
}
