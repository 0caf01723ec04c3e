// What a program on Node does with the openai package: asks everything once, prints the answers as one line of JSON.
// usage: node client.mjs BASE_URL MODEL
import OpenAI from 'openai';

const [baseURL, model] = process.argv.slice(2);
const calls = []; // method, path and content type of what was answered
const listening = async (url, options) => {
  const answer = await fetch(url, options);
  if (answer.ok) calls.push([options.method.toUpperCase(), new URL(url).pathname, answer.headers.get('content-type')]);
  return answer;
};
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0, timeout: 120_000, fetch: listening });
const messages = [{ role: 'user', content: 'What is the capital of France? Answer with one word.' }];
const chat = { model, messages, temperature: 0, max_tokens: 20 };
const schema = {
  type: 'object',
  properties: { city: { enum: ['Paris', 'Rome'] } },
  required: ['city'],
  additionalProperties: false,
};
const result = {};

result.models = (await client.models.list()).data.map((entry) => entry.id);
result.chat = await client.chat.completions.create(chat);

result.streamed = { text: '', usage: null };
const stream = await client.chat.completions.create({ ...chat, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  result.streamed.text += chunk.choices[0]?.delta.content ?? '';
  result.streamed.usage = chunk.usage ?? result.streamed.usage;
}

const runner = client.chat.completions.stream({
  ...chat,
  max_tokens: 200,
  tools: [{ type: 'function', function: { name: 'go', parameters: schema } }],
  tool_choice: { type: 'function', function: { name: 'go' } },
  parallel_tool_calls: false,
});
result.call = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0].function;

result.ran = [];
const go = (place) => {
  result.ran.push(place);
  return 'I went there.';
};
const tools = [{ type: 'function', function: { name: 'go', parse: JSON.parse, parameters: schema, function: go } }];
const only = { type: 'function', function: { name: 'go' } };
await client.chat.completions.runTools({ ...chat, max_tokens: 200, tools, tool_choice: only, parallel_tool_calls: false }).done();

const format = { type: 'json_schema', json_schema: { name: 'place', schema, strict: true } };
result.parsed = (await client.chat.completions.parse({ ...chat, max_tokens: 200, response_format: format })).choices[0].message.parsed;

result.completion = (await client.completions.create({ model, prompt: 'Once upon a time', temperature: 0, max_tokens: 8 })).choices[0].text;

const response = await client.responses.create({ model, input: messages[0].content, temperature: 0, max_output_tokens: 20 });
result.response = response.output_text;
const next = { model, input: 'And of Italy?', previous_response_id: response.id, temperature: 0, max_output_tokens: 4 };
result.events = [];
for await (const event of await client.responses.create({ ...next, stream: true })) result.events.push(event.type);
result.kept = (await client.responses.retrieve(response.id)).output_text;
await client.responses.delete(response.id);

const failure = async (call) => {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
};
result.gone = await failure(() => client.responses.retrieve(response.id));
result.wrong = await failure(() => client.chat.completions.create({ ...chat, temperature: 9 }));
result.unknown = await failure(() => client.chat.completions.create({ ...chat, model: 'no-such-model' }));

const long = await client.chat.completions.create({ ...chat, max_tokens: 400, ignore_eos: true, stream: true });
for await (const _ of long) {
  long.controller.abort();
  result.aborted = true;
}

console.log(JSON.stringify({ ...result, calls }));
