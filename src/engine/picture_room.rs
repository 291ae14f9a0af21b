//! How much memory the prepared pictures of requests may take: those of whoever runs, and of whoever waits in the queue.

use serde::Serialize;

/// The pictures that requests may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureDemand {
    /// Bytes of a prepared picture for each of its tokens; 0 without a vision tower.
    pub bytes_per_token: u64,
    /// Tokens of the largest picture.
    pub largest: usize,
    /// Tokens of all pictures of one request.
    pub tokens_per_request: usize,
    /// Requests that wait or run.
    pub num_requests: usize,
}

/// Room for the prepared pictures of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureRoom {
    pub bytes: u64,
    pub place: PicturePlace,
}

/// Which memory prepared pictures are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PicturePlace {
    /// The one that is planned.
    Device,
    /// The machine's own, beside a GPU's.
    Host,
}

impl PictureDemand {
    /// Room for them within `available_bytes`: a sixteenth, but for the largest picture at least, and not for more than could
    /// ever be held. What has no room is refused while others' pictures take it, so it need not be what all could bring.
    pub fn room(&self, available_bytes: Option<u64>) -> u64 {
        const WHERE_NOBODY_KNOWS: u64 = 1 << 30;
        let bytes = |tokens: usize| self.bytes_per_token.saturating_mul(tokens as u64);
        let (one, all) = (bytes(self.largest), bytes(self.tokens_per_request.saturating_mul(self.num_requests)));
        available_bytes.map_or(WHERE_NOBODY_KNOWS, |available| available / 16).min(all).max(one)
    }
}

#[cfg(test)]
mod tests {
    use super::PictureDemand;

    const MIB: u64 = 1 << 20;

    /// Qwen3.5's pictures.
    const LARGE: PictureDemand =
        PictureDemand { bytes_per_token: 24 << 10, largest: 16_384, tokens_per_request: 32_768, num_requests: 136 };

    #[test]
    fn it_is_a_share_of_the_memory_with_room_for_the_largest_picture() {
        assert_eq!(LARGE.room(Some(64 << 30)), 4 << 30);
        assert_eq!(LARGE.room(Some(MIB)), 384 * MIB);
        assert_eq!(LARGE.room(None), 1 << 30);
    }

    #[test]
    fn it_is_not_more_than_requests_can_bring() {
        let few = PictureDemand { largest: 25, tokens_per_request: 50, num_requests: 10, ..LARGE };
        assert_eq!(few.room(Some(64 << 30)), 500 * (24 << 10));
        let none = PictureDemand { bytes_per_token: 0, largest: 0, tokens_per_request: 0, num_requests: 10 };
        assert_eq!(none.room(Some(64 << 30)), 0);
    }
}
