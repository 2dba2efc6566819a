//! Sockets, their owners, users, clock, timeouts, random numbers and the allocator.

pub mod allocator;
pub mod bind;
pub mod clock;
pub mod descriptors;
pub mod found_socket;
pub mod inherited_options;
pub mod listeners;
pub mod local_address;
pub mod peer_owner;
pub mod procfs_sockets;
pub mod random_id;
pub mod receive_buffer;
pub mod recv;
pub mod seqpacket;
pub mod shared_memory;
pub mod socket_owner;
pub mod tcp;
pub mod tcp_counters;
pub mod tcp_info;
#[cfg(test)]
mod test_sockets;
pub mod timeout;
pub mod users;
