//! The memory for prepared pictures. They are large (24 KiB a token), and a request holds its own from the moment they are
//! prepared until it has ended, also while it waits in the queue: so all requests share a bounded amount.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::MediaLimits;
use crate::error::{Error, Overload};

/// What all requests' pictures may take together, and what they do.
#[derive(Debug)]
pub(super) struct PictureMemory {
    bytes: u64,
    bytes_per_token: u64,
    taken: AtomicU64,
}

impl PictureMemory {
    pub(super) fn new(bytes: u64, bytes_per_token: u64) -> Arc<PictureMemory> {
        Arc::new(PictureMemory { bytes, bytes_per_token, taken: AtomicU64::new(0) })
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The share of a request whose pictures may cost `budget`: nothing so far.
    pub(super) fn share(self: &Arc<PictureMemory>, budget: Budget) -> Share {
        Share {
            memory: self.clone(),
            budget,
            files: AtomicU64::new(0),
            decoded: AtomicU64::new(0),
            wanted: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        }
    }
}

/// What the pictures of one request may cost together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) max_tokens: usize,
    /// Of encoded files.
    pub(super) max_file_bytes: u64,
    /// Of decoders.
    pub(super) max_decoded_bytes: u64,
}

impl Budget {
    pub(super) fn of(limits: &MediaLimits) -> Budget {
        Budget {
            max_tokens: limits.max_image_tokens,
            max_file_bytes: limits.max_request_image_bytes,
            max_decoded_bytes: limits.max_decoded_bytes,
        }
    }
}

/// What the pictures of one request take, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Arc<PictureMemory>,
    budget: Budget,
    /// Bytes of the files so far, and of what decoding them takes.
    files: AtomicU64,
    decoded: AtomicU64,
    /// Tokens of the pictures so far, the one that was refused included.
    wanted: AtomicUsize,
    /// Bytes taken from the memory.
    taken: AtomicU64,
}

impl Share {
    /// Counts a file, before it is decoded. Errors where the files of the request are larger than they may be together.
    pub(super) fn take_file(&self, bytes: usize) -> Result<(), Error> {
        count(&self.files, bytes as u64, self.budget.max_file_bytes, |limit| {
            format!(
                "the pictures' files are larger together than the {limit} bytes that one request may send \
                 (--max-request-image-bytes, SARDINE_MAX_REQUEST_IMAGE_BYTES); send fewer or smaller ones"
            )
        })
    }

    /// Counts what decoding a picture takes, before it is decoded.
    pub(super) fn take_decoded(&self, bytes: u64) -> Result<(), Error> {
        count(&self.decoded, bytes, self.budget.max_decoded_bytes, |limit| {
            format!(
                "decoding the pictures takes more than the {limit} bytes that one request may take together \
                 (--max-decoded-bytes, SARDINE_MAX_DECODED_BYTES); send fewer or smaller ones"
            )
        })
    }

    /// Takes what a picture of so many tokens needs, before it is made. Errors where the request asks for more than a request
    /// may, or where others have left too little for the moment.
    pub(super) fn take(&self, tokens: usize) -> Result<(), Error> {
        let wanted = self.wanted.fetch_add(tokens, Ordering::Relaxed) + tokens;
        let max_tokens = self.budget.max_tokens;
        if wanted > max_tokens {
            return Err(Error::invalid(format!(
                "the pictures cost more than the {max_tokens} tokens that this server has room for \
                 (--max-model-len); send fewer or smaller ones"
            )));
        }
        let PictureMemory { bytes: limit, bytes_per_token, taken } = &*self.memory;
        if wanted as u64 * bytes_per_token > *limit {
            return Err(Error::invalid(format!(
                "the pictures cost more than the {} tokens that this server has memory for \
                 (--picture-memory, SARDINE_PICTURE_MEMORY); send fewer or smaller ones",
                limit / bytes_per_token
            )));
        }
        let bytes = tokens as u64 * bytes_per_token;
        let with_this = |taken: u64| taken.checked_add(bytes).filter(|sum| sum <= limit);
        if taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_this).is_err() {
            // Who knows how busy the engine is says better when to come again.
            let why = Overload::PicturesFull { bytes: *limit };
            return Err(Error::Overloaded { why, retry_after: Duration::from_secs(1) });
        }
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Adds `bytes` to `counter`, and refuses what brings it above `limit`.
fn count(counter: &AtomicU64, bytes: u64, limit: u64, refusal: impl Fn(u64) -> String) -> Result<(), Error> {
    let before = counter.fetch_add(bytes, Ordering::Relaxed);
    if before.saturating_add(bytes) > limit { Err(Error::invalid(refusal(limit))) } else { Ok(()) }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.taken.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, PictureMemory};
    use crate::error::{Error, Overload};

    fn budget(max_tokens: usize) -> Budget {
        Budget { max_tokens, max_file_bytes: 100, max_decoded_bytes: 1000 }
    }

    #[test]
    fn the_files_of_a_request_and_their_decoding_are_counted_together() {
        let share = PictureMemory::new(0, 10).share(budget(0));
        assert_eq!((share.take_file(60), share.take_file(40), share.take_decoded(1000)), (Ok(()), Ok(()), Ok(())));
        let refused = |result: Result<(), Error>| result.unwrap_err().to_string();
        assert!(refused(share.take_file(1)).contains("the 100 bytes"));
        assert!(refused(share.take_decoded(1)).contains("the 1000 bytes"));
    }

    #[test]
    fn what_one_request_takes_another_lacks_until_the_first_is_gone() {
        let memory = PictureMemory::new(1000, 10);
        let (first, second) = (memory.share(budget(100)), memory.share(budget(100)));
        assert_eq!((first.take(40), first.take(20), second.take(40)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(memory.taken(), 1000);
        let full = memory.share(budget(100)).take(1);
        assert!(matches!(full, Err(Error::Overloaded { why: Overload::PicturesFull { bytes: 1000 }, .. })), "{full:?}");
        drop(first);
        assert_eq!(memory.taken(), 400);
        assert_eq!(memory.share(budget(100)).take(60), Ok(()));
    }

    #[test]
    fn what_could_never_be_had_is_no_overload() {
        let memory = PictureMemory::new(1000, 10);
        let refused = |max_tokens, tokens| memory.share(budget(max_tokens)).take(tokens).unwrap_err().to_string();
        assert!(refused(50, 51).contains("--max-model-len"));
        assert!(refused(200, 101).contains("the 100 tokens") && refused(200, 101).contains("--picture-memory"));
        let share = memory.share(budget(50));
        assert!(share.take(30).is_ok() && share.take(30).is_err());
        assert_eq!(memory.taken(), 300, "a refused picture takes nothing");
        drop(share);
        assert_eq!(memory.taken(), 0);
    }
}
