"""huggingface_hub's InferenceClient, on the routes where its users point it."""

import json

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    OverloadedError,
    ValidationError,
)

from conftest import NO_THOUGHT, SUM, SUM_PROMPT, about, busy, picture, sample, serving


@pytest.fixture(scope="module")
def client(url):
    return InferenceClient(model=url, timeout=60)


def test_a_chat_is_answered_with_its_cost(client):
    reply = client.chat_completion(SUM, max_tokens=20, temperature=0)
    assert reply.choices[0].message.content == "42"
    assert (reply.choices[0].finish_reason, reply.choices[0].message.role) == ("stop", "assistant")
    assert reply.usage.completion_tokens == 3
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 3


def test_a_streamed_chat_is_the_whole_one_in_pieces(client):
    chunks = list(client.chat_completion(SUM, max_tokens=20, temperature=0, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "42"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"


def test_a_chat_may_show_a_picture(client):
    asked = sample("describe-one")
    reply = client.chat_completion(about(picture("describe-one.png"), "Describe the image."), temperature=0)
    assert reply.choices[0].message.content == asked.answer


@pytest.mark.parametrize("path", ["", "/v1", "/predict", "/v1/chat/completions"])
def test_a_chat_finds_its_route_from_any_url(url, path):
    reply = InferenceClient(model=url + path).chat_completion(SUM, max_tokens=20, temperature=0)
    assert reply.choices[0].message.content == "42"


def test_a_tool_is_called_with_its_arguments(client):
    asked = sample("tool-call")
    reply = client.chat_completion(asked.messages, tools=asked.tools, tool_choice="auto", temperature=0)
    [call] = reply.choices[0].message.tool_calls
    assert (call.function.name, reply.choices[0].finish_reason) == ("book_flight", "tool_calls")
    assert json.loads(call.function.arguments) == {"origin": "San Kyoto", "destination": "Zokil"}


def test_a_text_is_answered_as_a_turn(client):
    assert client.text_generation("What is 12 + 30?", max_new_tokens=20) == "42"


def test_details_tell_how_a_text_came_about(client):
    reply = client.text_generation("What is 12 + 30?", details=True, decoder_input_details=True, top_n_tokens=2)
    assert (reply.generated_text, reply.details.finish_reason) == ("42", "eos_token")
    assert [token.text for token in reply.details.tokens] == ["4", "2", "<|im_end|>"]
    assert [token.special for token in reply.details.tokens] == [False, False, True]
    assert reply.details.generated_tokens == 3
    assert reply.details.seed is None
    assert [len(top) for top in reply.details.top_tokens] == [2, 2, 2]
    prefill = reply.details.prefill
    assert prefill[0].text == "<|im_start|>" and prefill[0].logprob is None
    assert all(token.logprob <= 0 for token in prefill[1:])


def test_a_streamed_text_is_the_whole_one_in_pieces(client):
    assert list(client.text_generation("What is 12 + 30?", stream=True))[:2] == ["4", "2"]
    events = list(client.text_generation("What is 12 + 30?", stream=True, details=True))
    assert "".join(event.token.text for event in events) == "42"
    assert events[-1].generated_text == "42"
    assert events[-1].details.finish_reason == "eos_token"
    assert (events[-1].details.generated_tokens, events[-1].details.input_length > 5) == (3, True)
    assert all(event.details is None and event.generated_text is None for event in events[:-1])


def test_a_stop_text_ends_the_answer_and_stays(client):
    reply = client.text_generation("Say: shasor umbrella bridge stone", stop=["bridge"], details=True)
    assert (reply.generated_text, reply.details.finish_reason) == ("shasor umbrella bridge", "stop_sequence")


def test_the_same_seed_gives_the_same_text(client):
    def sampled(seed):
        return client.text_generation("Say: shasor", do_sample=True, temperature=5.0, seed=seed, max_new_tokens=16)

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_tgis_own_routes_take_the_prompt_as_it_is(url):
    whole = InferenceClient(model=f"{url}/generate")
    assert whole.text_generation(SUM_PROMPT + NO_THOUGHT) == "42"
    full = whole.text_generation(SUM_PROMPT + NO_THOUGHT, return_full_text=True)
    assert full == SUM_PROMPT + NO_THOUGHT + "42"
    streamed = InferenceClient(model=f"{url}/generate_stream")
    assert "".join(streamed.text_generation(SUM_PROMPT + NO_THOUGHT, stream=True)) == "42"
    shown = f"![]({picture('count.png').url})How many shapes are in the picture?"
    prompt = SUM_PROMPT.replace("What is 12 + 30?", shown)
    assert whole.text_generation(prompt + NO_THOUGHT) == sample("count").answer


@pytest.mark.parametrize("form", ["path", "bytes"])
def test_a_picture_alone_is_described(client, form):
    shown = picture("describe-one.png")
    assert client.image_to_text(getattr(shown, form)).generated_text == sample("describe-one").answer


def test_a_question_about_a_picture_is_answered_with_a_score(client):
    asked = sample("colour")
    question = asked.messages[0]["content"][1]["text"]
    answers = client.visual_question_answering(picture("colour.png").path, question)
    assert [answer.answer for answer in answers] == [asked.answer]
    assert 0.5 < answers[0].score <= 1


def test_the_server_is_well_and_says_what_it_serves(url):
    client = InferenceClient(model=url, provider="hf-inference")
    assert client.health_check()
    info = client.get_endpoint_info()
    assert (info["router"], info["model_dtype"], info["model_device_type"]) == ("sardine", "torch.bfloat16", "cpu")
    assert info["max_total_tokens"] == info["max_input_tokens"] + 1


def test_a_wrong_parameter_is_a_validation_error(client, url):
    with pytest.raises(ValidationError, match="`top_p` must be a number"):
        client.text_generation("Hi", do_sample=True, top_p=5.0)
    with pytest.raises(ValidationError, match="`top_p` must be a number above 0, below 1"):
        InferenceClient(model=f"{url}/generate").text_generation("Hi", top_p=1.0)
    with pytest.raises(ValidationError, match="`watermark` is not supported"):
        client.text_generation("Hi", watermark=True)
    with pytest.raises(ValidationError, match="`top_p`"):
        list(client.text_generation("Hi", do_sample=True, top_p=5.0, stream=True))


def test_a_wrong_chat_says_what_is_wrong(client):
    with pytest.raises(BadRequestError, match="temperature"):
        client.chat_completion(SUM, temperature=-1)
    with pytest.raises(HfHubHTTPError, match="x-request-id|Request ID"):
        client.chat_completion([])


def test_a_full_server_is_an_overload():
    with serving("--max-batch-size", "1", "--max-queue", "1") as url, busy(url):
        client = InferenceClient(model=url, timeout=120)
        with pytest.raises(OverloadedError, match="overloaded"):
            client.text_generation("Hi")
        with pytest.raises(HfHubHTTPError, match="429"):
            client.chat_completion(SUM)
