//! Settings of `sardine bench`.

use clap::Args;

use super::model::ModelSettings;
use crate::bench::{Shown, Workload};

#[derive(Debug, Clone, Args)]
pub struct BenchSettings {
    #[command(flatten)]
    pub model: ModelSettings,
    /// Measure the engine in this process, which is what is measured where no --url is given.
    #[arg(long, conflicts_with = "url")]
    pub in_process: bool,
    /// Measure the server that speaks OpenAI's API at this address, instead of the engine in this process.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Answers that are written at the same time, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_name = "N,N..")]
    pub at_once: Vec<usize>,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 64, value_name = "TOKENS")]
    pub tokens: usize,
    /// Prompts of so many tokens, whose first new token is waited for.
    #[arg(long, value_delimiter = ',', default_value = "32,512,2048", value_name = "TOKENS,TOKENS..")]
    pub prompts: Vec<usize>,
    /// A prompt of so many tokens arrives while eight answers are written; 0: none does.
    #[arg(long, default_value_t = 4000, value_name = "TOKENS")]
    pub intruder: usize,
    /// Pixels of a side of each picture; 0: none.
    #[arg(long, default_value_t = 512, value_name = "PIXELS")]
    pub picture: u32,
    /// Questions about so many pictures, whose first token is waited for.
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "N,N..")]
    pub pictures: Vec<usize>,
    /// A question about a clip of so many frames, of the pictures' size; 0: none.
    #[arg(long, default_value_t = 0, value_name = "FRAMES")]
    pub clip: usize,
    /// As JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

impl BenchSettings {
    pub fn workload(&self) -> Workload {
        Workload {
            sequences: self.at_once.clone(),
            tokens: self.tokens,
            prefill: self.prompts.clone(),
            intruder: Some(self.intruder).filter(|tokens| *tokens > 0),
            shown: if self.picture > 0 { self.shown() } else { Vec::new() },
            side: self.picture,
        }
    }

    fn shown(&self) -> Vec<Shown> {
        let pictures = self.pictures.iter().filter(|number| **number > 0).map(|number| Shown::Pictures(*number));
        pictures.chain((self.clip > 0).then_some(Shown::Clip(self.clip))).collect()
    }

    /// Settings of a model that runs as many sequences at once as are measured: the long prompt is the ninth.
    pub fn model(&self) -> ModelSettings {
        let mut model = self.model.clone();
        let most = self.at_once.iter().copied().max().unwrap_or(1).max(9);
        model.engine.max_batch_size = model.engine.max_batch_size.max(most as u32);
        model
    }
}
