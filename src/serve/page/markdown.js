// Markdown to DOM nodes. Builds elements, never HTML text: what a model writes cannot become markup.
// Knows what models use: fences, headings, lists, quotes, tables, rules; bold, italics, code, links.

const kInline = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([\s\S]+?)\*\*|(?<!\w)__([\s\S]+?)__(?!\w)|\*([^\s*][\s\S]*?)\*|(?<!\w)_([^\s_][\s\S]*?)_(?!\w)|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/;

function element(name, ...children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function inline(text) {
  const nodes = [];
  for (let left = text; left; ) {
    const m = kInline.exec(left);
    if (!m) {
      nodes.push(left);
      break;
    }
    if (m.index) nodes.push(left.slice(0, m.index));
    if (m[2]) nodes.push(element('code', m[2]));
    else if (m[3] ?? m[4]) nodes.push(element('strong', ...inline(m[3] ?? m[4])));
    else if (m[5] ?? m[6]) nodes.push(element('em', ...inline(m[5] ?? m[6])));
    else {
      const link = element('a', m[7]);
      link.href = m[8];
      link.rel = 'noopener noreferrer';
      link.target = '_blank';
      nodes.push(link);
    }
    left = left.slice(m.index + m[0].length);
  }
  return nodes;
}

const kItem = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/;

// Items of one list, deeper ones as lists of their own; returns the node and the next line.
function list(lines, at) {
  const first = kItem.exec(lines[at]);
  const depth = first[1].length;
  const node = element(/\d/.test(first[2]) ? 'ol' : 'ul');
  if (node.tagName === 'OL' && parseInt(first[2]) > 1) node.start = parseInt(first[2]);
  while (at < lines.length) {
    const m = kItem.exec(lines[at]);
    if (m && m[1].length === depth) {
      node.append(element('li', ...inline(m[3])));
      ++at;
    } else if (m && m[1].length > depth) {
      const [inner, next] = list(lines, at);
      node.lastElementChild.append(inner);
      at = next;
    } else if (!m && /^\s+\S/.test(lines[at])) {  // a line that belongs to the item
      node.lastElementChild.append(' ', ...inline(lines[at++].trim()));
    } else {
      break;
    }
  }
  return [node, at];
}

const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim());

function table(lines, at) {
  const row = (name, line) => element('tr', ...cells(line).map((cell) => element(name, ...inline(cell))));
  const node = element('table', element('thead', row('th', lines[at])));
  const body = element('tbody');
  for (at += 2; at < lines.length && lines[at].includes('|'); ++at) body.append(row('td', lines[at]));
  node.append(body);
  return [node, at];
}

export function markdown(text) {
  const lines = text.split('\n');
  const out = document.createDocumentFragment();
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) out.append(element('p', ...inline(paragraph.join('\n'))));
    paragraph = [];
  };
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const fence = /^\s*(`{3,}|~{3,})/.exec(line);
    if (fence) {
      flush();
      const code = [];
      for (++at; at < lines.length && !lines[at].trim().startsWith(fence[1]); ++at) code.push(lines[at]);
      ++at;
      out.append(element('pre', element('code', code.join('\n'))));
      continue;
    }
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (heading) {
      flush();
      out.append(element('h' + Math.min(6, heading[1].length + 2), ...inline(heading[2])));
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      flush();
      out.append(element('hr'));
    } else if (kItem.test(line)) {
      flush();
      const [node, next] = list(lines, at);
      out.append(node);
      at = next;
      continue;
    } else if (line.includes('|') && /^[\s|:-]*-[\s|:-]*$/.test(lines[at + 1] ?? '') && lines[at + 1].includes('|')) {
      flush();
      const [node, next] = table(lines, at);
      out.append(node);
      at = next;
      continue;
    } else if (/^>\s?/.test(line)) {
      flush();
      const quoted = [];
      for (; at < lines.length && /^>\s?/.test(lines[at]); ++at) quoted.push(lines[at].replace(/^>\s?/, ''));
      out.append(element('blockquote', markdown(quoted.join('\n'))));
      continue;
    } else if (!line.trim()) {
      flush();
    } else {
      paragraph.push(line);
    }
    ++at;
  }
  flush();
  return out;
}
