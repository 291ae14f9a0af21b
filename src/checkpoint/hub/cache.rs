//! One repository in the Hugging Face cache: `blobs`, the `snapshots` that link to them, and the `refs` that name
//! snapshots.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::repository::Repository;

/// The layout that huggingface_hub reads and writes, so that both share their downloads.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
    revision: String,
}

impl Cache {
    pub(super) fn new(cache: &Path, repository: &Repository) -> Cache {
        let folder = repository.folder();
        Cache {
            locks: cache.join(".locks").join(&folder),
            folder: cache.join(folder),
            revision: repository.revision.clone(),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Where a blob grows until it is whole.
    pub(super) fn incomplete_blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The folder that the revision last led to, if all of a checkpoint is in it.
    pub(super) fn last_complete_snapshot(&self) -> Result<Option<PathBuf>, String> {
        let path = self.ref_path();
        let commit = match fs::read_to_string(&path) {
            Ok(commit) => commit.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.revision.clone(),
            Err(error) => return Err(explain(&path, &error)),
        };
        let folder = self.snapshot(&commit);
        Ok(is_complete(&folder).then_some(folder))
    }

    pub(super) fn has_file(&self, commit: &str, file: &str) -> bool {
        // `exists` follows the link: one whose blob was deleted does not count.
        self.snapshot(commit).join(file).exists()
    }

    /// Makes the folders that a download writes to.
    pub(super) fn prepare(&self, commit: &str) -> Result<(), String> {
        for folder in [self.folder.join("blobs"), self.snapshot(commit), self.locks.clone()] {
            fs::create_dir_all(&folder).map_err(|error| explain(&folder, &error))?;
        }
        Ok(())
    }

    /// Links a snapshot's file to its blob, by a relative path so that the cache can be moved.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), String> {
        let link = self.snapshot(commit).join(file);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(&link, &error)),
            _ => {}
        }
        let blob = Path::new("../../blobs").join(etag);
        match std::os::unix::fs::symlink(blob, &link) {
            // Another process was faster.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(explain(&link, &error)),
            _ => Ok(()),
        }
    }

    /// Notes which commit the branch or tag leads to.
    pub(super) fn write_ref(&self, commit: &str) -> Result<(), String> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.ref_path();
        if fs::read_to_string(&path).is_ok_and(|old| old.trim() == commit) {
            return Ok(()); // also where the cache is read-only
        }
        let folder = path.parent().expect("a ref is in a folder");
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, commit)).map_err(|error| explain(&path, &error))
    }

    /// Waits until no other process downloads this blob. Dropping the file unlocks it.
    pub(super) async fn lock(&self, etag: &str, file: &str) -> Result<File, String> {
        const POLL: Duration = Duration::from_millis(500);
        let path = self.locks.join(format!("{etag}.lock"));
        let lock = File::create(&path).map_err(|error| explain(&path, &error))?;
        let mut told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        tracing::info!("{file}: waiting for another process that is downloading it");
                        told = true;
                    }
                    tokio::time::sleep(POLL).await;
                }
                Err(TryLockError::Error(error)) => {
                    // Some network file systems have no locks. Two downloads at once are then possible, and found by
                    // the checksum.
                    tracing::warn!("{}: cannot be locked ({error}); downloading without a lock", path.display());
                    return Ok(lock);
                }
            }
        }
    }

    fn ref_path(&self) -> PathBuf {
        self.folder.join("refs").join(&self.revision)
    }
}

/// Whether a snapshot has a config and all the weights that its index names.
fn is_complete(snapshot: &Path) -> bool {
    let has = |file: &str| snapshot.join(file).exists();
    let Ok(index) = fs::read(snapshot.join("model.safetensors.index.json")) else {
        return has("config.json") && has("model.safetensors");
    };
    let index: Value = serde_json::from_slice(&index).unwrap_or_default();
    let shards = index["weight_map"].as_object().map(|map| map.values().filter_map(Value::as_str));
    has("config.json") && shards.is_some_and(|mut shards| shards.all(has))
}

/// A failure to read or write the cache, with what to do about it.
pub(super) fn explain(path: &Path, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, or point HF_HUB_CACHE to a larger disk: the download goes on where it stopped"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; point HF_HUB_CACHE to a folder that this user may write to"
        }
        _ => "",
    };
    format!("{}: {error}{remedy}", path.display())
}
