/* The one place where HTML enters the page: finished Markdown, rendered and sanitised by this server, put in through the
   one Trusted Types policy. What cannot be rendered stays the plain text that it is. */

import { h } from './dom.js';

const asIs = { createHTML: (html) => html };
const policy = globalThis.trustedTypes?.createPolicy('holdfast', asIs) ?? asIs;

const KEPT = 500; // rendered texts; a conversation that is opened again finds them here
const TOGETHER = 4; // requests at a time
const AGAIN_MS = 4_000;
const kept = new Map();
const waiting = [];
let running = 0;

/** Puts rendered `text` into `element` if that can be done and is still wanted; resolves to whether it was. */
export async function typeset(element, text, stillWanted = () => true) {
  const html = kept.get(text) ?? (await queued(() => (stillWanted() ? fetchHtml(text, stillWanted) : null)));
  if (html === null || !stillWanted()) return false;
  element.innerHTML = policy.createHTML(html);
  for (const block of element.querySelectorAll('p, li, h1, h2, h3, h4, h5, h6, blockquote, td, th')) block.dir = 'auto';
  for (const block of element.querySelectorAll('pre')) frame(block);
  for (const block of element.querySelectorAll('table')) block.tabIndex = 0; // it scrolls sideways
  return true;
}

async function queued(work) {
  if (running >= TOGETHER) await new Promise((go) => waiting.push(go));
  running += 1;
  try {
    return await work();
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

/** The HTML, or null where the server refuses. Comes back while it is away or busy. */
async function fetchHtml(text, stillWanted) {
  while (stillWanted()) {
    try {
      const answer = await fetch('/api/render', {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ text }),
      });
      if (answer.ok) return keep(text, (await answer.json()).html);
      if (answer.status < 500 && answer.status !== 429) return null;
    } catch {
      // not reachable: the text is readable as it is, and there is time
    }
    await new Promise((go) => setTimeout(go, AGAIN_MS));
  }
  return null;
}

function keep(text, html) {
  kept.set(text, html);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return html;
}

function frame(block) {
  const element = h('div', { class: 'code' });
  block.replaceWith(element);
  block.tabIndex = 0; // it scrolls sideways
  element.append(block);
  if (!navigator.clipboard) return; // only where the page is served securely
  const button = h('button', { type: 'button', class: 'copy', 'aria-label': 'Copy code' }, 'Copy');
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(block.querySelector('code').textContent);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1_500);
  });
  element.append(button);
}
