//! The invariants of the crate's map (src/lib.rs), checked on the source text.

use std::fs;
use std::path::{Path, PathBuf};

/// Packages and the only places that may use them.
const HOMES: &[(&str, &[&str])] = &[
    ("actix_web", &["http/"]),
    ("tch", &["model/"]),
    ("reqwest", &["media/", "checkpoint/", "bench/"]),
    ("tokenizers", &["chat/"]),
    ("minijinja", &["chat/"]),
    ("gif", &["media/"]),
    ("image", &["media/"]),
    ("mozjpeg", &["media/"]),
    ("rustix", &["media/"]),
    ("tiff", &["media/"]),
    ("safetensors", &["model/"]),
    ("memmap2", &["checkpoint/"]),
    ("clap", &["settings/", "telemetry/"]),
    ("metrics_exporter_prometheus", &["telemetry/"]),
    ("opentelemetry", &["telemetry/"]),
    ("opentelemetry_otlp", &["telemetry/"]),
    ("opentelemetry_sdk", &["telemetry/"]),
    ("actix_cors", &["http/"]),
    ("actix_multipart", &["http/"]),
    ("libloading", &["model/"]),
    ("rayon", &["model/"]),
];

/// Layers and the parts of the crate that they may use; whatever is not listed may use nothing but itself and `error`.
const LAYERS: &[(&str, &[&str])] = &[
    ("http", &["generation", "chat", "engine", "media", "startup", "telemetry"]),
    ("bench", &["generation", "engine", "media", "model"]),
    ("generation", &["chat", "media", "engine", "startup", "telemetry"]),
    ("chat", &["engine", "checkpoint"]),
    ("media", &["engine", "checkpoint"]),
    ("model", &["engine", "checkpoint"]),
    ("engine", &[]),
    ("checkpoint", &["progress", "startup"]),
    ("progress", &["startup"]),
    (
        "start",
        &["settings", "checkpoint", "chat", "media", "engine", "model", "generation", "http", "progress", "startup"],
    ),
    ("settings", &["bench", "checkpoint", "model", "chat", "media", "engine", "http", "telemetry"]),
];

struct Source {
    /// Relative to src/.
    path: String,
    text: String,
}

impl Source {
    /// `engine` for engine/worker.rs and for engine.rs.
    fn layer(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }

    /// Lines of code: no comments, no string-only checks needed.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

/// Whether `code` uses the crate or module path `name::`, as a whole word.
fn uses(code: &str, name: &str) -> bool {
    let pattern = format!("{name}::");
    code.match_indices(&pattern).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn every_file_opens_with_a_sentence_that_says_what_it_is_for() {
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 20, "{}: {first}", source.path);
    }
}

#[test]
fn every_package_stays_in_its_home() {
    for source in sources() {
        for (package, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            let used = source.code().any(|line| uses(line, package));
            assert!(at_home || !used, "{} uses {package}, whose home is {homes:?}", source.path);
        }
    }
}

#[test]
fn dependencies_point_down() {
    for source in sources().iter().filter(|source| source.path != "lib.rs" && source.path != "main.rs") {
        let allowed =
            LAYERS.iter().find(|(layer, _)| *layer == source.layer()).map_or(&[][..], |(_, allowed)| *allowed);
        for line in source.code() {
            for (at, _) in line.match_indices("crate::") {
                let rest = &line[at + "crate::".len()..];
                let target = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let fine =
                    target == "error" || target == source.layer() || allowed.contains(&target) || target.is_empty();
                assert!(fine, "{} may not use crate::{target}", source.path);
            }
        }
    }
}

#[test]
fn no_protocol_reads_another() {
    let protocols = ["toolkit", "openai", "tgi"];
    for source in sources().iter().filter(|source| source.path.starts_with("http/")) {
        let own = source.path.split('/').nth(1).unwrap_or_default();
        for other in protocols.iter().filter(|other| protocols.contains(&own) && **other != own) {
            assert!(!source.code().any(|line| uses(line, other)), "{} reads {other}", source.path);
        }
    }
}

#[test]
fn the_environment_is_read_in_one_place() {
    for source in sources().iter().filter(|source| !source.path.starts_with("settings/")) {
        let reads = source.code().any(|line| line.contains("env::var"));
        assert!(!reads, "{} reads the environment; settings/ is the place", source.path);
    }
}

#[test]
fn unwinding_stays_on() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("panic = \"abort\""),
        "the engine turns a failure of libtorch into an error by unwinding"
    );
}
