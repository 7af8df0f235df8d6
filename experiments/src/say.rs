//! Writing to people and to pipes. A reader that has left must not take a run with it, as `println!` would.

use std::io::{self, ErrorKind, Write};

/// Standard output can't be written for another reason than that nobody reads it.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {}", plain(.0))]
pub(crate) struct OutputError(io::Error);

/// Writes to standard output; answers whether anybody still reads it. A pager that was left early is no failure.
pub(crate) fn out(text: &str) -> Result<bool, OutputError> {
    write(&mut io::stdout().lock(), text)
}

/// Writes a line to standard error, if anybody still reads that: there is no other place to complain at.
pub(crate) fn err(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// What the operating system said, without the number that the standard library appends.
pub(crate) fn plain(error: &io::Error) -> String {
    without_numbers(&error.to_string()).to_lowercase()
}

/// A text without the numbers that the standard library appends to what the operating system said.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut pieces = text.split(" (os error ");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once(')').map_or("", |(_, rest)| rest))
}

fn write(to: &mut impl Write, text: &str) -> Result<bool, OutputError> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(OutputError(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is() {
        assert!(matches!(write(&mut Vec::new(), "x"), Ok(true)));
        assert!(matches!(write(&mut Fails(ErrorKind::BrokenPipe), "x"), Ok(false)));
        let message = write(&mut Fails(ErrorKind::StorageFull), "x").unwrap_err().to_string();
        assert!(message.starts_with("cannot write to standard output: "), "{message}");
    }

    #[test]
    fn numbers_of_errors_are_left_out() {
        assert_eq!(plain(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(without_numbers("a (os error 2); b (os error 111) c"), "a; b c");
    }
}
