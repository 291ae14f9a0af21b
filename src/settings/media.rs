//! Settings that protect the server from pictures and videos, and the program that decodes videos.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::boolean;
use super::secret::Secret;
use super::units::bytes;
use crate::engine::MemoryPlan;
use crate::media::MediaLimits;
use crate::media::size::MAX_RATIO;

/// What protects the server from pictures and videos.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures and videos")]
pub struct MediaFlags {
    /// Whether URLs of pictures and videos are fetched at all.
    #[arg(long, env = "SARDINE_ALLOW_REMOTE_IMAGES", default_value_t = true, action = clap::ArgAction::Set, value_parser = boolean, value_name = "BOOL")]
    pub allow_remote_images: bool,
    /// Networks that these URLs may point to although they are not public, such as 10.0.0.0/8 (comma-separated).
    #[arg(long, env = "SARDINE_ALLOWED_NETWORKS", value_delimiter = ',', value_name = "CIDR")]
    pub allowed_networks: Vec<ipnet::IpNet>,
    /// Hosts that picture URLs may name, with all below them (comma-separated). Default: every one with public addresses.
    #[arg(long, env = "SARDINE_ALLOWED_DOMAINS", value_delimiter = ',', value_name = "DOMAIN")]
    pub allowed_domains: Vec<String>,
    /// Ports of picture URLs (comma-separated). Default: 80, 443, and those from 1024 on.
    #[arg(long, env = "SARDINE_ALLOWED_PORTS", value_delimiter = ',', value_name = "PORT")]
    pub allowed_ports: Vec<u16>,
    /// An http(s) proxy that all pictures are fetched through. It resolves names itself, so it must refuse private addresses.
    /// Proxies of the environment (HTTP_PROXY) are not used.
    #[arg(long, env = "SARDINE_IMAGE_PROXY", hide_env_values = true, value_name = "URL")]
    pub image_proxy: Option<Secret<url::Url>>,
    /// Bytes of one picture's file.
    #[arg(long, env = "SARDINE_MAX_IMAGE_BYTES", default_value_t = MediaLimits::default().max_image_bytes, value_name = "BYTES")]
    pub max_image_bytes: usize,
    /// Bytes of all pictures' files of one request.
    #[arg(long, env = "SARDINE_MAX_REQUEST_IMAGE_BYTES", default_value_t = MediaLimits::default().max_request_image_bytes, value_name = "BYTES")]
    pub max_request_image_bytes: u64,
    /// Bytes that decoding all pictures of one request takes.
    #[arg(long, env = "SARDINE_MAX_DECODED_BYTES", default_value_t = MediaLimits::default().max_decoded_bytes, value_name = "BYTES")]
    pub max_decoded_bytes: u64,
    /// Pixels of one decoded picture or frame, before it is resized.
    #[arg(long, env = "SARDINE_MAX_IMAGE_PIXELS", default_value_t = MediaLimits::default().max_image_pixels, value_name = "PIXELS")]
    pub max_image_pixels: u64,
    /// Pixels that a picture is resized to at most, also where a request asks for more. Default: as many as the checkpoint says.
    #[arg(long, env = "SARDINE_MAX_RESIZED_PIXELS", value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1024..))]
    pub max_resized_pixels: Option<u32>,
    /// A picture's longer side as a multiple of its shorter one. The model reads up to 200.
    #[arg(long, env = "SARDINE_MAX_ASPECT_RATIO", default_value_t = MediaLimits::default().max_aspect_ratio, value_name = "RATIO", value_parser = ratio)]
    pub max_aspect_ratio: f64,
    /// Pictures in one request.
    #[arg(long, env = "SARDINE_MAX_IMAGES", default_value_t = MediaLimits::default().max_images, value_name = "N")]
    pub max_images: usize,
    /// Memory for the prepared pictures of the requests that wait or run, 24 KiB a token; one that finds too little left is
    /// answered 429. Default: a sixteenth of the memory, at least what the largest picture needs.
    #[arg(long, env = "SARDINE_PICTURE_MEMORY", value_name = "2GiB", value_parser = bytes)]
    pub picture_memory: Option<u64>,
    /// Memory on each device for what the vision tower made of pictures, so that one that comes again is not computed again; 0 keeps
    /// nothing. Default: a 64th of the memory, at most 256 MiB.
    #[arg(long, env = "SARDINE_PICTURE_CACHE", value_name = "1GiB", value_parser = bytes)]
    pub picture_cache: Option<u64>,
    /// Time to fetch one picture, redirects included.
    #[arg(long, env = "SARDINE_IMAGE_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub image_timeout_ms: u64,
    /// Time to decode one picture.
    #[arg(long, env = "SARDINE_DECODE_TIMEOUT_MS", default_value_t = 10_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub decode_timeout_ms: u64,
    /// Pictures decoded at a time, over all requests. Default: half as many as there are cores.
    #[arg(long, env = "SARDINE_DECODE_CONCURRENCY", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub decode_concurrency: Option<u16>,
    /// The program that decodes video files, ffmpeg 5.1 or newer: a file, or a name to look for in PATH. Where there is none,
    /// lists of frames are read, and animated pictures.
    #[arg(long, env = "SARDINE_FFMPEG", default_value = "ffmpeg", value_name = "FILE")]
    pub ffmpeg: PathBuf,
    /// Videos in one request.
    #[arg(long, env = "SARDINE_MAX_VIDEOS", default_value_t = MediaLimits::default().max_videos, value_name = "N")]
    pub max_videos: usize,
    /// Bytes of one video's file.
    #[arg(long, env = "SARDINE_MAX_VIDEO_BYTES", default_value_t = MediaLimits::default().max_video_bytes, value_name = "BYTES")]
    pub max_video_bytes: usize,
    /// Seconds that one video may last, or the part of it that is read.
    #[arg(long, env = "SARDINE_MAX_VIDEO_SECONDS", default_value_t = MediaLimits::default().max_video_seconds, value_name = "S")]
    pub max_video_seconds: f64,
    /// Frames of one video that the model is shown; longer videos are sampled more sparsely.
    #[arg(long, env = "SARDINE_MAX_VIDEO_FRAMES", default_value_t = MediaLimits::default().max_video_frames, value_name = "N")]
    pub max_video_frames: usize,
    /// Time to fetch one video, redirects included, and time to decode it.
    #[arg(long, env = "SARDINE_VIDEO_TIMEOUT_MS", default_value_t = 60_000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub video_timeout_ms: u64,
}

