"""OpenAI's client."""

import asyncio
import json

import openai
import pytest

from conftest import NO_THOUGHT, SUM, SUM_PROMPT, about, busy, picture, sample, serving


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)


def chat(client, messages=SUM, **fields):
    return client.chat.completions.create(model="any", messages=messages, **{"temperature": 0, **fields})


def test_a_chat_is_answered_with_its_cost(client):
    reply = chat(client)
    assert (reply.object, reply.model, reply.choices[0].message.content) == ("chat.completion", "any", "42")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_is_the_whole_chat_in_chunks(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "42"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize("name", ["describe-one.png", "describe-two.jpg"])
def test_a_picture_is_described(client, name):
    asked = sample(name.split(".")[0])
    reply = chat(client, about(picture(name), asked.messages[0]["content"][1]["text"]))
    assert reply.choices[0].message.content == asked.answer


def test_a_tool_is_called_and_its_result_is_told(client):
    asked = sample("tool-call")
    [call] = chat(client, asked.messages, tools=asked.tools).choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "book_flight")
    assert json.loads(call.function.arguments) == {"origin": "San Kyoto", "destination": "Zokil"}
    asked = sample("tool-answer")
    asked.messages[1]["tool_calls"][0] |= {"id": "call_1"}
    asked.messages[1]["tool_calls"][0]["function"]["arguments"] = '{"song": "island zebra strong"}'
    asked.messages[2]["tool_call_id"] = "call_1"
    assert chat(client, asked.messages, tools=asked.tools).choices[0].message.content == asked.answer


def test_a_streamed_call_is_the_whole_one_in_pieces(client):
    asked = sample("tool-call")
    chunks = list(chat(client, asked.messages, tools=asked.tools, stream=True))
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert pieces[0].function.name == "book_flight" and pieces[0].id
    arguments = "".join(piece.function.arguments or "" for piece in pieces)
    assert json.loads(arguments) == {"origin": "San Kyoto", "destination": "Zokil"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_reasoning_is_told_apart_from_the_answer(client):
    asked = sample("sum-thinking")
    message = chat(client, asked.messages, extra_body={"enable_thinking": True}).choices[0].message
    reasoning, _, answer = asked.answer.partition("\n</think>\n\n")
    assert (message.content, message.reasoning_content.strip()) == (answer, reasoning)


def test_probabilities_stop_texts_and_several_answers(client):
    reply = chat(client, logprobs=True, top_logprobs=2)
    assert [token.token for token in reply.choices[0].logprobs.content] == ["4", "2"]
    assert [len(token.top_logprobs) for token in reply.choices[0].logprobs.content] == [2, 2]
    reply = chat(client, [{"role": "user", "content": "Say: shasor umbrella bridge stone"}], stop=" bridge")
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("shasor umbrella", "stop")
    reply = chat(client, n=2, seed=1, temperature=0.5, max_completion_tokens=1)
    assert [(choice.index, choice.finish_reason) for choice in reply.choices] == [(0, "length"), (1, "length")]


def test_fields_that_nobody_reads_are_named(client):
    raw = client.chat.completions.with_raw_response.create(model="any", messages=SUM, user="me", temperature=0)
    assert raw.headers["x-ignored-fields"] == "user"
    assert raw.parse().choices[0].message.content == "42"


def test_completions_take_prompts_as_they_are(client):
    prompt = SUM_PROMPT + NO_THOUGHT
    reply = client.completions.create(model="any", prompt=[prompt, prompt], temperature=0)
    assert [choice.text for choice in reply.choices] == ["42", "42"]
    reply = client.completions.create(model="any", prompt=prompt, temperature=0, echo=True, logprobs=1)
    assert reply.choices[0].text == prompt + "42"
    assert reply.choices[0].logprobs.token_logprobs[0] is None
    chunks = client.completions.create(model="any", prompt=prompt, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "42"


def test_the_model_is_listed(client):
    [model] = client.models.list().data
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_errors_have_the_clients_types(client):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, temperature=-1)
    assert (refused.value.param, refused.value.code, refused.value.type) == (
        "temperature",
        "invalid_value",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError, match="context|tokens"):
        chat(client, max_tokens=10**6)
    with pytest.raises(openai.BadRequestError, match="base64|picture|image"):
        chat(client, about(picture("count.png"), "?") + [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}])


def test_a_key_is_demanded_where_there_is_one():
    with serving("--api-key", "secret") as url:
        with pytest.raises(openai.AuthenticationError):
            chat(openai.OpenAI(base_url=f"{url}/v1", api_key="other", max_retries=0))
        reply = chat(openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0))
        assert reply.choices[0].message.content == "42"


def test_a_full_server_is_a_rate_limit_with_a_time_to_wait():
    with serving("--max-batch-size", "1", "--max-queue", "1") as url, busy(url):
        with pytest.raises(openai.RateLimitError) as refused:
            chat(openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0))
        assert int(refused.value.response.headers["retry-after"]) >= 1


def test_sixteen_at_once_get_what_one_gets(url):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=60) as client:
            asked = [client.chat.completions.create(model="any", messages=SUM, temperature=0) for _ in range(16)]
            return await asyncio.gather(*asked)

    assert {reply.choices[0].message.content for reply in asyncio.run(ask())} == {"42"}
