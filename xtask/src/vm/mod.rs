//! Guests: their file systems, boot, payload and results.
//!
//! Host and guest share only block devices and virtio-serial ports, for which the cloud kernels of
//! Debian have drivers: the payload is a tar on a second disk; output, exit code and files come
//! through ports.

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
