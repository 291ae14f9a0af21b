"""Writes fixtures/processed.json with Transformers 5.23: python tests/sampler/make_fixtures.py

Each case is logits, a request in the crate's terms, and the scores that Transformers' own list of processors makes of them
(`_get_logits_processor` decides which and in what order). -inf is null.
"""

import json
import math
import types
from pathlib import Path

import torch
from transformers import GenerationConfig, GenerationMixin

VOCAB = 40
PROMPT = [3, 7, 7, 1, 39, 12]
GENERATED = [5, 3, 7, 7, 21, 3, 7]
EOS = [2, 30]

ALONE = {
    "sequence_bias": {"sequence_bias": [[[4], 2.5], [[9], -1.0], [[3, 7, 11], 3.0], [[7, 11], 1.5], [[1, 7, 11], 9.0]]},
    "sequence_bias_longer_than_the_text": {"sequence_bias": [[[1] * 20, 2.5]]},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "repetition_reward": {"repetition_penalty": 0.7},
    "no_repeat_1gram": {"no_repeat_ngram_size": 1},
    "no_repeat_2gram": {"no_repeat_ngram_size": 2},
    "no_repeat_3gram": {"no_repeat_ngram_size": 3},
    "no_repeat_long": {"no_repeat_ngram_size": 30},
    "bad_words": {"bad_words_ids": [[8], [2], [3, 7, 15], [21, 7, 16], [7, 7, 17]]},
    "min_length_not_reached": {"min_length": 14},
    "min_length_reached": {"min_length": 13},
    "min_new_tokens_not_reached": {"min_new_tokens": 8},
    "min_new_tokens_reached": {"min_new_tokens": 7},
    "forced_eos": {"forced_eos_token_id": 2, "max_length": 14},
    "forced_eos_list": {"forced_eos_token_id": [2, 9], "max_length": 14},
    "forced_eos_later": {"forced_eos_token_id": 2, "max_length": 20},
    "remove_invalid": {"remove_invalid_values": True},
    "exponential_decay": {"exponential_decay_length_penalty": (3, 1.2)},
    "exponential_decay_not_begun": {"exponential_decay_length_penalty": (7, 1.2)},
    "suppress": {"suppress_tokens": [0, 5, 39]},
    "begin_suppress_later": {"begin_suppress_tokens": [0, 5, 39]},
    "renormalized": {"renormalize_logits": True},
    "temperature": {"do_sample": True, "temperature": 0.7},
    "hot": {"do_sample": True, "temperature": 2.5},
    "top_h": {"do_sample": True, "top_h": 0.4},
    "top_k": {"do_sample": True, "top_k": 5},
    "top_k_ties": {"do_sample": True, "top_k": 3, "ties": True},
    "top_k_1": {"do_sample": True, "top_k": 1},
    "top_k_beyond_the_vocabulary": {"do_sample": True, "top_k": 100},
    "top_p": {"do_sample": True, "top_p": 0.8},
    "top_p_0": {"do_sample": True, "top_p": 0.0},
    "top_p_small": {"do_sample": True, "top_p": 0.05},
    "min_p": {"do_sample": True, "min_p": 0.1},
    "min_p_1": {"do_sample": True, "min_p": 1.0},
    "typical_p": {"do_sample": True, "typical_p": 0.6},
    "typical_p_small": {"do_sample": True, "typical_p": 0.01},
    "epsilon_cutoff": {"do_sample": True, "epsilon_cutoff": 0.02},
    "epsilon_cutoff_high": {"do_sample": True, "epsilon_cutoff": 0.9},
    "eta_cutoff": {"do_sample": True, "eta_cutoff": 0.05},
    "warpers_are_off_when_greedy": {"temperature": 0.7, "top_k": 5, "top_p": 0.5},
}
TOGETHER = {
    "usual": {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9},
    "usual_penalised": {"do_sample": True, "temperature": 0.6, "top_k": 12, "top_p": 0.95, "repetition_penalty": 1.2},
    "counted_and_cut": {"do_sample": True, "top_h": 0.7, "top_k": 8, "min_p": 0.02},
    "cuts": {"do_sample": True, "top_p": 0.97, "min_p": 0.01, "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02},
    "everything": {
        **{key: value for name in ("sequence_bias", "repetition_penalty", "no_repeat_3gram", "bad_words", "suppress") for key, value in ALONE[name].items()},
        "min_new_tokens": 5,
        "exponential_decay_length_penalty": (2, 1.1),
        "remove_invalid_values": True,
        "do_sample": True,
        "temperature": 1.4,
        "top_h": 0.9,
        "top_k": 15,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.95,
        "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.002,
        "renormalize_logits": True,
    },
}
AT_THE_START = {
    "begin_suppress": {"begin_suppress_tokens": [0, 5, 39]},
    "min_new_tokens": {"min_new_tokens": 1},
    "no_generated_tokens": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
}
AFTER_ONE = {
    "forced_bos": {"forced_bos_token_id": 6},
    "forced_bos_and_begin_suppress": {"forced_bos_token_id": 6, "begin_suppress_tokens": [6, 7]},
}
NEUTRAL = dict(do_sample=False, temperature=1.0, top_k=0, top_p=1.0, typical_p=1.0, epsilon_cutoff=0.0, eta_cutoff=0.0)


def processors(settings, num_prompt):
    settings = {**NEUTRAL, "eos_token_id": EOS, **settings}
    config = GenerationConfig(**settings)
    config._eos_token_tensor = torch.tensor(EOS)
    model = types.SimpleNamespace(
        config=types.SimpleNamespace(is_encoder_decoder=False),
        _merge_criteria_processor_list=lambda processors, custom: processors,
    )
    return GenerationMixin._get_logits_processor(model, config, input_ids_seq_length=num_prompt, device="cpu")


def process(logits, settings, prompt, generated):
    ids = torch.tensor([prompt + generated])
    settings = {key: value for key, value in settings.items() if key != "ties"}
    return processors(settings, len(prompt))(ids, logits[None])[0]


def numbers(scores):
    return [None if math.isinf(score) else score for score in scores.tolist()]


def case(name, settings, prompt, generated, logits):
    scores = process(logits, settings, prompt, generated)
    settings = {key: value for key, value in settings.items() if key != "ties"}
    return {"name": name, "settings": settings, "prompt": prompt, "generated": generated, "logits": logits.tolist(), "scores": numbers(scores)}


if __name__ == "__main__":
    torch.manual_seed(1)
    cases = []
    for chosen, prompt, generated in [
        (ALONE | TOGETHER, PROMPT, GENERATED),
        (AT_THE_START, PROMPT, []),
        (AFTER_ONE, [3], []),
        ({"second_after_a_forced_bos": AFTER_ONE["forced_bos_and_begin_suppress"]}, [3], [6]),
    ]:
        for name, settings in chosen.items():
            logits = (torch.randn(VOCAB) * 2.5).round(decimals=3)
            if settings.get("ties"):
                logits = logits.round()
            cases.append(case(name, settings, prompt, generated, logits))
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    text = f'{{"eos":{EOS},"cases":[\n{lines}\n]}}\n'
    (Path(__file__).parent / "fixtures" / "processed.json").write_text(text)
