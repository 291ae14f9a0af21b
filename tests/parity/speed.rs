//! What loading, prefill, decoding and a picture cost, on a checkpoint of real size.
//!
//! `SARDINE_ORACLE_CHECKPOINT=DIR cargo test --release --test parity speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::Instant;

use sardine::engine::{Grid, Picture, PlacedPicture, Prompt};
use sardine::model::{Dtype, QwenRunner};

use crate::driving::{Sequence, step};
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
    prompt.pictures.push(PlacedPicture { picture: Arc::new(Picture { patches, grid }), placeholders });
    prompt
}

/// This process' memory, as Linux counts it.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["VmHWM", "RssAnon", "RssFile"];
    let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}
