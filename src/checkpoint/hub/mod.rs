//! Downloads a checkpoint from the hub into the Hugging Face cache layout.

mod cache;
mod client;
mod download;
mod progress;
mod repository;
mod retries;

use std::fmt;
use std::path::PathBuf;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Checkpoint;
use crate::startup::Startup;
use cache::Cache;
use client::Hub;
use download::Download;
use progress::Whole;
use repository::{NeededFile, Repository};
use retries::Problem;

/// How to reach the hub.
#[derive(Clone)]
pub struct HubSettings {
    /// Where the hub answers (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Sent to the endpoint's host alone, never logged (`HF_TOKEN`).
    pub token: Option<String>,
    /// A branch, tag or commit.
    pub revision: String,
    /// The folder that holds `models--org--name` (`HF_HUB_CACHE`).
    pub cache: PathBuf,
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "(set)"))
            .field("revision", &self.revision)
            .field("cache", &self.cache)
            .finish()
    }
}

/// Which of a checkpoint's files are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    All,
    /// What describes the model: kilobytes where the weights are gigabytes.
    AllButWeights,
}

impl Files {
    fn include(self, file: &NeededFile) -> bool {
        self == Files::All || !file.name.ends_with(".safetensors")
    }
}

impl Checkpoint {
    /// The checkpoint `id` (`org/name`) of the hub: downloaded where the cache lacks it, resumed where a download broke
    /// off.
    ///
    /// Where the hub cannot be reached, the revision's last complete download is taken, with a warning. A commit that
    /// is complete in the cache needs no network. Nothing executable is downloaded. Errors are one line for whoever
    /// deploys.
    pub async fn from_hub(id: &str, settings: &HubSettings) -> Result<Checkpoint, String> {
        Checkpoint::from_hub_with(Files::All, id, settings, &Startup::new()).await
    }

    /// [`Checkpoint::from_hub`] with at least `wanted` files; `startup` is told how far a download is.
    pub async fn from_hub_with(
        wanted: Files,
        id: &str,
        settings: &HubSettings,
        startup: &Startup,
    ) -> Result<Checkpoint, String> {
        let repository = Repository::new(id, &settings.revision)?;
        let cache = Cache::new(&settings.cache, &repository);
        let cached = cache.last_complete_snapshot()?;
        if repository.is_at_a_commit()
            && let Some(folder) = &cached
        {
            return Checkpoint::in_folder(folder);
        }
        let hub = Hub::new(settings, &repository)?;
        let listing = match (hub.listing(cached.is_none()).await, cached) {
            (Ok(listing), _) => listing,
            (Err(Problem::Passing(problem)), Some(folder)) => {
                tracing::warn!("{problem}; serving the copy in {}, which may not be the newest", folder.display());
                return Checkpoint::in_folder(&folder);
            }
            (Err(problem), _) => return Err(problem.into_message()),
        };
        let mut files = listing.needed_files()?;
        files.retain(|file| wanted.include(file) && !cache.has_file(&listing.commit, &file.name));
        if !files.is_empty() {
            cache.prepare(&listing.commit)?;
            download_all(&hub, &cache, &listing.commit, files, startup).await?;
        }
        // Invariant: a ref is written after all its files, so that it never leads to half a checkpoint.
        if wanted == Files::All {
            cache.write_ref(&listing.commit)?;
        }
        Checkpoint::in_folder(&cache.snapshot(&listing.commit))
    }
}

async fn download_all(
    hub: &Hub,
    cache: &Cache,
    commit: &str,
    files: Vec<NeededFile>,
    startup: &Startup,
) -> Result<(), String> {
    /// One connection rarely fills a data centre's line.
    const AT_A_TIME: usize = 4;
    let progress = Whole::new(hub.id(), files.iter().filter_map(|file| file.size).sum(), startup);
    let downloads = files.into_iter().map(|file| {
        let download = Download { hub, cache, commit, file: file.name, progress: progress.share() };
        download.run()
    });
    stream::iter(downloads).buffer_unordered(AT_A_TIME).try_collect().await
}
