//! A file in memory that can be read until a moment, so that every decoder ends in time without knowing of it.

use std::io::{BufRead, Cursor, Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::time::Instant;

/// Bytes handed out at a time: few enough that the clock is looked at every millisecond or so.
const PIECE: usize = 16 << 10;

/// A read as long as this is worth a look at the clock; decoders' own buffers read so much at once.
const LONG: usize = 4 << 10;

/// Shorter reads between two looks at the clock.
const READS_BETWEEN: u8 = 64;

/// Reads `file` until `deadline`; after it every read fails.
pub(super) struct Timed<'a> {
    file: Cursor<&'a [u8]>,
    deadline: Instant,
    reads: u8,
}

impl<'a> Timed<'a> {
    pub(super) fn new(file: &'a [u8], deadline: Instant) -> Timed<'a> {
        Timed { file: Cursor::new(file), deadline, reads: 0 }
    }

    fn check(&mut self, len: usize) -> Result<()> {
        self.reads = self.reads.wrapping_add(1);
        let looks = len >= LONG || self.reads.is_multiple_of(READS_BETWEEN);
        if looks && Instant::now() > self.deadline {
            return Err(Error::new(ErrorKind::TimedOut, "the time for decoding is over"));
        }
        Ok(())
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let len = buffer.len().min(PIECE);
        self.check(len)?;
        self.file.read(&mut buffer[..len])
    }
}

impl BufRead for Timed<'_> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.check(PIECE)?;
        let left = self.file.fill_buf()?;
        Ok(&left[..left.len().min(PIECE)])
    }

    fn consume(&mut self, amount: usize) {
        self.file.consume(amount);
    }
}

impl Seek for Timed<'_> {
    fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        self.file.seek(position)
    }
}