impl MediaFlags {
    /// The limits of a server that obeys `plan`.
    pub fn limits(&self, plan: &MemoryPlan) -> MediaLimits {
        let usual = MediaLimits::default();
        MediaLimits {
            allow_remote_images: self.allow_remote_images,
            allowed_networks: self.allowed_networks.clone(),
            allowed_domains: self.allowed_domains.iter().filter(|domain| !domain.is_empty()).cloned().collect(),
            allowed_ports: self.allowed_ports.clone(),
            proxy: self.image_proxy.as_ref().map(|proxy| proxy.expose().clone()),
            max_image_bytes: self.max_image_bytes,
            max_request_image_bytes: self.max_request_image_bytes,
            max_decoded_bytes: self.max_decoded_bytes,
            max_image_pixels: self.max_image_pixels,
            max_resized_pixels: self.max_resized_pixels.map(|pixels| pixels as usize),
            max_aspect_ratio: self.max_aspect_ratio,
            max_images: self.max_images,
            max_image_tokens: plan.max_model_len,
            picture_memory: plan.waiting_pictures_bytes,
            fetch_timeout: Duration::from_millis(self.image_timeout_ms),
            decode_timeout: Duration::from_millis(self.decode_timeout_ms),
            decode_concurrency: self.decode_concurrency.map_or(usual.decode_concurrency, usize::from),
            ffmpeg: find_program(&self.ffmpeg),
            max_videos: self.max_videos,
            max_video_bytes: self.max_video_bytes,
            max_video_seconds: self.max_video_seconds,
            max_video_frames: self.max_video_frames,
            video_timeout: Duration::from_millis(self.video_timeout_ms),
            ..usual
        }
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio| (1.0..=MAX_RATIO).contains(ratio))
        .ok_or_else(|| format!("expected a number from 1 to {MAX_RATIO}"))
}

/// The file that `program` names: itself where it is a path, else the first of that name in the folders of PATH.
fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::find_program;

    #[test]
    fn a_path_is_taken_as_it_is_and_a_name_is_looked_for() {
        assert_eq!(find_program(Path::new("/no/such/ffmpeg")), Some(PathBuf::from("/no/such/ffmpeg")));
        assert!(find_program(Path::new("sh")).is_some_and(|shell| shell.is_absolute()));
        assert_eq!(find_program(Path::new("no-such-program-anywhere")), None);
    }
}
