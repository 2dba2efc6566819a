//! Options: whose identity and forwarding headers count.

use std::{fmt, str::FromStr};

use clap::Args;
use http::HeaderName;
use ipnet::IpNet;

use super::value::{FileOption, domain, network};
use crate::routing::host::OwnHost;

/// Whose identity and forwarding headers count.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Trust")]
pub struct TrustOptions {
    /// Network of proxies on other hosts, whose identity and forwarding headers count. Processes of
    /// this host are never trusted by address. Repeatable, or separated by commas in the
    /// environment.
    #[arg(
        long,
        env = "T3_DISPATCH_TRUSTED_PROXY",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network
    )]
    pub trusted_proxy: Vec<IpNet>,
    /// User (name or uid) of a proxy on this host: identity and forwarding headers of its processes
    /// count. Repeatable, or separated by commas in the environment.
    #[arg(
        long,
        env = "T3_DISPATCH_TRUSTED_USER",
        value_name = "USER",
        value_delimiter = ',',
        default_value = "root"
    )]
    pub trusted_user: Vec<String>,
    /// File with a secret, or one per line, that the proxy sends as X-T3-Proxy-Secret in addition
    /// to the options above; off for none.
    #[arg(long, env = "T3_DISPATCH_PROXY_SECRET_FILE", value_name = "FILE", default_value = "off")]
    pub proxy_secret_file: FileOption,
    /// Host name of t3-dispatch in URLs, with or without a port; requests for other hosts get 421.
    /// None permits every host. Repeatable, or separated by commas in the environment.
    #[arg(long, env = "T3_DISPATCH_HOST", value_name = "NAME", value_delimiter = ',')]
    pub host: Vec<OwnHost>,
    /// Domain of logins: a login NAME@DOMAIN that is not in the routing table uses the entry NAME.
    /// Repeatable, or separated by commas in the environment.
    #[arg(
        long,
        env = "T3_DISPATCH_LOGIN_DOMAIN",
        value_name = "DOMAIN",
        value_delimiter = ',',
        value_parser = domain
    )]
    pub login_domain: Vec<String>,
    /// Header in which the proxy sends the client's address, for example Cf-Connecting-Ip; off for
    /// the rightmost address in X-Forwarded-For that is not a trusted proxy.
    #[arg(long, env = "T3_DISPATCH_CLIENT_IP_HEADER", value_name = "NAME", default_value = "off")]
    pub client_ip_header: ClientIpHeader,
}

/// `--client-ip-header`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIpHeader(pub Option<HeaderName>);

impl FromStr for ClientIpHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let name = text.parse::<HeaderName>().map_err(|_| format!("{text:?} is not the name of a header"))?;
        if name.as_str() == "x-forwarded-for" {
            return Err("X-Forwarded-For is a list; it is used with off".to_owned());
        }
        Ok(Self(Some(name)))
    }
}

impl fmt::Display for ClientIpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_ref().map_or("off", HeaderName::as_str))
    }
}
