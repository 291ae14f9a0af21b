//! Where a checkpoint's files come from: a folder, the hub, or the binary itself.

mod embedded;
mod hub;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Mmap, UncheckedAdvice};

pub use hub::{Files, HubSettings};

/// The files of one checkpoint in Hugging Face layout.
#[derive(Debug, Clone)]
pub enum Checkpoint {
    Folder(PathBuf),
    /// fry, the trained miniature inside the binary.
    Embedded,
}

/// The bytes of a file, without a copy: mapped from disk or part of the binary.
#[derive(Debug, Clone)]
pub enum Bytes {
    Mapped(Arc<Mmap>),
    Static(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Gives back the memory that a part of a mapped file takes in this process. Whoever reads it again reads the file again.
    pub fn forget(&self, part: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            // Safety: the map is a file's and read-only, so there is nothing to lose. Refusing is no harm either.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, part.start, part.len()) };
        }
    }
}

impl Checkpoint {
    /// The checkpoint in `folder`. Errors where there is no config.json.
    pub fn in_folder(folder: &Path) -> Result<Checkpoint, String> {
        if !folder.is_dir() {
            return Err(format!("model {}: there is no such folder", folder.display()));
        }
        if !folder.join("config.json").is_file() {
            return Err(format!("model {}: it holds no config.json, so it is not a checkpoint", folder.display()));
        }
        Ok(Checkpoint::Folder(folder.to_owned()))
    }

    /// What to call it in logs and errors.
    pub fn name(&self) -> String {
        match self {
            Checkpoint::Folder(folder) => folder.display().to_string(),
            Checkpoint::Embedded => "fry (embedded)".to_owned(),
        }
    }

    /// A file's text, or `None` where the checkpoint has no such file.
    pub fn text(&self, file: &str) -> Result<Option<String>, String> {
        match self {
            Checkpoint::Folder(folder) => match std::fs::read_to_string(folder.join(file)) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{}: {error}", folder.join(file).display())),
            },
            Checkpoint::Embedded => match embedded::file(file) {
                None => Ok(None),
                Some(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Some(text.to_owned())),
                    Err(error) => Err(format!("{file}: {error}")),
                },
            },
        }
    }

    /// A JSON file, or `None` where the checkpoint has no such file.
    pub fn json(&self, file: &str) -> Result<Option<serde_json::Value>, String> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| format!("{}: {file}: {error}", self.name()))
    }

    /// A file's bytes, mapped rather than read. Errors where there is no such file.
    pub fn map(&self, file: &str) -> Result<Bytes, String> {
        match self {
            Checkpoint::Folder(folder) => {
                let path = folder.join(file);
                let name = |error: std::io::Error| format!("{}: {error}", path.display());
                let opened = std::fs::File::open(&path).map_err(name)?;
                // Safety: a checkpoint is not written to while it is served; a file cut short under the map would be a SIGBUS.
                let map = unsafe { Mmap::map(&opened) }.map_err(name)?;
                // What is read into the page cache from now on comes in huge pages, where the file system keeps such.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::HugePage);
                Ok(Bytes::Mapped(Arc::new(map)))
            }
            Checkpoint::Embedded => {
                embedded::file(file).map(Bytes::Static).ok_or_else(|| format!("fry (embedded): there is no {file}"))
            }
        }
    }
}
