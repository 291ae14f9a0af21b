//! Settings that protect the server from pictures.

use std::time::Duration;

use clap::Args;

use super::boolean;
use super::units::bytes;
use crate::engine::MemoryPlan;
use crate::media::MediaLimits;

/// What protects the server from pictures.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub struct MediaFlags {
    /// Whether picture URLs are fetched at all.
    #[arg(long, env = "SARDINE_ALLOW_REMOTE_IMAGES", default_value_t = true, action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    pub allow_remote_images: bool,
    /// Networks that picture URLs may point to although they are not public, such as 10.0.0.0/8 (comma-separated).
    #[arg(long, env = "SARDINE_ALLOWED_NETWORKS", value_delimiter = ',', value_name = "CIDR")]
    pub allowed_networks: Vec<ipnet::IpNet>,
    /// Bytes of one picture's file.
    #[arg(long, env = "SARDINE_MAX_IMAGE_BYTES", default_value_t = MediaLimits::default().max_image_bytes, value_name = "BYTES")]
    pub max_image_bytes: usize,
    /// Pixels of one decoded picture, before it is resized.
    #[arg(long, env = "SARDINE_MAX_IMAGE_PIXELS", default_value_t = MediaLimits::default().max_image_pixels, value_name = "PIXELS")]
    pub max_image_pixels: u64,
    /// Pictures in one request.
    #[arg(long, env = "SARDINE_MAX_IMAGES", default_value_t = MediaLimits::default().max_images, value_name = "N")]
    pub max_images: usize,
    /// Memory for the prepared pictures of the requests that wait or run, 24 KiB a token; one that finds too little left is
    /// answered 429. Default: a sixteenth of the memory, at least what the largest picture needs.
    #[arg(long, env = "SARDINE_PICTURE_MEMORY", value_name = "2GiB", value_parser = bytes)]
    pub picture_memory: Option<u64>,
    /// Time to fetch one picture, redirects included.
    #[arg(long, env = "SARDINE_IMAGE_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub image_timeout_ms: u64,
}

impl MediaFlags {
    /// The limits of a server that obeys `plan`.
    pub fn limits(&self, plan: &MemoryPlan) -> MediaLimits {
        MediaLimits {
            allow_remote_images: self.allow_remote_images,
            allowed_networks: self.allowed_networks.clone(),
            max_image_bytes: self.max_image_bytes,
            max_image_pixels: self.max_image_pixels,
            max_images: self.max_images,
            max_image_tokens: plan.max_model_len,
            picture_memory: plan.waiting_pictures_bytes,
            fetch_timeout: Duration::from_millis(self.image_timeout_ms),
            ..MediaLimits::default()
        }
    }
}
