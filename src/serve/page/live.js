// The server at work: polls its statistics once a second while the page is visible.

const kStates = { s: 'shared', u: 'held', c: 'cached', f: '' };  // of a cell in the map of KV pages
const kHistory = 120;   // seconds of the curve
const kWindow = 60;     // seconds that percentiles look back

// {name: {le: count}} of the histograms in a Prometheus text, models summed.
function histograms(text, names) {
  const found = Object.fromEntries(names.map((name) => [name, new Map()]));
  for (const line of text.split('\n')) {
    const m = /^(\S+?)_bucket\{(.*)\} (\S+)/.exec(line);
    const le = m && found[m[1]] && /le="([^"]+)"/.exec(m[2]);
    if (!le) continue;
    const bound = le[1] === '+Inf' ? Infinity : Number(le[1]);
    found[m[1]].set(bound, (found[m[1]].get(bound) ?? 0) + Number(m[3]));
  }
  return found;
}

// The q quantile of what was counted between two scrapes, linear within its bucket; null: nothing was.
export function quantile(now, before, q) {
  const bounds = [...now.keys()].sort((a, b) => a - b);
  const counts = bounds.map((b) => now.get(b) - (before?.get(b) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (!total) return null;
  const rank = q * total;
  const i = counts.findIndex((count) => count >= rank);
  const low = i ? bounds[i - 1] : 0;
  if (bounds[i] === Infinity) return low;
  const below = i ? counts[i - 1] : 0;
  return low + ((bounds[i] - low) * (rank - below)) / (counts[i] - below);
}

const milliseconds = (seconds) => (seconds === null ? '–' : seconds < 0.1 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000));

// Each cell stands for equally many pages, in the order of their numbers, models one after the other.
function draw_pages(node, map, { held, shared, cached, free }) {
  while (node.childElementCount > map.length) node.lastElementChild.remove();
  while (node.childElementCount < map.length) node.append(document.createElement('i'));
  [...node.children].forEach((cell, i) => {
    const state = kStates[map[i]];
    if (cell.className !== state) cell.className = state;
  });
  node.setAttribute('aria-label',
    `KV pages: ${held} in use, ${shared} of them by several requests, ${cached} cached, ${free} free`);
}

// Those that run first, then the last ones; what took the time stands in the row's title.
function draw_requests(body, list) {
  const running = (request) => request.e2e_seconds === undefined;
  const sorted = [...list.filter(running), ...list.filter((request) => !running(request))];
  body.replaceChildren(...sorted.slice(0, 8).map((request) => {
    const row = document.createElement('tr');
    row.className = running(request) ? 'running' : '';
    const seconds = request.e2e_seconds ?? Math.max(0, Date.now() - request.received_unix_ms) / 1000;
    for (const text of [request.id, request.state, `${seconds.toFixed(1)} s`]) {
      row.insertCell().textContent = text.length > 18 ? text.slice(0, 17) + '…' : text;
    }
    row.title = [`${request.method} ${request.path}`, request.model, request.why].filter(Boolean).join('\n');
    return row;
  }));
}

export function watch(at, headers) {
  const rates = [];
  const scrapes = [];  // {time, found}
  let last = null;
  const kTtft = 'vllm:time_to_first_token_seconds', kItl = 'vllm:inter_token_latency_seconds';

  async function get(path) {
    const response = await fetch(path, { headers: headers() });
    if (response.status === 401 || response.status === 403) throw new Error('The live view needs an admin key.');
    return response.ok ? response : null;
  }

  async function poll() {
    const stats = await (await get('/v1/scheduler/stats'))?.json();
    const metrics = await (await get('/metrics'))?.text();
    if (!stats || !metrics) return;
    const sum = (pick) => stats.data.reduce((total, model) => total + pick(model), 0);
    const now = { time: performance.now() / 1000, generated: sum((m) => m.generated_tokens) };
    const rate = last ? (now.generated - last.generated) / (now.time - last.time) : 0;
    last = now;
    rates.push(rate);
    if (rates.length > kHistory) rates.shift();
    const peak = Math.max(1, ...rates);
    at('spark').firstElementChild.setAttribute('points',
      rates.map((r, i) => `${(i * 120) / kHistory},${29 - (28 * r) / peak}`).join(' '));
    at('rate').textContent = rate.toFixed(0);
    at('running').textContent = sum((m) => m.running);
    at('waiting').textContent = sum((m) => m.waiting);
    const prompt = sum((m) => m.prompt_tokens);
    at('hits').textContent = prompt ? `${Math.round((100 * sum((m) => m.cached_prompt_tokens)) / prompt)} %` : '–';

    scrapes.push({ time: now.time, found: histograms(metrics, [kTtft, kItl]) });
    while (scrapes.length > 1 && scrapes[0].time < now.time - kWindow) scrapes.shift();
    for (const [id, name] of [['ttft', kTtft], ['itl', kItl]]) {
      const newest = scrapes.at(-1).found[name];
      const before = scrapes.length > 1 ? scrapes[0].found[name] : null;
      at(id).textContent = [0.5, 0.95].map((q) => milliseconds(quantile(newest, before, q))).join(' / ') + ' ms';
    }
    const counts = ['held', 'shared', 'cached', 'free'].map((name) => [name, sum((m) => m.kv_pages[name])]);
    draw_pages(at('pages'), stats.data.map((m) => m.kv_pages.map).join(''), Object.fromEntries(counts));
    const requests = await (await get('/v1/requests'))?.json();
    if (requests) draw_requests(at('requests').tBodies[0], requests.data ?? []);
    at('note').textContent = '';
  }

  const tick = async () => {
    if (document.visibilityState === 'visible') {
      try {
        await poll();
      } catch (error) {
        at('note').textContent = error instanceof TypeError ? 'The server does not answer.' : error.message;
      }
    }
    setTimeout(tick, 1000);
  };
  tick();
}
