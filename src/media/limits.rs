//! `MediaLimits`: what a request's pictures and videos may cost this process.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::decode::Bounds;
use super::size::MAX_RATIO;
use crate::error::Error;

/// The limits that protect the process from pictures and videos, each named as its flag and environment variable are.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaLimits {
    /// `--allow-remote-images`, `SARDINE_ALLOW_REMOTE_IMAGES`: whether http(s) URLs are fetched at all.
    pub allow_remote_images: bool,
    /// `--allowed-networks`, `SARDINE_ALLOWED_NETWORKS`: networks that may be fetched from although they
    /// are not public, for pictures on an intranet.
    pub allowed_networks: Vec<IpNet>,
    /// `--allowed-domains`, `SARDINE_ALLOWED_DOMAINS`: names of hosts that may be fetched from, with all below them. Empty:
    /// every name whose addresses are public.
    pub allowed_domains: Vec<String>,
    /// `--allowed-ports`, `SARDINE_ALLOWED_PORTS`. Empty: 80, 443, and those from 1024 on.
    pub allowed_ports: Vec<u16>,
    /// `--image-proxy`, `SARDINE_IMAGE_PROXY`: what every picture is fetched through. It resolves the names itself.
    pub proxy: Option<Url>,
    /// `--max-image-bytes`, `SARDINE_MAX_IMAGE_BYTES`: the longest encoded file, remote or sent along.
    pub max_image_bytes: usize,
    /// `--max-request-image-bytes`, `SARDINE_MAX_REQUEST_IMAGE_BYTES`: encoded files of one request together.
    pub max_request_image_bytes: u64,
    /// `--max-decoded-bytes`, `SARDINE_MAX_DECODED_BYTES`: what decoding the pictures of one request takes together, each
    /// counted with what its decoder holds at once.
    pub max_decoded_bytes: u64,
    /// `--max-image-pixels`, `SARDINE_MAX_IMAGE_PIXELS`: the largest picture that is decoded, in pixels before
    /// resizing.
    pub max_image_pixels: u64,
    /// `--max-resized-pixels`, `SARDINE_MAX_RESIZED_PIXELS`: the largest area that a picture is resized to, also where a client
    /// asks for more. `None`: the checkpoint's.
    pub max_resized_pixels: Option<usize>,
    /// `--max-aspect-ratio`, `SARDINE_MAX_ASPECT_RATIO`: the longer side as a multiple of the shorter one.
    pub max_aspect_ratio: f64,
    /// `--max-images`, `SARDINE_MAX_IMAGES`: pictures of one request.
    pub max_images: usize,
    /// Tokens that the pictures of one request may cost together: what the context has room for (`--max-model-len`).
    pub max_image_tokens: usize,
    /// `--picture-memory`, `SARDINE_PICTURE_MEMORY`: bytes of prepared pictures, over all requests that wait or run.
    pub picture_memory: u64,
    /// `--image-timeout-ms`, `SARDINE_IMAGE_TIMEOUT_MS`: from the first connection to the last byte, redirects
    /// included.
    pub fetch_timeout: Duration,
    /// `--ffmpeg`, `SARDINE_FFMPEG`: the program that decodes video files; `None` where there is none.
    pub ffmpeg: Option<PathBuf>,
    /// `--max-videos`, `SARDINE_MAX_VIDEOS`: videos of one request.
    pub max_videos: usize,
    /// `--max-video-bytes`, `SARDINE_MAX_VIDEO_BYTES`: the longest video file, remote or sent along.
    pub max_video_bytes: usize,
    /// `--max-video-seconds`, `SARDINE_MAX_VIDEO_SECONDS`: how long the longest video lasts, or the part
    /// of it that a client has read.
    pub max_video_seconds: f64,
    /// `--max-video-frames`, `SARDINE_MAX_VIDEO_FRAMES`: frames of one video that the model is shown.
    pub max_video_frames: usize,
    /// `--video-timeout-ms`, `SARDINE_VIDEO_TIMEOUT_MS`: time to fetch one video, and time to decode it.
    pub video_timeout: Duration,
    /// Redirects of one download, each held to the same rules as its URL. No flag.
    pub max_redirects: usize,
    /// Downloads at a time, over all requests. No flag.
    pub fetch_concurrency: usize,
    /// `--decode-timeout-ms`, `SARDINE_DECODE_TIMEOUT_MS`: to decode one picture.
    pub decode_timeout: Duration,
    /// `--decode-concurrency`, `SARDINE_DECODE_CONCURRENCY`: pictures decoded and resized at a time, over all requests.
    pub decode_concurrency: usize,
}

