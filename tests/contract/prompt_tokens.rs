//! A prompt's own tokens with their log-probabilities, as every protocol gets them from the request path.

use sardine::engine::Sampling;
use sardine::error::Error;
use sardine::generation::{ChatRequest, Finish, Input, Length, MaxLength, Stop};

use crate::bench::{ANSWER, Bench, limits, settings};

fn request(bench: &Bench, max: MaxLength) -> ChatRequest {
    ChatRequest {
        input: Input::Raw("<|im_start|>Two red circles.".to_owned()),
        media: Vec::new(),
        sampling: Sampling::greedy(),
        length: Length { max, max_time: None, truncate: None },
        stop: Stop { eos: bench.service.defaults().eos_token_id.clone(), ..Stop::default() },
        skip_special_tokens: true,
        prompt_logprobs: Some(2),
        deadline: None,
    }
}

#[tokio::test]
async fn the_prompts_tokens_are_complete_before_the_first_of_the_answer() {
    let limits = sardine::engine::EngineLimits { prefill_chunk: 3, ..limits() };
    let bench = Bench::with(settings(), limits).await;
    let mut answer = bench.service.start(request(&bench, MaxLength::New(20))).await.unwrap();
    answer.next().await.unwrap().unwrap();
    let tokens = answer.prompt_tokens().to_vec();
    let text: String = tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(text, "<|im_start|>Two red circles.");
    let (first, rest) = tokens.split_first().unwrap();
    assert!(first.special && first.logprob.is_none() && first.top.is_empty(), "{first:?}");
    assert!(rest.len() > 3 && rest.iter().all(|token| token.logprob == Some(-0.5) && token.top.len() == 2), "{rest:?}");
    let whole = answer.collect().await.unwrap();
    assert_eq!(whole.prompt, tokens);
}

#[tokio::test]
async fn a_prompt_alone_can_be_asked_for() {
    let bench = Bench::start().await;
    let answer = bench.service.start(request(&bench, MaxLength::New(0))).await.unwrap().collect().await.unwrap();
    assert_eq!((answer.text.as_str(), answer.tokens.len(), answer.finish), ("", 0, Finish::Length));
    assert_eq!(answer.prompt.len(), answer.usage.prompt_tokens);
}

#[tokio::test]
async fn a_prompt_that_nobody_asks_for_is_not_told() {
    let bench = Bench::start().await;
    let plain = ChatRequest { prompt_logprobs: None, ..request(&bench, MaxLength::New(20)) };
    let answer = bench.service.start(plain).await.unwrap().collect().await.unwrap();
    assert_eq!((answer.text.as_str(), answer.prompt.len()), (ANSWER, 0));
    let nothing = ChatRequest { prompt_logprobs: None, ..request(&bench, MaxLength::New(0)) };
    assert!(matches!(bench.service.start(nothing).await, Err(Error::Invalid { .. })));
}
