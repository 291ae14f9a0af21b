//! URL, base64 or bytes -> pixels -> patches: everything that fetches and decodes pictures and videos.

mod address;
mod area;
pub mod decode;
mod fetch;
mod format;
mod kind;
mod limits;
mod memory;
pub mod patches;
pub mod preprocess;
pub mod resize;
mod rgb;
pub mod size;
mod source;
pub mod video;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use tokio::sync::Semaphore;

use crate::checkpoint::Checkpoint;
use crate::engine::{Picture, Visuals};
use crate::error::Error;
use fetch::Fetcher;
use kind::Kind;
use memory::{Budget, PictureMemory, Share};
use preprocess::Preprocess;
use source::Located;
use video::Videos;
use video::processor::VideoProcessor;

pub use area::Area;
pub use limits::MediaLimits;
pub use rgb::Rgb;
pub use video::{Footage, Part, Video, VideoOptions};

/// Where a picture comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// An http(s) URL, a `data:` URL, or bare base64.
    Text(String),
    /// The file itself.
    File(Bytes),
    /// Another source, whose picture is resized within an area of its own.
    Sized { source: Box<Source>, area: Area },
}

impl Source {
    /// The same source, resized within `area`; what it says of its own comes first.
    pub fn within(self, area: Area) -> Source {
        match self {
            Source::Sized { source, area: own } => Source::Sized { source, area: own.or(area) },
            source if area == Area::default() => source,
            source => Source::Sized { source: Box::new(source), area },
        }
    }

    fn area(&self) -> Area {
        match self {
            Source::Sized { area, .. } => *area,
            _ => Area::default(),
        }
    }
}

/// What a client shows the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Medium {
    Picture(Source),
    Video(Video),
}

impl Medium {
    /// The same, read as `usual` says where it does not say it itself.
    pub fn or(self, usual: VideoOptions) -> Medium {
        match self {
            Medium::Picture(source) => Medium::Picture(source.within(usual.area())),
            Medium::Video(video) => Medium::Video(Video { options: video.options.or(usual), ..video }),
        }
    }
}

impl From<Source> for Medium {
    fn from(source: Source) -> Medium {
        Medium::Picture(source)
    }
}

/// What a checkpoint's pictures cost; nothing where it has no vision tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PictureCosts {
    /// Tokens of the largest, be it a group of a video's frames.
    pub largest: usize,
    /// Bytes that a prepared picture holds for each of its tokens.
    pub bytes_per_token: u64,
}

impl PictureCosts {
    /// Those of `checkpoint`'s pictures.
    pub fn load(checkpoint: &Checkpoint) -> Result<PictureCosts, String> {
        let Some(preprocess) = Preprocess::load(checkpoint)? else { return Ok(PictureCosts::default()) };
        let largest_group = VideoProcessor::load(checkpoint)?.largest_group();
        let costs = PictureCosts::of(&preprocess);
        Ok(PictureCosts { largest: costs.largest.max(largest_group), ..costs })
    }

    fn of(preprocess: &Preprocess) -> PictureCosts {
        let pixels_per_token = preprocess.factor().pow(2);
        let numbers_per_token = 3 * preprocess.temporal_patch_size * pixels_per_token;
        PictureCosts {
            largest: preprocess.max_pixels / pixels_per_token,
            bytes_per_token: (numbers_per_token * size_of::<f32>()) as u64,
        }
    }
}

/// The prepared pictures and videos of a request, each kind in the order in which they were sent.
#[derive(Debug, Clone, Default)]
pub struct Pictures {
    visuals: Visuals,
    times: Vec<Times>,
    share: Option<Arc<Share>>,
}

/// How long the stages of a picture took.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    /// `None` where the client sent the picture itself.
    fetch: Option<Duration>,
    decode: Duration,
    /// Resized, and cut into patches.
    prepare: Duration,
}

impl Times {
    /// Adds those of another file.
    fn add(&mut self, other: Times) {
        self.fetch = self.fetch.map_or(other.fetch, |fetch| Some(fetch + other.fetch.unwrap_or_default()));
        self.decode += other.decode;
        self.prepare += other.prepare;
    }
}

impl Pictures {
    /// All of them.
    pub fn visuals(&self) -> &Visuals {
        &self.visuals
    }

    /// Their share of the memory for pictures. Whoever keeps pictures keeps it as well: it is given back when it is dropped.
    pub fn share(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.share.clone().map(|share| share as Arc<dyn Any + Send + Sync>)
    }

    /// The stages of each picture and video, and how long they took; waiting for another's is in none.
    pub fn stages(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.times.iter().flat_map(|Times { fetch, decode, prepare }| {
            let fetch = fetch.map(|took| ("fetch", took));
            fetch.into_iter().chain([("decode", *decode), ("prepare", *prepare)])
        })
    }
}

impl Deref for Pictures {
    type Target = [Arc<Picture>];

