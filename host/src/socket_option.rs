//! Options of sockets that neither std nor rustix has: calls of the kernel with memory of the length that it is told.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{sock_filter, sock_fprog, tpacket_stats};
use rustix::io::Errno;

/// Integers, or a structure of nothing else as the kernel lays it out, without a pointer.
///
/// # Safety
/// Any bytes are a value, and there is no padding that is read.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: two integers, laid out as the kernel's.
unsafe impl Plain for tpacket_stats {}

/// Sets an option to one value, or several.
pub(crate) fn set<T: Plain>(socket: BorrowedFd<'_>, level: c_int, name: c_int, values: &[T]) -> Result<(), Errno> {
    let length = size_of_val(values) as libc::socklen_t;
    // SAFETY: the kernel reads no more than `length` bytes, which the slice has.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, values.as_ptr().cast::<c_void>(), length) };
    check(outcome)
}

/// Reads an option. What the kernel doesn't tell stays as it is.
pub(crate) fn get<T: Plain>(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &mut T) -> Result<(), Errno> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes, which the value has, and any bytes are a value.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, std::ptr::from_mut(value).cast::<c_void>(), &raw mut length)
    };
    check(outcome)
}

/// Has the kernel run `program` for each packet before it is queued; what that answers is how many bytes are kept of it.
pub(crate) fn attach_filter(socket: BorrowedFd<'_>, program: &[sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let length = size_of::<sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads the structure and the `len` instructions that it points to, all of which live through the
    // call, copies them, and writes to neither.
    let outcome = unsafe {
        let value = (&raw const program).cast::<c_void>();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length)
    };
    check(outcome)
}

/// What a call says that answers 0 if it succeeded.
pub(crate) fn check(outcome: c_int) -> Result<(), Errno> {
    match outcome {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
