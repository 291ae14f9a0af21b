//! What loading, prefill, decoding and a picture cost, on a checkpoint of real size.
//!
//! `SARDINE_ORACLE_CHECKPOINT=DIR cargo test --release --test parity speed -- --ignored --nocapture`

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sardine::checkpoint::Checkpoint;
use sardine::engine::{Grid, Picture, PlacedPicture, Prompt};
use sardine::model::{Dtype, LoadOptions, QwenRunner};

use crate::driving::{Sequence, step};
use crate::fixtures::options;
use crate::oracle::load;

#[test]
#[ignore = "needs SARDINE_ORACLE_CHECKPOINT, and a quiet machine"]
fn speed_of_loading_prefill_decoding_and_a_picture() {
    let start = Instant::now();
    let mut runner = load(Dtype::Bfloat16);
    println!("load: {:.2} s; {}", start.elapsed().as_secs_f64(), memory());
    println!("on a busy machine the seconds of CPU, summed over threads, say more than those of the clock");
    run(&mut runner, "a first token", text(1), 1);
    run(&mut runner, "64 tokens", text(64), 16);
    let prompt = picture(&runner, 32);
    run(&mut runner, "a picture of 512 x 512", prompt, 1);
    for sequences in [2, 4] {
        together(&mut runner, sequences);
    }
    for tokens in [512, 2048] {
        run(&mut runner, &format!("{tokens} tokens"), text(tokens), 16);
    }
    println!("{}", memory());
}

fn run(runner: &mut QwenRunner, what: &str, prompt: Prompt, new_tokens: usize) {
    let mut sequence = Sequence::new(&prompt, 0, new_tokens);
    let start = Clock::start();
    while sequence.generated.is_empty() {
        step(runner, &mut [(&mut sequence, 512)]);
    }
    println!("{what}: first token after {start}");
    let start = Clock::start();
    while !sequence.is_done() {
        step(runner, &mut [(&mut sequence, 512)]);
    }
    if new_tokens > 1 {
        println!("  {} more tokens: {start}", new_tokens - 1);
    }
}

fn together(runner: &mut QwenRunner, num_sequences: usize) {
    const NEW_TOKENS: usize = 8;
    let prompt = text(64);
    let mut sequences: Vec<Sequence> =
        (0..num_sequences).map(|slot| Sequence::new(&prompt, slot, NEW_TOKENS + 1)).collect();
    let mut all = |sequences: &mut Vec<Sequence>| {
        step(runner, &mut sequences.iter_mut().map(|sequence| (sequence, 512)).collect::<Vec<_>>());
    };
    all(&mut sequences);
    let start = Clock::start();
    while !sequences[0].is_done() {
        all(&mut sequences);
    }
    println!("{num_sequences} at once, {NEW_TOKENS} tokens each: {start}");
}

/// Prints what a step of decoding costs where sequences share it: in neighbouring slots, which the recurrent layers run as one,
/// in scattered ones, which they run row by row, and in steps of their own.
#[test]
#[ignore = "prints, for people to read"]
fn speed_of_decoding_together() {
    let fry = Checkpoint::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fry")).unwrap();
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let options = LoadOptions { max_batch_size: 64, ..options(dtype) };
        let mut runner = sardine::model::load(&fry, &options, &|_, _| {}).unwrap();
        for num_sequences in [1, 2, 4, 8, 16] {
            let [together, scattered, alone] = decode_steps(&mut runner, num_sequences);
            println!(
                "{dtype:?}, {num_sequences} at once: {:.2} ms a step; scattered {:.2} times that, alone {:.2} times",
                together * 1e3,
                scattered / together,
                alone / together
            );
        }
    }
}

/// Seconds of CPU that one token of each sequence takes: in neighbouring slots, in every other slot, and in steps of their own.
/// The least of many turns, in which the three follow each other.
fn decode_steps(runner: &mut QwenRunner, num_sequences: usize) -> [f64; 3] {
    const TURNS: usize = 40;
    let prompt = text(32);
    let slots: [fn(usize) -> usize; 3] = [|index| index, |index| 17 + 2 * index, |index| 48 + index];
    let sequence = |slot| Sequence::new(&prompt, slot, TURNS + 1);
    let mut groups = slots.map(|slot| (0..num_sequences).map(slot).map(sequence).collect::<Vec<_>>());
    let mut least = [f64::MAX; 3];
    for sequence in groups.iter_mut().flatten() {
        step(runner, &mut [(sequence, 512)]);
    }
    for _ in 0..TURNS {
        for (kind, group) in groups.iter_mut().enumerate() {
            let start = thread_seconds();
            match kind {
                2 => group.iter_mut().for_each(|sequence| drop(step(runner, &mut [(sequence, 512)]))),
                _ => drop(step(runner, &mut group.iter_mut().map(|sequence| (sequence, 512)).collect::<Vec<_>>())),
            }
            least[kind] = least[kind].min(thread_seconds() - start);
        }
    }
    least
}

/// What this thread has used of the CPU: what a small model, which computes on one thread, costs on a busy machine.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Safety: the clock is one of Linux's own, and the time is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Time by the clock and by the CPU.
struct Clock {
    wall: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Clock {
        Clock { wall: Instant::now(), cpu: cpu_seconds() }
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:.2} s, {:.2} s of CPU", self.wall.elapsed().as_secs_f64(), cpu_seconds() - self.cpu)
    }
}

/// What this process has used in user mode, in Linux's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().nth(11).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / 100.0
}

fn text(tokens: usize) -> Prompt {
    Prompt {
        ids: (0..tokens as u32).map(|index| index * 7919 % 200_000 % 1000).collect(),
        positions: (0..tokens as i64).map(|index| [index; 3]).collect(),
        rope_delta: 0,
        pictures: Vec::new(),
    }
}

/// A square picture alone in a prompt.
fn picture(runner: &QwenRunner, side: usize) -> Prompt {
    let vision = runner.config().vision.as_ref().expect("the checkpoint has a vision tower");
    let grid = Grid { height: side, width: side };
    let num_numbers = grid.num_patches() * vision.patch_len();
    let patches = (0..num_numbers).map(|index| (index % 511) as f32 / 255.5 - 1.0).collect();
    let mut prompt = text(grid.num_tokens() + 10);
    let placeholders = 4..4 + grid.num_tokens();
    prompt.ids[placeholders.clone()].fill(vision.image_token_id);
    prompt.pictures.push(PlacedPicture { picture: Arc::new(Picture::new(patches, grid)), placeholders });
    prompt
}

/// This process' memory, as Linux counts it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["VmHWM", "RssAnon", "RssFile"];
    let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}
