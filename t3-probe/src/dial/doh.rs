//! DNS over HTTPS in the JSON format (`application/dns-json` of Cloudflare and Google): the public
//! address, where the local DNS returns an internal one.

use std::net::Ipv4Addr;

use http::{Request, Uri};
use serde::Deserialize;
use t3_http_client::{HttpClient, HttpError};

/// Limit of a response, in bytes.
const MAX_RESPONSE: usize = 64 << 10;
/// An A record (RFC 1035 section 3.2.2).
const A: u16 = 1;

/// No address of a name.
#[derive(Debug, thiserror::Error)]
pub enum DohError {
    /// The name cannot be part of a URL.
    #[error("cannot query the address of {0:?}: {1}")]
    Name(String, http::Error),
    /// No response of the resolver.
    #[error("cannot query {0} for the address: {1}")]
    Query(String, HttpError),
    /// An unexpected response.
    #[error("{resolver}: expected dns-json for {name}, got {what}")]
    Answer { resolver: String, name: String, what: String },
    /// The name has no address.
    #[error("{resolver}: no A record for {name} (DNS status {status})")]
    NoAddress {
        resolver: String,
        name: String,
        /// DNS response code (RFC 1035 section 4.1.1).
        status: u16,
    },
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Status", default)]
    status: u16,
    #[serde(rename = "Answer", default)]
    answers: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "type")]
    kind: u16,
    data: String,
}

/// The first A record of `name`.
pub(super) async fn resolve(client: &HttpClient, endpoint: &Uri, name: &str) -> Result<Ipv4Addr, DohError> {
    let resolver = endpoint.host().unwrap_or_default().to_owned();
    let answer = |what: String| DohError::Answer { resolver: resolver.clone(), name: name.to_owned(), what };
    let request = Request::get(format!("{}?name={name}&type=A", endpoint.path()))
        .header("host", endpoint.authority().map_or(resolver.as_str(), |authority| authority.as_str()))
        .header("accept", "application/dns-json")
        .body(())
        .map_err(|error| DohError::Name(name.to_owned(), error))?;
    let response = client
        .send(endpoint, request, MAX_RESPONSE)
        .await
        .map_err(|error| DohError::Query(resolver.clone(), error))?;
    if response.status() != 200 {
        return Err(answer(format!("HTTP {}", response.status().as_u16())));
    }
    read(response.body(), &resolver, name)
        .map_err(|error| error.unwrap_or_else(|| answer("other data".to_owned())))
}

fn read(body: &[u8], resolver: &str, name: &str) -> Result<Ipv4Addr, Option<DohError>> {
    let message: Message = serde_json::from_slice(body).map_err(|_| None)?;
    let first =
        message.answers.iter().filter(|record| record.kind == A).find_map(|record| record.data.parse().ok());
    first.ok_or_else(|| {
        Some(DohError::NoAddress {
            resolver: resolver.to_owned(),
            name: name.to_owned(),
            status: message.status,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_a_record_counts() {
        let body = br#"{"Status":0,"Answer":[{"name":"t3","type":5,"TTL":60,"data":"x.example."},
            {"name":"x","type":1,"TTL":60,"data":"203.0.113.7"},{"name":"x","type":1,"TTL":60,"data":"203.0.113.8"}]}"#;
        assert_eq!(read(body, "r", "t3").unwrap(), Ipv4Addr::new(203, 0, 113, 7));
    }

    #[test]
    fn a_response_without_an_address_has_its_status_and_other_data_is_none() {
        let missing = read(br#"{"Status":3}"#, "1.1.1.1", "t3.example.org").unwrap_err().unwrap();
        assert_eq!(missing.to_string(), "1.1.1.1: no A record for t3.example.org (DNS status 3)");
        assert!(read(b"<html>", "r", "t3").unwrap_err().is_none());
    }
}
