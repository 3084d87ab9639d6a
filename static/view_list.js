/* The conversations at the side: newest first, each with what it is doing; or what a search found. */

import { $, h, setText } from './dom.js';
import { older, search } from './api.js';
import { ago, fullTime, listWords } from './words.js';

const SEARCH_AFTER_MS = 200;
const LIVE_MAX = 100; // the live list holds so many; those before them are asked for

export class ListView {
  #rows = new Map(); // conversation -> {row, title, state}
  #items = [];
  #found = null;
  #open = null;
  #asked = 0;
  #older = [];
  #next; // where the older ones go on: undefined = not asked yet, null = that was all

  constructor() {
    const input = $('search');
    let timer = 0;
    input.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#search(input.value.trim()), SEARCH_AFTER_MS);
    });
    input.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.isComposing) return;
      input.value = '';
      this.#search('');
    });
    $('list').addEventListener('keydown', (event) => this.#arrows(event));
    $('older').addEventListener('click', () => this.#showOlder());
  }

  show(items, open) {
    this.#items = items;
    this.#open = open;
    this.#draw();
  }

  async #search(q) {
    const asked = ++this.#asked;
    if (!q) {
      this.#found = null;
      return this.#draw();
    }
    try {
      const { conversations } = await search(q);
      if (asked !== this.#asked) return undefined;
      this.#found = conversations;
      return this.#draw();
    } catch (error) {
      const why = error.status ? error.message : 'The server is not reachable.';
      if (asked === this.#asked) this.#note(`The search did not work. ${why}`);
      return undefined;
    }
  }

  #draw() {
    const live = new Map(this.#items.map((item) => [item.conversation, item]));
    const items = this.#found?.map((item) => live.get(item.conversation) ?? item)
      ?? [...this.#items, ...this.#older.filter((item) => !live.has(item.conversation))];
    $('older').hidden = Boolean(this.#found) || this.#items.length < LIVE_MAX || this.#next === null;
    const rows = items.map((item) => this.#row(item));
    const there = [...$('list').children];
    if (rows.length !== there.length || rows.some((row, index) => there[index] !== row)) $('list').replaceChildren(...rows);
    this.#note(this.#found && !rows.length ? 'Nothing found.' : '');
  }

  async #showOlder() {
    try {
      this.#next ??= (await older()).next ?? null;
      const { conversations, next } = this.#next ? await older(this.#next) : { conversations: [] };
      this.#older.push(...conversations);
      this.#next = next ?? null;
      this.#draw();
    } catch {
      this.#note('The server is not reachable.');
    }
  }

  #note(text) {
    setText($('list-note'), text);
    $('list-note').hidden = !text;
  }

  #row(item) {
    let parts = this.#rows.get(item.conversation);
    if (!parts) {
      const title = h('span', { class: 'name', dir: 'auto' });
      const state = h('span', { class: 'doing' });
      const link = h('a', { href: `/c/${encodeURIComponent(item.conversation)}` }, title, state);
      parts = { row: h('li', {}, link), link, title, state };
      this.#rows.set(item.conversation, parts);
    }
    const current = item.conversation === this.#open;
    parts.link.dataset.status = item.status;
    if (current) parts.link.setAttribute('aria-current', 'page');
    else parts.link.removeAttribute('aria-current');
    setText(parts.title, item.title || 'New conversation');
    setText(parts.state, listWords[item.status] || ago(item.updated_at, Date.now()));
    parts.link.title = `${item.title}\n${fullTime(item.updated_at)}`;
    return parts.row;
  }

  #arrows(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const links = [...$('list').querySelectorAll('a')];
    const next = step && links[links.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}
