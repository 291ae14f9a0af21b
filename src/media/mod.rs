//! URL, base64 or bytes -> pixels -> patches: everything that fetches and decodes pictures.

mod address;
mod area;
pub mod decode;
mod fetch;
mod format;
mod limits;
mod memory;
pub mod patches;
pub mod preprocess;
pub mod resize;
mod rgb;
pub mod size;
mod source;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use crate::checkpoint::Checkpoint;
use crate::engine::Picture;
use crate::error::Error;
use fetch::Fetcher;
use memory::{Budget, PictureMemory, Share};
use preprocess::Preprocess;
use source::Located;

pub use area::Area;
pub use limits::MediaLimits;
pub use rgb::Rgb;

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

/// What a checkpoint's pictures cost; nothing where it has no vision tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PictureCosts {
    /// Tokens of the largest.
    pub largest: usize,
    /// Bytes that a prepared picture holds for each of its tokens.
    pub bytes_per_token: u64,
}

impl PictureCosts {
    /// Those of `checkpoint`'s pictures.
    pub fn load(checkpoint: &Checkpoint) -> Result<PictureCosts, String> {
        Ok(Preprocess::load(checkpoint)?.as_ref().map_or_else(PictureCosts::default, PictureCosts::of))
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

/// The prepared pictures of a request, in the order in which they were sent.
#[derive(Debug, Clone)]
pub struct Pictures {
    pictures: Vec<Arc<Picture>>,
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

impl Pictures {
    /// Their share of the memory for pictures. Whoever keeps pictures keeps it as well: it is given back when it is dropped.
    pub fn share(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.share.clone().map(|share| share as Arc<dyn Any + Send + Sync>)
    }

    /// The stages of each picture, and how long they took; waiting for another's picture is in none.
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
        &self.pictures
    }
}

/// Turns the pictures of requests into what the vision tower reads. One for the whole process.
pub struct Media {
    limits: MediaLimits,
    /// `None` where the checkpoint has no vision tower.
    preprocess: Option<Arc<Preprocess>>,
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
        let fetcher = if limits.allow_remote_images { Some(Fetcher::new(&limits)?) } else { None };
        let costs = preprocess.as_deref().map_or_else(PictureCosts::default, PictureCosts::of);
        Ok(Media {
            preprocess,
            fetcher,
            memory: PictureMemory::new(limits.picture_memory, costs.bytes_per_token),
            fetches: Semaphore::new(limits.fetch_concurrency),
            decodes: Arc::new(Semaphore::new(limits.decode_concurrency)),
            limits,
        })
    }

    /// The pictures of one request, in the order of `sources`, fetched and decoded side by side.
    ///
    /// Fails as a whole with the first failure: [`Error::MediaFetch`] where a remote picture could not be had or its
    /// address was refused, [`Error::Overloaded`] where other requests' pictures have left too little memory, else
    /// [`Error::Invalid`]. Dropping the future ends its downloads.
    pub async fn pictures(&self, sources: &[Source]) -> Result<Pictures, Error> {
        if sources.is_empty() {
            return Ok(Pictures { pictures: Vec::new(), times: Vec::new(), share: None });
        }
        let Some(preprocess) = &self.preprocess else {
            return Err(Error::invalid(
                "this checkpoint reads text only: it has no vision tower, so leave the pictures out",
            ));
        };
        if sources.len() > self.limits.max_images {
            return Err(Error::invalid(format!(
                "the request has {} pictures, more than the {} that this server takes \
                 (--max-images, SARDINE_MAX_IMAGES)",
                sources.len(),
                self.limits.max_images
            )));
        }
        let share = Arc::new(self.memory.share(Budget::of(&self.limits)));
        let pictures = sources.iter().enumerate().map(|(index, source)| {
            let share = share.clone();
            async move {
                let picture = self.picture(source, preprocess, share).await;
                picture.map_err(|error| name_picture(error, index, sources.len()))
            }
        });
        let pictures = try_join_all(pictures).await?.into_iter().map(|(picture, times)| (Arc::new(picture), times));
        let (pictures, times) = pictures.unzip();
        Ok(Pictures { pictures, times, share: Some(share) })
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
        let begun = Instant::now();
        let mut fetch = None;
        let area = source.area();
        preprocess.check_area(area)?;
        let encoded = match source::locate(source)? {
            Located::Remote(url) => {
                let file = self.fetch(url).await?;
                fetch = Some(begun.elapsed());
                Encoded::File(file)
            }
            Located::Base64(text) => Encoded::Base64(text.to_owned()),
            Located::File(bytes) => Encoded::File(bytes.clone()),
        };
        let permit = self.decodes.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (preprocess, limits) = (preprocess.clone(), self.limits.clone());
        let decode_timeout = limits.decode_timeout;
        let prepared = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            prepare(encoded, area, &preprocess, &limits, &share)
        });
        // Decoders look at the clock themselves; this is for one that does not, whose thread then counts until it ends.
        let grace = decode_timeout * 2 + Duration::from_secs(1);
        let prepared = match tokio::time::timeout(grace, prepared).await {
            Ok(prepared) => prepared.unwrap_or_else(|_panic| {
                Err(Error::invalid(
                    "the picture's file is malformed in a way that its decoder cannot handle; \
                     save it anew, for example as PNG",
                ))
            }),
            Err(_) => Err(decode::too_slow(decode_timeout)),
        };
        prepared.map(|(picture, times)| (picture, Times { fetch, ..times }))
    }

    async fn fetch(&self, url: url::Url) -> Result<Bytes, Error> {
        let Some(fetcher) = &self.fetcher else {
            return Err(Error::MediaFetch(
                "this server does not fetch remote pictures (--allow-remote-images, SARDINE_ALLOW_REMOTE_IMAGES); \
                 send the picture itself as a data: URL or as base64"
                    .to_owned(),
            ));
        };
        let _permit = self.fetches.acquire().await.expect("the semaphore is never closed");
        fetcher.fetch(url).await
    }
}

