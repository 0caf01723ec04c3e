// The chat: one conversation in memory, streamed from /v1/chat/completions. live.js shows the server.
import { markdown } from '/markdown.js';
import { watch } from '/live.js';

const at = (id) => document.getElementById(id);
const conversation = [];  // {role, content}
let running = null;       // AbortController of the answer that streams

function headers() {
  const key = at('key').value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function fail(response) {
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error.message;
  } catch { /* not JSON */ }
  throw new Error(message || `status ${response.status}`);
}

async function load_models() {
  const response = await fetch('/v1/models', { headers: headers() });
  if (!response.ok) await fail(response);
  const { data } = await response.json();
  const chosen = at('model').value;
  const chatting = data.filter(({ task }) => task === 'generate');
  at('model').replaceChildren(...chatting.map(({ id }) => new Option(id, id, false, id === chosen)));
}

function add_message(kind, content) {
  const item = document.createElement('li');
  item.className = kind;
  item.append(content);
  at('messages').append(item);
  item.scrollIntoView({ block: 'end' });
  return item;
}

function request_body() {
  const messages = [...conversation];
  if (at('system').value.trim()) messages.unshift({ role: 'system', content: at('system').value });
  const body = { model: at('model').value, messages, stream: true, stream_options: { include_usage: true } };
  for (const name of ['temperature', 'top_p', 'seed', 'max_tokens']) {
    if (at(name).value !== '') body[name] = Number(at(name).value);
  }
  return body;
}

// Server-sent events of a response, parsed.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split('\n').filter((l) => l.startsWith('data:')).map((l) => l.slice(5).trim()).join('\n');
      if (data && data !== '[DONE]') yield JSON.parse(data);
    }
  }
}

function busy(yes) {
  at('send').hidden = yes;
  at('stop').hidden = !yes;
}

// What the model thought before it answered.
function thinking(text, open) {
  const box = document.createElement('details');
  box.className = 'thinking';
  box.open = open;
  const summary = document.createElement('summary');
  summary.textContent = 'Thinking';
  summary.addEventListener('click', () => { box.parentElement.dataset.opened = box.open ? 'no' : 'yes'; });
  box.append(summary, markdown(text));
  return box;
}

async function answer() {
  const item = add_message('assistant', '');
  const began = performance.now();
  let text = '', thoughts = '', first = 0, usage = null, shown = 0;
  const show = () => {
    shown = 0;
    const list = at('messages');
    const follow = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    const open = item.dataset.opened ? item.dataset.opened === 'yes' : !text;  // closes when the answer begins
    item.replaceChildren(markdown(text));
    if (thoughts) item.prepend(thinking(thoughts, open));
    if (follow) list.scrollTop = list.scrollHeight;
  };
  running = new AbortController();
  busy(true);
  try {
    const response = await fetch('/v1/chat/completions', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers() },
      body: JSON.stringify(request_body()),
      signal: running.signal,
    });
    if (!response.ok) await fail(response);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      if (event.usage) usage = event.usage;
      const delta = event.choices?.[0]?.delta;
      if (!delta?.content && !delta?.reasoning_content) continue;
      first ||= performance.now();
      text += delta.content ?? '';
      thoughts += delta.reasoning_content ?? '';
      shown ||= requestAnimationFrame(show);
    }
  } catch (error) {
    if (error.name !== 'AbortError') add_message('error', error.message);
  } finally {
    running = null;
    busy(false);
    if (shown) cancelAnimationFrame(shown);
    show();
    if (text) conversation.push({ role: 'assistant', content: text });
    if (usage && first) {
      const seconds = (performance.now() - first) / 1000;
      const figures = document.createElement('div');
      figures.className = 'figures';
      const speed = usage.completion_tokens > 1 ? `, ${((usage.completion_tokens - 1) / seconds).toFixed(1)} a second` : '';
      figures.textContent = `${usage.completion_tokens} tokens${speed}, first after ${Math.round(first - began)} ms`;
      item.append(figures);
    }
    at('text').focus();
  }
}

at('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = at('text').value.trim();
  if (!text || running) return;
  at('text').value = '';
  conversation.push({ role: 'user', content: text });
  add_message('user', text);
  answer();
});
at('text').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at('ask').requestSubmit();
  }
});
at('stop').addEventListener('click', () => running?.abort());
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') running?.abort();
});
at('new').addEventListener('click', () => {
  running?.abort();
  conversation.length = 0;
  at('messages').replaceChildren();
  at('text').focus();
});
at('key').value = sessionStorage.getItem('key') ?? '';
at('key').addEventListener('change', () => {
  sessionStorage.setItem('key', at('key').value);
  start();
});

function start() {
  load_models().catch((error) => add_message('error', error.message));
}
start();
watch(at, headers);
at('text').focus();
