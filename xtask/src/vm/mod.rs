//! Guests: how their file systems are made, how they are booted and watched, how their answer comes
//! back.
//!
//! Host and guest share nothing but block devices and virtio-serial ports, because that is what the
//! drivers of Debian's cloud kernels offer: the payload goes in as a tar on a second disk, output,
//! exit code and files come out of ports.

pub mod apt;
pub mod autobahn_image;
pub mod autobahn_recipe;
pub mod boot;
pub mod console;
pub mod guests;
pub mod payload;
pub mod recipe;
pub mod rootfs;
pub mod suite;