/// A picture's file as it came, owned so that a blocking thread can take it.
enum Encoded {
    Base64(String),
    File(Bytes),
}

/// The steps that cost CPU time, in order; runs on a blocking thread.
fn prepare(
    encoded: Encoded,
    area: Area,
    preprocess: &Preprocess,
    limits: &MediaLimits,
    share: &Share,
) -> Result<(Picture, Times), Error> {
    let begun = Instant::now();
    let file = match encoded {
        Encoded::Base64(text) => Bytes::from(source::decode_base64(&text, limits.max_image_bytes)?),
        Encoded::File(bytes) => bytes,
    };
    if file.len() > limits.max_image_bytes {
        return Err(Error::invalid(limits.too_many_bytes()));
    }
    share.take_file(file.len())?;
    let opened = decode::open(&file, limits.decode_bounds())?;
    share.take_decoded(opened.num_bytes())?;
    let picture = opened.decode()?;
    drop(file);
    let decode = begun.elapsed();
    let (height, width) = preprocess.target_size(picture.height, picture.width, area)?;
    let grid = preprocess.grid(height, width);
    share.take(grid.num_tokens())?;
    let resized = resize::resize(picture, height, width);
    let picture = Picture { patches: patches::patches(&resized, preprocess), grid };
    Ok((picture, Times { fetch: None, decode, prepare: begun.elapsed().saturating_sub(decode) }))
}

/// Says which of several pictures an error is about.
fn name_picture(error: Error, index: usize, num_pictures: usize) -> Error {
    if num_pictures == 1 {
        return error;
    }
    let name = |message: String| format!("picture {} of {num_pictures}: {message}", index + 1);
    match error {
        Error::Invalid { message, param } => Error::Invalid { message: name(message), param },
        Error::MediaFetch(message) => Error::MediaFetch(name(message)),
        other => other,
    }
}
