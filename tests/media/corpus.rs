//! The pictures of make_corpus.py, in every format and form: pixels and `pixel_values` against Transformers'.

use std::collections::BTreeMap;

use bytes::Bytes;
use safetensors::SafeTensors;
use sardine::media::decode::decode;
use sardine::media::{MediaLimits, Source};
use serde::Deserialize;

use crate::fixtures::{bounds, file, media, sha256};

/// A file, and what Transformers makes of it.
#[derive(Deserialize)]
pub struct Row {
    pub file: String,
    /// A row of the table.
    pub group: String,
    lossy: bool,
    height: usize,
    width: usize,
    /// The digest of the pixels, and that of `pixel_values`.
    pixels: String,
    pixel_values: String,
}

/// All files, with their rows and, of lossy ones, the pixels that are expected.
pub struct Corpus(Vec<u8>);

impl Corpus {
    pub fn load() -> Corpus {
        Corpus(file("corpus.safetensors"))
    }

    pub fn rows(&self) -> Vec<Row> {
        let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
        serde_json::from_str(&header.metadata().as_ref().unwrap()["rows"]).unwrap()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }
}

/// What a row of the table sums up.
#[derive(Default)]
struct Tally {
    num_files: usize,
    num_equal: usize,
    largest: u8,
    sum: f64,
    num_values: usize,
}

impl Tally {
    fn add(&mut self, differences: &[u8]) {
        let largest = differences.iter().copied().max().unwrap_or(0);
        self.num_files += 1;
        self.num_equal += usize::from(largest == 0);
        self.largest = self.largest.max(largest);
        self.sum += differences.iter().map(|difference| f64::from(*difference)).sum::<f64>();
        self.num_values += differences.len();
    }
}

#[test]
fn pixels_are_those_of_transformers_in_every_format() {
    let corpus = Corpus::load();
    let mut table: BTreeMap<String, Tally> = BTreeMap::new();
    let rows = corpus.rows();
    assert!(rows.len() >= 200, "{}", rows.len());
    for row in rows {
        let name = &row.file;
        let picture = decode(&corpus.bytes(name), bounds()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((picture.height, picture.width), (row.height, row.width), "{name}");
        let differences: Vec<u8> = if row.lossy {
            let expected = decode(&corpus.bytes(&format!("{name}=")), bounds()).unwrap();
            assert_eq!(sha256(&expected.pixels), row.pixels, "{name}: what is expected");
            picture.pixels.iter().zip(&expected.pixels).map(|(ours, theirs)| ours.abs_diff(*theirs)).collect()
        } else {
            assert_eq!(sha256(&picture.pixels), row.pixels, "{name}");
            vec![0; picture.pixels.len()]
        };
        // JPEG and lossy WebP have the same decoders behind them as PIL; a JPEG inside a TIFF has not.
        let allowed = if row.group == "TIFF (JPEG inside)" { 2 } else { 0 };
        let largest = differences.iter().copied().max().unwrap_or(0);
        assert!(largest <= allowed, "{name}: differs by up to {largest}");
        table.entry(row.group).or_default().add(&differences);
    }
    println!("| format | files | equal bit for bit | largest difference | mean |\n|---|---|---|---|---|");
    for (group, tally) in table {
        let mean = tally.sum / tally.num_values as f64;
        println!("| {group} | {} | {} | {} | {mean:.4} |", tally.num_files, tally.num_equal, tally.largest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pixel_values_are_those_of_transformers_for_every_file() {
    let corpus = Corpus::load();
    let media = media(MediaLimits::default());
    for row in corpus.rows() {
        if row.group == "TIFF (JPEG inside)" {
            continue; // whose pixels differ
        }
        let source = Source::File(Bytes::from(corpus.bytes(&row.file)));
        let pictures = media.prepare(&[source.into()]).await.unwrap_or_else(|error| panic!("{}: {error}", row.file));
        let bytes: Vec<u8> = pictures[0].patches.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), row.pixel_values, "{}", row.file);
    }
}
