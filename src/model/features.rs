//! What the vision tower made of pictures, kept for those that come again: in another turn of a chat, or from somebody else.

use lru::LruCache;
use tch::Tensor;

use crate::engine::Digest;

/// Embeddings by their picture's digest, those that were not asked for the longest going first when there is no room.
pub(super) struct FeatureCache {
    kept: LruCache<Digest, Tensor>,
    bytes: u64,
    max_bytes: u64,
}

impl FeatureCache {
    /// An empty one, of at most `max_bytes`; with 0 it keeps nothing.
    pub fn new(max_bytes: u64) -> FeatureCache {
        FeatureCache { kept: LruCache::unbounded(), bytes: 0, max_bytes }
    }

    /// The embeddings of the picture of this digest, [tokens, hidden].
    pub fn get(&mut self, digest: &Digest) -> Option<Tensor> {
        self.kept.get(digest).map(Tensor::shallow_clone)
    }

    /// Keeps `embeddings`, unless they are larger than the whole cache. They are shared and not copied: they must lie in memory
    /// of their own, and stay as they are.
    pub fn put(&mut self, digest: Digest, embeddings: &Tensor) {
        let bytes = bytes_of(embeddings);
        if bytes > self.max_bytes {
            return;
        }
        if let Some(before) = self.kept.put(digest, embeddings.shallow_clone()) {
            self.bytes -= bytes_of(&before);
        }
        self.bytes += bytes;
        while self.bytes > self.max_bytes {
            let (_, oldest) = self.kept.pop_lru().expect("Invariant: nothing is kept in 0 bytes");
            self.bytes -= bytes_of(&oldest);
        }
    }

    /// Bytes of all that is kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::FeatureCache;

    /// Of 40 bytes a row.
    fn embeddings(rows: i64) -> Tensor {
        Tensor::rand([rows, 20], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16)
    }

    fn digests_in(cache: &mut FeatureCache) -> Vec<u8> {
        (0..10).filter(|first| cache.kept.contains(&[*first; 32])).collect()
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first() {
        let mut cache = FeatureCache::new(100);
        let first = embeddings(1);
        cache.put([1; 32], &first);
        cache.put([2; 32], &embeddings(1));
        assert!(cache.get(&[1; 32]).unwrap().equal(&first));
        assert!(cache.get(&[3; 32]).is_none());
        cache.put([3; 32], &embeddings(1));
        assert_eq!((digests_in(&mut cache), cache.bytes()), (vec![1, 3], 80));
        cache.put([4; 32], &embeddings(2));
        assert_eq!((digests_in(&mut cache), cache.bytes()), (vec![4], 80));
    }

    #[test]
    fn what_is_larger_than_all_the_room_drives_nothing_out() {
        let mut cache = FeatureCache::new(100);
        cache.put([1; 32], &embeddings(2));
        cache.put([2; 32], &embeddings(3));
        assert_eq!((digests_in(&mut cache), cache.bytes()), (vec![1], 80));
        let mut nothing = FeatureCache::new(0);
        nothing.put([1; 32], &embeddings(1));
        assert_eq!((digests_in(&mut nothing), nothing.bytes()), (vec![], 0));
    }

    #[test]
    fn the_same_picture_is_kept_once() {
        let mut cache = FeatureCache::new(100);
        cache.put([1; 32], &embeddings(1));
        cache.put([1; 32], &embeddings(2));
        assert_eq!(cache.bytes(), 80);
    }
}
