//! One file from the hub to the cache: resumed, verified, and put in place only when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::cache::{Cache, explain};
use super::client::{FileInfo, Hub};
use super::progress::Share;
use super::retries::{Problem, Retries};

/// A file of a commit, to be had in the cache.
pub(super) struct Download<'a> {
    pub hub: &'a Hub,
    pub cache: &'a Cache,
    pub commit: &'a str,
    pub file: String,
    pub progress: Share<'a>,
}

impl Download<'_> {
    /// Downloads the file, trying again where the trouble may pass.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let mut retries = Retries::new();
        let mut largest = 0;
        loop {
            match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(Failure { problem: Problem::Lasting(problem), .. }) => return Err(problem),
                Err(Failure { problem: Problem::Passing(problem), length }) => {
                    if length > largest {
                        // A line that breaks now and then but brings bytes each time gets there.
                        (largest, retries) = (length, Retries::new());
                    }
                    if !retries.wait(&problem).await {
                        return Err(problem);
                    }
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let info = self.hub.file_info(self.commit, &self.file).await?;
        let _lock = self.cache.lock(&info.etag, &self.file).await.map_err(Problem::Lasting)?;
        let blob = self.cache.blob(&info.etag);
        if !blob.exists() {
            let partial = self.fill(&info).await?;
            self.verify(&info, partial)?;
            fs::rename(self.cache.incomplete_blob(&info.etag), &blob)
                .map_err(|error| Problem::Lasting(explain(&blob, &error)))?;
        }
        self.cache.link(self.commit, &self.file, &info.etag).map_err(|problem| Problem::Lasting(problem).into())
    }

    /// Appends to the partial file until it has all bytes.
    async fn fill(&mut self, info: &FileInfo) -> Result<Partial, Failure> {
        let mut partial = Partial::open(self.cache.incomplete_blob(&info.etag)).await.map_err(Problem::Lasting)?;
        if info.size.is_some_and(|size| partial.length > size) {
            partial.restart().map_err(Problem::Lasting)?;
        }
        self.progress.set(partial.length);
        if info.size != Some(partial.length)
            && let Err(problem) = self.append(info, &mut partial).await
        {
            return Err(Failure { problem, length: partial.length });
        }
        Ok(partial)
    }

    async fn append(&mut self, info: &FileInfo, partial: &mut Partial) -> Result<(), Problem> {
        let mut body = self.hub.open(info, partial.length).await?;
        if body.offset == 0 && partial.length > 0 {
            partial.restart().map_err(Problem::Lasting)?;
            self.progress.set(0);
        }
        while let Some(chunk) = body.response.chunk().await.map_err(|error| self.hub.broken(&error))? {
            partial.append(&chunk).map_err(Problem::Lasting)?;
            self.progress.set(partial.length);
        }
        Ok(())
    }

    /// Compares length and hash with what the hub announced. Bytes that differ are thrown away, so that the next try
    /// starts afresh.
    fn verify(&self, info: &FileInfo, partial: Partial) -> Result<(), Problem> {
        let (name, file) = (self.hub.name(), &self.file);
        let length = partial.length;
        if let Some(size) = info.size
            && length < size
        {
            return Err(Problem::Passing(format!("{name}: {file} ended after {length} of {size} bytes")));
        }
        let sha256: String = partial.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let differs = info.size.is_some_and(|size| length != size)
            || info.sha256().is_some_and(|expected| !expected.eq_ignore_ascii_case(&sha256));
        if !differs {
            return Ok(());
        }
        fs::remove_file(&partial.path).map_err(|error| Problem::Lasting(explain(&partial.path, &error)))?;
        if partial.resumed {
            return Err(Problem::Passing(format!("{name}: {file} does not go on where its first part ended")));
        }
        Err(Problem::Lasting(format!(
            "{name}: {file} arrived with {length} bytes and the sha256 {sha256}; the hub announced {}: \
             the file was damaged on its way and was deleted",
            info.etag
        )))
    }
}

/// A failed attempt, and the bytes that were there by then.
struct Failure {
    problem: Problem,
    length: u64,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure { problem, length: 0 }
    }
}

/// A blob that is still growing, with the hash of what is there.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Sha256,
    /// Whether some bytes are from an earlier attempt.
    resumed: bool,
}

impl Partial {
    /// Opens what an earlier attempt left, and hashes it off the async threads: it may be gigabytes.
    async fn open(path: PathBuf) -> Result<Partial, String> {
        let opened = tokio::task::spawn_blocking(move || {
            let result = Partial::read(&path);
            result.map_err(|error| explain(&path, &error))
        });
        opened.await.map_err(|error| error.to_string())?
    }

    fn read(path: &PathBuf) -> io::Result<Partial> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut hash = Sha256::new();
        let mut length = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Ok(Partial { path: path.clone(), file, length, hash, resumed: length > 0 });
            }
            hash.update(&buffer[..count]);
            length += count as u64;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.file.write_all(bytes).map_err(|error| explain(&self.path, &error))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        self.file.set_len(0).map_err(|error| explain(&self.path, &error))?;
        self.hash = Sha256::new();
        self.length = 0;
        self.resumed = false;
        Ok(())
    }
}
