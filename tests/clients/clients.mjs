// @huggingface/inference and openai, as JavaScript's users have them.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { InferenceClient } from "@huggingface/inference";
import OpenAI from "openai";

const url = process.env.SARDINE_URL;
const sum = [{ role: "user", content: "What is 12 + 30?" }];
const prompt = "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
const hub = new InferenceClient("", { endpointUrl: url });
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const file = (name) => readFile(`${process.env.SAMPLES}/${name}`);
const samples = JSON.parse(await file("samples.json"));
const sample = (name) => samples.find((sample) => sample.name === name);

async function joined(chunks, text) {
  let whole = "";
  for await (const chunk of chunks) whole += text(chunk) ?? "";
  return whole;
}

test("huggingface: a chat, whole and streamed", async () => {
  const reply = await hub.chatCompletion({ messages: sum, temperature: 0 });
  assert.equal(reply.choices[0].message.content, "42");
  const chunks = hub.chatCompletionStream({ messages: sum, temperature: 0 });
  assert.equal(await joined(chunks, (chunk) => chunk.choices[0]?.delta.content), "42");
});

test("huggingface: a chat about a picture", async () => {
  const url = `data:image/png;base64,${(await file("describe-one.png")).toString("base64")}`;
  const content = [{ type: "image_url", image_url: { url } }, { type: "text", text: "Describe the image." }];
  const reply = await hub.chatCompletion({ messages: [{ role: "user", content }], temperature: 0 });
  assert.equal(reply.choices[0].message.content, sample("describe-one").answer);
});

test("huggingface: a text is continued", async () => {
  const reply = await hub.textGeneration({ inputs: prompt, parameters: { temperature: 0 } });
  assert.equal(reply.generated_text, "42");
});

test("huggingface: a picture alone is described", async () => {
  const data = new Blob([await file("describe-one.png")], { type: "image/png" });
  const reply = await hub.imageToText({ data });
  assert.equal(reply.generated_text, sample("describe-one").answer);
});

test("huggingface: a question about a picture", async () => {
  const image = new Blob([await file("colour.png")], { type: "image/png" });
  const { messages, answer } = sample("colour");
  const reply = await hub.visualQuestionAnswering({ inputs: { question: messages[0].content[1].text, image } });
  assert.equal(reply.answer ?? reply[0].answer, answer);
});

test("huggingface: an error says what is wrong", async () => {
  const wrong = hub.chatCompletion({ messages: sum, temperature: -1 });
  await assert.rejects(wrong, ({ httpResponse }) => {
    assert.equal(httpResponse.status, 400);
    assert.match(JSON.stringify(httpResponse.body), /temperature/);
    return true;
  });
});

test("openai: a chat, whole and streamed", async () => {
  const fields = { model: "any", messages: sum, temperature: 0 };
  const reply = await openai.chat.completions.create(fields);
  assert.equal(reply.choices[0].message.content, "42");
  const chunks = await openai.chat.completions.create({ ...fields, stream: true });
  assert.equal(await joined(chunks, (chunk) => chunk.choices[0]?.delta.content), "42");
});

test("openai: a tool is called, whole and streamed", async () => {
  const { messages, tools } = sample("tool-call");
  const fields = { model: "any", messages, tools, temperature: 0 };
  const wanted = { origin: "San Kyoto", destination: "Zokil" };
  const [call] = (await openai.chat.completions.create(fields)).choices[0].message.tool_calls;
  assert.equal(call.function.name, "book_flight");
  assert.deepEqual(JSON.parse(call.function.arguments), wanted);
  const runner = openai.chat.completions.stream(fields);
  const [streamed] = (await runner.finalMessage()).tool_calls;
  assert.deepEqual(JSON.parse(streamed.function.arguments), wanted);
});

test("openai: completions and models", async () => {
  const reply = await openai.completions.create({ model: "any", prompt, temperature: 0 });
  assert.equal(reply.choices[0].text, "42");
  const models = await openai.models.list();
  assert.equal(models.data.length, 1);
});

test("openai: errors have the client's types", async () => {
  const wrong = openai.chat.completions.create({ model: "any", messages: sum, temperature: -1 });
  await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
});