    fn deref(&self) -> &[Arc<Picture>] {
        &self.visuals.pictures
    }
}

/// Turns the pictures and videos of requests into what the vision tower reads. One for the whole process.
pub struct Media {
    limits: MediaLimits,
    /// `None` where the checkpoint has no vision tower.
    preprocess: Option<Arc<Preprocess>>,
    /// `None` where the checkpoint has no vision tower.
    videos: Option<Videos>,
    /// `None` where remote pictures are not fetched.
    fetcher: Option<Fetcher>,
    fetches: Semaphore,
    memory: Arc<PictureMemory>,
    /// Shared with the blocking threads, so that a decode whose client has left still counts until it ends.
    decodes: Arc<Semaphore>,
}

impl Media {
    /// Reads how `checkpoint` wants its pictures prepared. Errors, in one line, where it wants what is not implemented.
    pub fn start(checkpoint: &Checkpoint, limits: MediaLimits) -> Result<Media, String> {
        limits.check()?;
        let preprocess = Preprocess::load(checkpoint)?;
        let preprocess = preprocess.map(|preprocess| Arc::new(preprocess.within(limits.max_resized_pixels)));
        let videos = match &preprocess {
            Some(_) => Some(Videos::start(video_processor(checkpoint)?, &limits)),
            None => None,
        };
        let fetcher = if limits.allow_remote_images { Some(Fetcher::new(&limits)?) } else { None };
        let costs = preprocess.as_deref().map_or_else(PictureCosts::default, PictureCosts::of);
        Ok(Media {
            preprocess,
            videos,
            fetcher,
            memory: PictureMemory::new(limits.picture_memory, costs.bytes_per_token),
            fetches: Semaphore::new(limits.fetch_concurrency),
            decodes: Arc::new(Semaphore::new(limits.decode_concurrency)),
            limits,
        })
    }

    /// The pictures and videos of one request, in the order of `media`, fetched and decoded side by side.
    ///
    /// Fails as a whole with the first failure: [`Error::MediaFetch`] where a remote picture could not be had or its
    /// address was refused, [`Error::Overloaded`] where other requests' pictures have left too little memory, else
    /// [`Error::Invalid`]. Dropping the future ends its downloads and its decoders.
    pub async fn prepare(&self, media: &[Medium]) -> Result<Pictures, Error> {
        if media.is_empty() {
            return Ok(Pictures::default());
        }
        let (Some(preprocess), Some(videos)) = (&self.preprocess, &self.videos) else {
            return Err(Error::invalid(
                "this checkpoint reads text only: it has no vision tower, so leave the pictures and videos out",
            ));
        };
        let (sources, clips) = apart(media);
        if sources.len() > self.limits.max_images {
            return Err(Error::invalid(format!(
                "the request has {} pictures, more than the {} that this server takes \
                 (--max-images, SARDINE_MAX_IMAGES)",
                sources.len(),
                self.limits.max_images
            )));
        }
        if clips.len() > self.limits.max_videos {
            return Err(Error::invalid(format!(
                "the request has {} videos, more than the {} that this server takes (--max-videos, SARDINE_MAX_VIDEOS)",
                clips.len(),
                self.limits.max_videos
            )));
        }
        let share = Arc::new(self.memory.share(Budget::of(&self.limits)));
        let pictures = sources.iter().enumerate().map(|(index, source)| {
            let (share, num_pictures) = (share.clone(), sources.len());
            async move {
                let picture = self.picture(source, preprocess, share).await;
                picture.map_err(|error| name_file(error, Kind::Picture, index, num_pictures))
            }
        });
        let clips = clips.iter().enumerate().map(|(index, video)| {
            let (share, num_videos) = (share.clone(), clips.len());
            async move {
                let clip = self.clip(videos, video, share).await;
                clip.map_err(|error| name_file(error, Kind::Video, index, num_videos))
            }
        });
        let (pictures, clips) = try_join(try_join_all(pictures), try_join_all(clips)).await?;
        let (pictures, mut times): (Vec<_>, Vec<_>) =
            pictures.into_iter().map(|(picture, times)| (Arc::new(picture), times)).unzip();
        let (clips, times_of_clips): (Vec<_>, Vec<_>) = clips.into_iter().unzip();
        times.extend(times_of_clips);
        Ok(Pictures { visuals: Visuals { pictures, clips }, times, share: Some(share) })
    }

    /// Bytes of the pictures that requests hold.
    pub fn held_bytes(&self) -> u64 {
        self.memory.taken()
    }

    async fn picture(
        &self,
        source: &Source,
        preprocess: &Arc<Preprocess>,
        share: Arc<Share>,
    ) -> Result<(Picture, Times), Error> {
        let (area, preprocess, its_share) = (source.area(), preprocess.clone(), share.clone());
        preprocess.check_area(area)?;
        self.pixels(source, &share, move |picture| resize_and_cut(picture, area, &preprocess, &its_share)).await
    }

