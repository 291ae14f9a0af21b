//! The fixtures that `make_fixtures.py` writes with Transformers, and the checkpoints that they belong to.

use std::path::PathBuf;

use sardine::chat::{Chat, Conversation, Ending, SpecialText};
use sardine::checkpoint::Checkpoint;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
pub struct Fixtures {
    pub rendered: Vec<Rendered>,
    pub pictures: Vec<WithPictures>,
    pub videos: Vec<WithVideos>,
    pub texts: Vec<Text>,
}

/// What a conversation renders to (or its digest), or why it is refused.
#[derive(Deserialize)]
pub struct Rendered {
    pub name: String,
    pub conversation: Written,
    pub text: Option<String>,
    pub ids: Option<Value>,
    /// Present where it is refused; null where Transformers' own words are not for clients.
    pub error: Option<String>,
}

#[derive(Deserialize)]
pub struct WithPictures {
    pub name: String,
    pub conversation: Written,
    pub grids: Vec<(usize, usize)>,
    pub ids: Value,
    pub positions: Value,
    pub rope_delta: i64,
}

/// (groups, rows, columns), indices of frames, and frames per second.
pub type WrittenClip = ((usize, usize, usize), Vec<usize>, f64);

/// A conversation with videos, and its prompt, with the
/// frames inside the template's own start and end, and instead of them.
#[derive(Deserialize)]
pub struct WithVideos {
    pub name: String,
    pub conversation: Written,
    pub grids: Vec<(usize, usize)>,
    pub clips: Vec<WrittenClip>,
    pub inside: Prompted,
    pub instead: Prompted,
}

#[derive(Deserialize)]
pub struct Prompted {
    pub ids: Value,
    pub positions: Value,
    pub rope_delta: i64,
}

#[derive(Deserialize)]
pub struct Text {
    pub text: String,
    pub ids: Vec<u32>,
    pub decoded: String,
    pub decoded_without_special: String,
}

#[derive(Deserialize)]
pub struct Written {
    messages: Vec<Value>,
    tools: Vec<Value>,
    ending: String,
    variables: Map<String, Value>,
}

impl Written {
    pub fn conversation(&self) -> Conversation {
        let ending = match self.ending.as_str() {
            "generation_prompt" => Ending::GenerationPrompt,
            "continue" => Ending::Continue,
            "nothing" => Ending::Nothing,
            other => panic!("unknown ending {other}"),
        };
        Conversation {
            messages: self.messages.clone(),
            tools: self.tools.clone(),
            template_variables: self.variables.clone(),
            ending,
        }
    }
}

/// fry and its fixtures.
pub fn fry(special_text: SpecialText) -> (Chat, Fixtures) {
    let folder = manifest().join("fry");
    (load(folder, special_text), serde_json::from_str(include_str!("fixtures/fry.json")).unwrap())
}

/// The template and the tokenizer of the real family and their digests; `None`, with a word, where their files are
/// not there.
pub fn real(special_text: SpecialText) -> Option<(Chat, Fixtures)> {
    let shared = std::env::var_os("SARDINE_SHARED").map_or_else(|| manifest().join("../shared"), PathBuf::from);
    let folder = shared.join("oracle/assets/qwen35");
    if !folder.is_dir() {
        eprintln!("skipped: there is no {}; SARDINE_SHARED says where else to look", folder.display());
        return None;
    }
    Some((load(folder, special_text), serde_json::from_str(include_str!("fixtures/real.json")).unwrap()))
}

fn load(folder: PathBuf, special_text: SpecialText) -> Chat {
    let checkpoint = Checkpoint::in_folder(&folder).unwrap();
    Chat::load(&checkpoint, special_text).unwrap()
}

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
