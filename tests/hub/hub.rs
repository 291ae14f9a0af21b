//! A repository on a hub with its large files on another host, and a cache to download it to.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sardine::checkpoint::{Checkpoint, HubSettings};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::server::{Reply, Request, Server};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const WEIGHTS: &str = "model.safetensors";
pub const TOKEN: &str = "hf_secret";

/// How the servers misbehave; nothing by default.
#[derive(Default)]
pub struct Misbehaviour {
    /// Statuses that the next requests to the hub are answered with.
    pub statuses: VecDeque<u16>,
    /// After how many bytes the next downloads break off.
    pub cuts: VecDeque<usize>,
    /// The storage sends other bytes than the hub announced.
    pub corrupt: bool,
    /// A file is replaced between its HEAD and its GET, so that a part of it is not what is wanted any more.
    pub changed: bool,
    /// Replaces the ETag of every file.
    pub etag: Option<String>,
    /// One more file in the list.
    pub extra_file: Option<String>,
}

pub struct FakeHub {
    pub hub: Server,
    pub storage: Server,
    pub misbehaviour: Arc<Mutex<Misbehaviour>>,
    pub cache: TempDir,
}

/// The content of a file of the repository.
pub fn content(name: &str) -> Option<Vec<u8>> {
    match name {
        "config.json" => Some(br#"{"model_type": "qwen3_5"}"#.to_vec()),
        "tokenizer.json" => Some(br#"{"model": {}}"#.repeat(1000)),
        WEIGHTS => Some((0..300_000_u32).map(|i| ((i * 31) >> 3) as u8).collect()),
        "modeling_qwen.py" | "README.md" => Some(b"not needed".to_vec()),
        _ => None,
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a file's blob: the sha256 of a large file; for a small one any name that depends on its content.
pub fn etag(name: &str) -> String {
    let hash = sha256(&content(name).unwrap());
    if name == WEIGHTS { hash } else { hash[..40].to_owned() }
}

impl FakeHub {
    pub async fn start() -> FakeHub {
        let misbehaviour = Arc::new(Mutex::new(Misbehaviour::default()));
        let shared = misbehaviour.clone();
        let storage = Server::start(move |request| answer_storage(request, &mut shared.lock().unwrap())).await;
        let (shared, storage_url) = (misbehaviour.clone(), storage.url());
        let hub = Server::start(move |request| answer_hub(request, &storage_url, &mut shared.lock().unwrap())).await;
        FakeHub { hub, storage, misbehaviour, cache: tempfile::tempdir().unwrap() }
    }

    pub fn misbehave(&self, how: impl FnOnce(&mut Misbehaviour)) {
        how(&mut self.misbehaviour.lock().unwrap());
    }

    pub fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.hub.url(),
            token: Some(TOKEN.to_owned()),
            revision: "main".to_owned(),
            cache: self.cache.path().to_owned(),
        }
    }

    pub async fn download(&self) -> Result<Checkpoint, String> {
        Checkpoint::from_hub("org/name", &self.settings()).await
    }

    pub fn folder(&self) -> PathBuf {
        self.cache.path().join("models--org--name")
    }

    pub fn blob(&self, name: &str) -> PathBuf {
        self.folder().join("blobs").join(etag(name))
    }

    /// Leaves a part of a file, as a download that broke off does.
    pub fn leave_part(&self, name: &str, part: &[u8]) {
        let path = self.incomplete(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, part).unwrap();
    }

    pub fn incomplete(&self, name: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.incomplete", etag(name)))
    }

    /// GETs of a file's content, wherever it is served.
    pub fn gets(&self, name: &str) -> Vec<Request> {
        let all = [self.hub.requests(), self.storage.requests()].concat();
        all.into_iter().filter(|request| request.method == "GET" && request.path.ends_with(name)).collect()
    }
}

/// Asserts that a checkpoint's files are those of the repository.
pub fn assert_whole(checkpoint: &Checkpoint) {
    for name in ["config.json", "tokenizer.json", WEIGHTS] {
        assert_eq!(checkpoint.map(name).unwrap().to_vec(), content(name).unwrap(), "{name}");
    }
}

pub fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn answer_hub(request: &Request, storage: &str, misbehaviour: &mut Misbehaviour) -> Reply {
    if let Some(status) = misbehaviour.statuses.pop_front() {
        return Reply::new(status, "");
    }
    if request.path == "/api/models/org/name/revision/main?blobs=true" {
        let mut names = vec!["config.json", "tokenizer.json", WEIGHTS, "modeling_qwen.py", "README.md"];
        names.extend(misbehaviour.extra_file.as_deref());
        let siblings: Vec<_> = names
            .into_iter()
            .map(|name| json!({"rfilename": name, "size": content(name).map(|bytes| bytes.len())}))
            .collect();
        return Reply::new(200, json!({"id": "org/name", "sha": COMMIT, "siblings": siblings}).to_string());
    }
    let name = request.path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/"));
    let Some((name, bytes)) = name.and_then(|name| Some((name, content(name)?))) else {
        return Reply::new(404, "");
    };
    let quoted = format!("\"{}\"", misbehaviour.etag.clone().unwrap_or_else(|| etag(name)));
    if name == WEIGHTS {
        return Reply::new(302, "")
            .with("location", format!("{storage}/objects/{name}"))
            .with("x-linked-etag", quoted)
            .with("x-linked-size", bytes.len().to_string());
    }
    let if_range_holds = !misbehaviour.changed && request.headers.get("if-range").is_none_or(|etag| *etag == quoted);
    part(request, &bytes, if_range_holds).with("etag", quoted)
}

fn answer_storage(request: &Request, misbehaviour: &mut Misbehaviour) -> Reply {
    let mut bytes = content(request.path.trim_start_matches("/objects/")).unwrap();
    if misbehaviour.corrupt {
        bytes[1000] ^= 1;
    }
    let mut reply = part(request, &bytes, true).with("etag", "\"the storage's own\"");
    reply.cut_after = misbehaviour.cuts.pop_front();
    reply
}

/// The whole body, or the part that the request asks for.
fn part(request: &Request, bytes: &[u8], may_be_part: bool) -> Reply {
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    match range.and_then(|range| range.strip_suffix('-')).filter(|_| may_be_part) {
        Some(start) => {
            let start: usize = start.parse().unwrap();
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[start..]).with("content-range", range)
        }
        None => Reply::new(200, bytes),
    }
}
