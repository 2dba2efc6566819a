//! The proxy in the middle: routes each request to its user's serve, relays WebSockets without
//! changing a byte, and writes one record for each of them that says who ended it and how.
//!
//! From a socket to a record: [`listen`] accepts, [`http_proxy`] finds the user ([`identity`],
//! [`table`]), [`upgrade`] opens, [`relay`] passes bytes while [`scan`] and [`heartbeat`] read
//! along, [`session`] keeps what was seen, and [`case`] has it judged and written. What is
//! concluded from the facts is decided in `t3-record`, never here.

pub mod app;
pub mod body;
pub mod burst;
pub mod case;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conn_id;
pub mod connection;
pub mod delivery;
pub mod early;
pub mod farewell;
pub mod forward;
pub mod gate;
pub mod guard;
pub mod headers;
pub mod heartbeat;
pub mod http_proxy;
pub mod identity;
pub mod install;
pub mod lag;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod origin;
pub mod own;
pub mod pairing;
pub mod pool;
pub mod pulse;
pub mod quiet;
pub mod recent;
pub mod refusals;
pub mod relay;
pub mod reload;
pub mod request_id;
pub mod resources;
pub mod scan;
pub mod sending;
pub mod serve;
pub mod session;
pub mod stop;
pub mod systemd;
pub mod table;
pub mod tcp;
pub mod tcp_info;
pub mod trace;
pub mod upgrade;
pub mod upstream;
pub mod watch;
