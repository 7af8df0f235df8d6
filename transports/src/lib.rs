//! Placeholder.

#[cfg(target_os = "linux")]
pub mod shm;
