//! Downloads a checkpoint from the hub into the Hugging Face cache layout.

use std::path::PathBuf;

use super::Checkpoint;

/// How to reach the hub.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Where the hub answers (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Never logged.
    pub token: Option<String>,
    /// A branch, tag or commit.
    pub revision: String,
    /// The folder that holds `models--org--name` (`HF_HUB_CACHE`).
    pub cache: PathBuf,
}

impl Checkpoint {
    /// The checkpoint `id` (`org/name`) of the hub: downloaded where the cache lacks it, resumed where a download broke off.
    pub async fn from_hub(_id: &str, _settings: &HubSettings) -> Result<Checkpoint, String> {
        todo!("helper D")
    }
}
