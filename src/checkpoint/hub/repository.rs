//! Names on the hub, and which of a repository's files a checkpoint needs. Names become paths, so they are checked
//! here.

use serde::Deserialize;

/// A repository at a revision, both safe to use in a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Repository {
    /// `org/name`
    pub id: String,
    pub revision: String,
}

impl Repository {
    pub(super) fn new(id: &str, revision: &str) -> Result<Repository, String> {
        let parts: Vec<&str> = id.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_name(part)) {
            return Err(format!(
                "model {id:?}: expected the id of a repository on the hub, org/name, \
                 made of letters, digits, '-', '_' and '.'"
            ));
        }
        if !revision.split('/').all(is_name) {
            return Err(format!("revision {revision:?} of {id}: expected a branch, a tag or a commit"));
        }
        Ok(Repository { id: id.to_owned(), revision: revision.to_owned() })
    }

    /// Whether the revision is a commit's full hash, whose content never changes.
    pub(super) fn is_at_a_commit(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The repository's folder in the cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }
}

/// What the hub says a revision holds.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(rename = "sha")]
    pub commit: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
}

/// A file that a checkpoint needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NeededFile {
    pub name: String,
    /// In bytes, as far as the hub tells.
    pub size: Option<u64>,
}

impl Listing {
    /// The files that are read when a checkpoint is served. Errors where a name would lead out of the cache, or no
    /// weights are there.
    pub(super) fn needed_files(&self) -> Result<Vec<NeededFile>, String> {
        if !is_commit(&self.commit) {
            return Err(format!("the hub names the commit {:?}; expected 40 hexadecimal digits", self.commit));
        }
        let names = || self.siblings.iter().map(|sibling| sibling.name.as_str());
        if let Some(name) = names().find(|name| escapes(name)) {
            return Err(format!(
                "the hub lists the file {name:?}, which would lead out of the cache; the repository is refused"
            ));
        }
        if !names().any(|name| name == "config.json") || !names().any(|name| name.ends_with(".safetensors")) {
            return Err("the repository holds no config.json or no *.safetensors, so it is not a checkpoint to serve"
                .to_owned());
        }
        let needed = self.siblings.iter().filter(|sibling| is_needed(&sibling.name));
        Ok(needed.map(|sibling| NeededFile { name: sibling.name.clone(), size: sibling.size }).collect())
    }
}

/// Whether a file at the top of a repository belongs to a checkpoint. Code and pickled weights never do.
fn is_needed(name: &str) -> bool {
    const EXACT: [&str; 8] = [
        "config.json",
        "generation_config.json",
        "processor_config.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "special_tokens_map.json",
        "added_tokens.json",
    ];
    let is_tokenizer = name.starts_with("tokenizer") && name.ends_with(".json");
    let by_suffix = ["preprocessor_config.json", ".safetensors", ".safetensors.index.json"];
    is_name(name) && (EXACT.contains(&name) || is_tokenizer || by_suffix.iter().any(|suffix| name.ends_with(suffix)))
}

/// Whether a path would lead out of the folder that it is joined to.
fn escapes(path: &str) -> bool {
    path.contains(['\\', '\0']) || path.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// Whether a text is a plain name: usable as one part of a path or URL as it is.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 200 && text.bytes().all(allowed) && !text.bytes().all(|byte| byte == b'.')
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> Listing {
        let siblings = files.iter().map(|name| Sibling { name: (*name).to_owned(), size: None }).collect();
        Listing { commit: "0123456789abcdef0123456789abcdef01234567".to_owned(), siblings }
    }

    #[test]
    fn ids_and_revisions_that_are_no_names_are_refused() {
        for id in [
            "",
            "name",
            "/name",
            "org/",
            "a/b/c",
            "../name",
            "org/..",
            "org/na me",
            "org/name?x",
            "org\\name",
            "https://hub/org/name",
        ] {
            assert!(Repository::new(id, "main").is_err(), "{id}");
        }
        for revision in ["", "..", "../../x", "/main", "main/", "a//b", "main?x"] {
            assert!(Repository::new("org/name", revision).is_err(), "{revision}");
        }
        assert!(Repository::new("Qwen/Qwen3.5-4B", "refs/pr/1").is_ok());
    }

    #[test]
    fn only_what_a_checkpoint_needs_is_chosen() {
        let needed = [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
            "chat_template.jinja",
            "generation_config.json",
            "preprocessor_config.json",
            "video_preprocessor_config.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors-00002-of-00002.safetensors",
        ];
        let others = [
            "modeling_qwen.py",
            "tokenizer_custom.py",
            "pytorch_model.bin",
            "model.pt",
            "README.md",
            ".gitattributes",
            "onnx/model.onnx",
            "sub/model.safetensors",
        ];
        let chosen = listing(&[needed.as_slice(), &others].concat()).needed_files().unwrap();
        assert_eq!(chosen.into_iter().map(|file| file.name).collect::<Vec<String>>(), needed);
    }

    #[test]
    fn a_listing_that_would_escape_the_folder_is_refused() {
        for name in ["../config.json", "/etc/config.json", "a/../../config.json", "..\\config.json", "a//config.json"] {
            let message = listing(&["config.json", "model.safetensors", name]).needed_files().unwrap_err();
            assert!(message.contains("out of the cache"), "{name}: {message}");
        }
    }

    #[test]
    fn a_repository_without_weights_is_no_checkpoint() {
        assert!(listing(&["config.json", "pytorch_model.bin"]).needed_files().is_err());
    }
}
