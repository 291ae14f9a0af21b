//! Files and texts changed at random: whatever the decoders do, a request ends in a picture or in words, and soon.
//!
//! The seed is fixed, so a failure comes back; `PROPTEST_CASES=100000` runs longer, with other changes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use sardine::error::Error;
use sardine::media::{Media, MediaLimits, Source};
use tokio::runtime::Runtime;

use crate::corpus::Corpus;
use crate::fixtures::media;

/// Cases of a test run. A few seconds.
const CASES: u32 = 1500;

fn runner() -> TestRunner {
    let usual = Config::default(); // PROPTEST_CASES raises it
    let cases = usual.cases.max(CASES);
    TestRunner::new(Config { cases, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..usual })
}

/// One way to damage a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    /// A number at the extremes, where sizes and offsets are.
    Number(Index, [u8; 4]),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Splice(Index, Vec<u8>),
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.is_empty() {
            return;
        }
        let range = |at: &Index, len: usize, file: &[u8]| {
            let start = at.index(file.len());
            start..(start + len).min(file.len())
        };
        match self {
            Damage::Flip(at, bits) => {
                let at = at.index(file.len());
                file[at] ^= bits;
            }
            Damage::Number(at, number) => {
                let range = range(at, 4, file);
                let len = range.len();
                file[range].copy_from_slice(&number[..len]);
            }
            Damage::Cut(at) => file.truncate(at.index(file.len())),
            Damage::Remove(at, len) => _ = file.drain(range(at, *len, file)),
            Damage::Repeat(at, len) => {
                let range = range(at, *len, file);
                let (end, again) = (range.end, file[range].to_vec());
                file.splice(end..end, again);
            }
            Damage::Splice(at, bytes) => {
                let at = at.index(file.len());
                file.splice(at..at, bytes.iter().copied());
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let number = prop::sample::select(vec![
        [0; 4],
        [0xff; 4],
        [0, 0, 0, 0x80],
        [0xff, 0xff, 0xff, 0x7f],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
    ]);
    let place = any::<Index>;
    prop_oneof![
        (place(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (place(), number).prop_map(|(at, number)| Damage::Number(at, number)),
        place().prop_map(Damage::Cut),
        (place(), 1..64usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        (place(), 1..64usize).prop_map(|(at, len)| Damage::Repeat(at, len)),
        (place(), vec(any::<u8>(), 1..32)).prop_map(|(at, bytes)| Damage::Splice(at, bytes)),
    ]
}

/// A `Media` that fetches nothing, and decodes little.
fn small_media() -> Media {
    media(MediaLimits {
        allow_remote_images: false,
        max_image_pixels: 200_000,
        max_image_tokens: 300,
        decode_timeout: Duration::from_secs(2),
        ..MediaLimits::default()
    })
}

fn check(runtime: &Runtime, media: &Media, source: Source) -> Result<(), TestCaseError> {
    let begun = Instant::now();
    let outcome = runtime.block_on(media.prepare(&[source.into()]));
    let took = begun.elapsed();
    prop_assert!(took < Duration::from_secs(5), "took {took:?}");
    prop_assert_eq!(media.held_bytes() > 0, outcome.is_ok());
    match outcome {
        Ok(_) | Err(Error::Invalid { .. } | Error::MediaFetch(_)) => Ok(()),
        Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}

#[test]
fn a_damaged_file_never_takes_more_than_its_own_request_down() {
    let (corpus, runtime, media) = (Corpus::load(), Runtime::new().unwrap(), small_media());
    let names: Vec<String> = corpus.rows().into_iter().map(|row| row.file).collect();
    let header = (0..64usize, any::<u8>());
    let strategy = (prop::sample::select(names), vec(damage(), 1..5), proptest::option::of(header));
    runner()
        .run(&strategy, |(name, damages, header)| {
            let mut file = corpus.bytes(&name);
            if let Some((at, byte)) = header {
                // Sizes and tables stand at the beginning of most formats.
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            damages.iter().for_each(|damage| damage.apply(&mut file));
            check(&runtime, &media, Source::File(Bytes::from(file)))
        })
        .unwrap();
}

#[test]
fn no_text_for_a_picture_brings_anything_down() {
    let (runtime, media) = (Runtime::new().unwrap(), small_media());
    let text = prop_oneof![
        ".{0,80}",
        "(data|DATA|Data):[a-z/+;=, ]{0,30}(;base64)?,?[A-Za-z0-9+/=_ -]{0,200}",
        "(https?|ftp|file|gopher|blob|javascript|x):/{0,4}[^ ]{0,60}",
        "https?://[0-9a-fx.:\\[\\]%@]{0,40}/?",
        "[A-Za-z0-9+/]{0,100}={0,3}",
        "[a-zA-Z]:[\\\\/.a-z]{0,20}",
    ];
    runner().run(&text, |text| check(&runtime, &media, Source::Text(text))).unwrap();
}