    /// A picture fetched and decoded, and then what `prepare` makes of it on the thread that decoded it.
    async fn pixels<T: Send + 'static>(
        &self,
        source: &Source,
        share: &Arc<Share>,
        prepare: impl FnOnce(Rgb) -> Result<T, Error> + Send + 'static,
    ) -> Result<(T, Times), Error> {
        let begun = Instant::now();
        let mut fetch = None;
        let encoded = match source::locate(source, Kind::Picture)? {
            Located::Remote(url) => {
                let file = self.fetch(url, Kind::Picture).await?;
                fetch = Some(begun.elapsed());
                Encoded::File(file)
            }
            Located::Base64(text) => Encoded::Base64(text.to_owned()),
            Located::File(bytes) => Encoded::File(bytes.clone()),
        };
        let permit = self.decodes.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (limits, share) = (self.limits.clone(), share.clone());
        let decode_timeout = limits.decode_timeout;
        let prepared = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let begun = Instant::now();
            let picture = decode(encoded, &limits, &share)?;
            let decode = begun.elapsed();
            let prepared = prepare(picture)?;
            Ok((prepared, Times { fetch, decode, prepare: begun.elapsed().saturating_sub(decode) }))
        });
        // Decoders look at the clock themselves; this is for one that does not, whose thread then counts until it ends.
        let grace = decode_timeout * 2 + Duration::from_secs(1);
        match tokio::time::timeout(grace, prepared).await {
            Ok(prepared) => prepared.unwrap_or_else(|_panic| {
                Err(Error::invalid(
                    "the picture's file is malformed in a way that its decoder cannot handle; \
                     save it anew, for example as PNG",
                ))
            }),
            Err(_) => Err(decode::too_slow(decode_timeout)),
        }
    }

    async fn fetch(&self, url: url::Url, kind: Kind) -> Result<Bytes, Error> {
        let Some(fetcher) = &self.fetcher else {
            let noun = kind.noun();
            return Err(Error::MediaFetch(format!(
                "this server does not fetch remote {noun}s (--allow-remote-images, SARDINE_ALLOW_REMOTE_IMAGES); \
                 send the {noun} itself as a data: URL or as base64"
            )));
        };
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        fetcher.fetch(url, kind).await
    }
}

/// A picture's file as it came, owned so that a blocking thread can take it.
enum Encoded {
    Base64(String),
    File(Bytes),
}

/// The pictures and the videos among `media`.
fn apart(media: &[Medium]) -> (Vec<&Source>, Vec<&Video>) {
    let (mut sources, mut videos) = (Vec::new(), Vec::new());
    for medium in media {
        match medium {
            Medium::Picture(source) => sources.push(source),
            Medium::Video(video) => videos.push(video),
        }
    }
    (sources, videos)
}

/// How `checkpoint`, which has a vision tower, wants its videos prepared.
fn video_processor(checkpoint: &Checkpoint) -> Result<VideoProcessor, String> {
    let processor = VideoProcessor::load(checkpoint)?;
    let config = checkpoint.json("config.json")?.unwrap_or_default();
    processor
        .frames
        .check_tower(&config["vision_config"])
        .map_err(|error| format!("{}: videos: {error}", checkpoint.name()))?;
    Ok(processor)
}

/// Runs on a blocking thread.
fn decode(encoded: Encoded, limits: &MediaLimits, share: &Share) -> Result<Rgb, Error> {
    let file = match encoded {
        Encoded::Base64(text) => Bytes::from(source::decode_base64(&text, Kind::Picture, limits.max_image_bytes)?),
        Encoded::File(bytes) => bytes,
    };
    if file.len() > limits.max_image_bytes {
        return Err(Error::invalid(Kind::Picture.too_many_bytes(limits.max_image_bytes)));
    }
    share.take_file(file.len())?;
    let opened = decode::open(&file, limits.decode_bounds())?;
    share.take_decoded(opened.num_bytes())?;
    opened.decode()
}

/// Runs on a blocking thread.
fn resize_and_cut(picture: Rgb, area: Area, preprocess: &Preprocess, share: &Share) -> Result<Picture, Error> {
    let (height, width) = preprocess.target_size(picture.height, picture.width, area)?;
    let grid = preprocess.grid(height, width);
    share.take(grid.num_tokens())?;
    let resized = resize::resize(picture, height, width);
    Ok(Picture::new(patches::patches(&resized, preprocess), grid))
}

/// Says which of several pictures or videos an error is about.
fn name_file(error: Error, kind: Kind, index: usize, num_files: usize) -> Error {
    if num_files == 1 {
        return error;
    }
    let name = |message: String| format!("{} {} of {num_files}: {message}", kind.noun(), index + 1);
    match error {
        Error::Invalid { message, param } => Error::Invalid { message: name(message), param },
        Error::MediaFetch(message) => Error::MediaFetch(name(message)),
        other => other,
    }
}
