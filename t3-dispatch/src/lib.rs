//! The proxy in the middle: routes each request to its user's serve, relays WebSockets without changing a byte, and writes one record
//! for each of them that says who ended it and how.
//!
//! From a socket to a record: [`listen`] accepts, [`http_proxy`] finds the user ([`identity`], [`table`]), [`upgrade`] opens, [`relay`] passes
//! bytes while [`scan`] and [`heartbeat`] read along, [`session`] keeps what was seen, and [`case`] has it judged and written. What is
//! concluded from the facts is decided in `t3-record`, never here.

pub mod app;
pub mod burst;
pub mod case;
pub mod cli;
pub mod clock;
pub mod conn_id;
pub mod early;
pub mod farewell;
pub mod headers;
pub mod heartbeat;
pub mod http_proxy;
pub mod identity;
pub mod lag;
pub mod listen;
pub mod recent;
pub mod relay;
pub mod resources;
pub mod scan;
pub mod serve;
pub mod session;
pub mod stop;
pub mod table;
pub mod tcp;
pub mod tcp_info;
pub mod trace;
pub mod upgrade;
pub mod upstream;
