//! Settings that protect the server from pictures.

use std::time::Duration;

use clap::Args;

use super::boolean;
use crate::media::MediaLimits;

/// What protects the server from pictures.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub struct MediaFlags {
    /// Whether picture URLs are fetched at all.
    #[arg(long, env = "SARDINE_ALLOW_REMOTE_IMAGES", default_value_t = true, action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    pub allow_remote_images: bool,
    /// Networks that picture URLs may point to although they are not public, such as 10.0.0.0/8 (comma-separated).
    #[arg(long, env = "SARDINE_ALLOWED_IMAGE_NETWORKS", value_delimiter = ',', value_name = "CIDR")]
    pub allowed_image_networks: Vec<ipnet::IpNet>,
    /// Bytes of one picture's file.
    #[arg(long, env = "SARDINE_MAX_IMAGE_BYTES", default_value_t = MediaLimits::default().max_image_bytes, value_name = "BYTES")]
    pub max_image_bytes: usize,
    /// Pixels of one decoded picture, before it is resized.
    #[arg(long, env = "SARDINE_MAX_IMAGE_PIXELS", default_value_t = MediaLimits::default().max_image_pixels, value_name = "PIXELS")]
    pub max_image_pixels: usize,
    /// Pictures in one request.
    #[arg(long, env = "SARDINE_MAX_IMAGES", default_value_t = MediaLimits::default().max_images, value_name = "N")]
    pub max_images: usize,
    /// Tokens that the pictures of one request may cost together.
    #[arg(long, env = "SARDINE_MAX_IMAGE_TOKENS", default_value_t = MediaLimits::default().max_image_tokens, value_name = "TOKENS")]
    pub max_image_tokens: usize,
    /// Time to fetch one picture, redirects included.
    #[arg(long, env = "SARDINE_IMAGE_FETCH_TIMEOUT_S", default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub image_fetch_timeout_s: u64,
    /// Redirects that are followed, each address checked anew.
    #[arg(long, env = "SARDINE_MAX_IMAGE_REDIRECTS", default_value_t = MediaLimits::default().max_redirects, value_name = "N")]
    pub max_image_redirects: usize,
    /// Pictures fetched at a time, over all requests.
    #[arg(long, env = "SARDINE_IMAGE_FETCH_CONCURRENCY", default_value_t = MediaLimits::default().fetch_concurrency, value_name = "N")]
    pub image_fetch_concurrency: usize,
    /// Pictures decoded at a time, over all requests. Default: half the cores.
    #[arg(long, env = "SARDINE_IMAGE_DECODE_CONCURRENCY", value_name = "N")]
    pub image_decode_concurrency: Option<usize>,
}

impl MediaFlags {
    pub fn limits(&self) -> MediaLimits {
        MediaLimits {
            allow_remote_images: self.allow_remote_images,
            allowed_networks: self.allowed_image_networks.clone(),
            max_image_bytes: self.max_image_bytes,
            max_image_pixels: self.max_image_pixels,
            max_images: self.max_images,
            max_image_tokens: self.max_image_tokens,
            fetch_timeout: Duration::from_secs(self.image_fetch_timeout_s),
            max_redirects: self.max_image_redirects,
            fetch_concurrency: self.image_fetch_concurrency,
            decode_concurrency: self.image_decode_concurrency.unwrap_or(MediaLimits::default().decode_concurrency),
        }
    }
}
