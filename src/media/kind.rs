//! What a client's file is meant to be: how messages name it, and which limits hold for it.

use std::time::Duration;

use super::MediaLimits;
use crate::error::Error;

/// What a file is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Picture,
    Video,
}

impl Kind {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Kind::Picture => "picture",
            Kind::Video => "video",
        }
    }

    /// The beginning of a `data:` URL of this kind.
    pub(super) fn data_url(self) -> &'static str {
        match self {
            Kind::Picture => "data:image/png;base64,...",
            Kind::Video => "data:video/mp4;base64,...",
        }
    }

    /// What a client may send.
    pub(super) fn accepted(self) -> String {
        format!("a {} is an http(s) URL, a data: URL with base64, or bare base64", self.noun())
    }

    pub(super) fn max_bytes(self, limits: &MediaLimits) -> usize {
        match self {
            Kind::Picture => limits.max_image_bytes,
            Kind::Video => limits.max_video_bytes,
        }
    }

    /// What to say of a file longer than `max_bytes`.
    pub(super) fn too_many_bytes(self, max_bytes: usize) -> String {
        let flag = match self {
            Kind::Picture => "--max-image-bytes, SARDINE_MAX_IMAGE_BYTES",
            Kind::Video => "--max-video-bytes, SARDINE_MAX_VIDEO_BYTES",
        };
        format!("the {}'s file is larger than the {max_bytes} bytes that this server reads ({flag})", self.noun())
    }

    /// The error of one of `size`, (width, height), where at most `max_pixels` are decoded.
    pub(super) fn too_many_pixels(self, (width, height): (u64, u64), max_pixels: u64) -> Error {
        Error::invalid(format!(
            "the {} has {width}x{height} pixels, more than the {max_pixels} that this server decodes \
             (--max-image-pixels, SARDINE_MAX_IMAGE_PIXELS); send a smaller one",
            self.noun()
        ))
    }

    /// The longest download.
    pub(super) fn fetch_timeout(self, limits: &MediaLimits) -> Duration {
        match self {
            Kind::Picture => limits.fetch_timeout,
            Kind::Video => limits.video_timeout,
        }
    }

    pub(super) fn fetch_timeout_flag(self) -> &'static str {
        match self {
            Kind::Picture => "--image-timeout-ms, SARDINE_IMAGE_TIMEOUT_MS",
            Kind::Video => "--video-timeout-ms, SARDINE_VIDEO_TIMEOUT_MS",
        }
    }
}