impl Default for MediaLimits {
    /// Safe on a small machine, and wide enough for a photograph straight from a telephone.
    fn default() -> MediaLimits {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        MediaLimits {
            allow_remote_images: true,
            allowed_networks: Vec::new(),
            allowed_domains: Vec::new(),
            allowed_ports: Vec::new(),
            proxy: None,
            // A 50-megapixel JPEG has 10 to 15 MB; base64 of this much still fits in a 32 MiB body.
            max_image_bytes: 20 << 20,
            max_request_image_bytes: 128 << 20,
            // Thirty-two of a telephone's, even where they are progressive.
            max_decoded_bytes: 4 << 30,
            // Telephones take 50; at 3 bytes a pixel this is 192 MB while a picture is being prepared.
            max_image_pixels: 64 << 20,
            max_resized_pixels: None,
            // The model reads no picture beyond this.
            max_aspect_ratio: MAX_RATIO,
            max_images: 32,
            // What one picture of the checkpoint's full size costs: 400 MB of patches.
            max_image_tokens: 16_384,
            picture_memory: 1 << 30,
            fetch_timeout: Duration::from_secs(10),
            ffmpeg: None,
            max_videos: 4,
            // A minute of 1080p from a telephone has 60 to 120 MB, of 720p half of that.
            max_video_bytes: 64 << 20,
            max_video_seconds: 600.0,
            // The most that Qwen3.5 samples: six minutes at two per second.
            max_video_frames: 768,
            video_timeout: Duration::from_secs(60),
            max_redirects: 3,
            fetch_concurrency: 16,
            decode_timeout: Duration::from_secs(10),
            // The model's own threads want the cores as well.
            decode_concurrency: cores.div_ceil(2),
        }
    }
}

impl MediaLimits {
    /// Refuses limits under which no picture could ever be served.
    pub(super) fn check(&self) -> Result<(), String> {
        let positive = [
            ("--max-image-bytes", self.max_image_bytes),
            ("--max-image-pixels", self.max_image_pixels as usize),
            ("--max-request-image-bytes", self.max_request_image_bytes as usize),
            ("--max-decoded-bytes", self.max_decoded_bytes as usize),
            ("--decode-timeout-ms", self.decode_timeout.as_nanos() as usize),
            ("--max-video-bytes", self.max_video_bytes),
            ("--max-video-frames", self.max_video_frames),
            ("fetch_concurrency", self.fetch_concurrency),
            ("--decode-concurrency", self.decode_concurrency),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((flag, _)) => Err(format!("{flag} is 0; it must be at least 1")),
            None => Ok(()),
        }
    }

    /// What one picture may cost before it is resized.
    pub(super) fn decode_bounds(&self) -> Bounds {
        Bounds { max_pixels: self.max_image_pixels, max_ratio: self.max_aspect_ratio, timeout: self.decode_timeout }
    }

    /// The error of a video that takes too long to decode.
    pub(super) fn video_too_slow(&self) -> Error {
        Error::invalid(format!(
            "the video could not be decoded within {} ms (--video-timeout-ms, SARDINE_VIDEO_TIMEOUT_MS); \
             send a shorter or smaller one, or its frames as a list of pictures",
            self.video_timeout.as_millis()
        ))
    }
}
