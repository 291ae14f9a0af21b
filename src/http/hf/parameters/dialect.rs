//! Where TGI reads a parameter differently from Transformers.

/// Values that a parameter may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<T> {
    /// Which those are, in words that follow "must be a number".
    pub(super) words: &'static str,
    pub(super) holds: fn(T) -> bool,
}

/// How one contract reads the parameters.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Dialect {
    /// Parameters that switch sampling on by being there, whatever `do_sample` says.
    pub(super) sampling_switches: &'static [&'static str],
    /// Whether the checkpoint's generation_config.json stands in for what the client leaves out. Its stop tokens always do.
    pub(super) reads_generation_config: bool,
    /// Once sampling is on. 0: off.
    pub(super) default_top_k: usize,
    /// Longest answer where nobody says; cut to what the context has room for.
    pub(super) default_new_tokens: usize,
    pub(super) max_stop_strings: usize,
    pub(super) temperature: Range<f64>,
    pub(super) top_k: Range<usize>,
    pub(super) top_p: Range<f64>,
    pub(super) typical_p: Range<f64>,
}

impl Dialect {
    /// Texts that may end one answer.
    pub(in crate::http) fn max_stop_strings(&self) -> usize {
        self.max_stop_strings
    }
}

/// Transformers' `generate`, and its pipeline.
pub(in crate::http) const TRANSFORMERS: Dialect = Dialect {
    sampling_switches: &[],
    reads_generation_config: true,
    default_top_k: 50,
    // The pipeline's; `generate` itself would stop after 20.
    default_new_tokens: 256,
    max_stop_strings: 64,
    temperature: Range { words: "from 0", holds: |temperature| temperature >= 0.0 },
    top_k: Range { words: "from 0 (0: off)", holds: |_| true },
    top_p: Range { words: "from 0 to 1", holds: |share| (0.0..=1.0).contains(&share) },
    typical_p: Range { words: "above 0, at most 1", holds: |share| share > 0.0 && share <= 1.0 },
};

/// Text Generation Inference.
pub(in crate::http) const TGI: Dialect = Dialect {
    sampling_switches: &["temperature", "top_k", "top_p", "typical_p"],
    reads_generation_config: false,
    default_top_k: 0,
    default_new_tokens: usize::MAX,
    max_stop_strings: 4,
    temperature: Range { words: "above 0", holds: |temperature| temperature > 0.0 },
    top_k: Range { words: "above 0", holds: |k| k > 0 },
    top_p: Range { words: "above 0, below 1", holds: |share| share > 0.0 && share < 1.0 },
    typical_p: Range { words: "above 0, below 1", holds: |share| share > 0.0 && share < 1.0 },
};
