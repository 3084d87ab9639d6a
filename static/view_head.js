/* The line above the transcript: which conversation this is, what can be done with it, and whether what it shows is live.

   The connection's word is always true: "Live" is said only after `live`, and taken back the moment that a socket ends. */

import { $, h, setText } from './dom.js';
import { connectionWords } from './words.js';

const CONNECTING_SHOWN_AFTER_MS = 1_000; // a connection that is there at once need not be talked about

export class Head {
  #actions = {};
  #state = null;
  #slow = 0;

  constructor() {
    const [, , retry] = $('connection').children;
    retry.addEventListener('click', () => this.#actions.retryNow());
    for (const name of ['rename', 'title']) $(name).addEventListener('click', () => this.#rename());
    $('delete').addEventListener('click', () => this.#actions.remove());
  }

  /** `actions`: {retryNow, rename(title), remove}; null for a conversation that does not exist yet. */
  open(actions) {
    clearTimeout(this.#slow);
    this.#actions = actions ?? {};
    this.#state = null;
    $('connection').hidden = true;
    $('rename').hidden = $('delete').hidden = !actions;
    this.name(actions ? '' : 'New chat', '');
  }

  name(title, agent) {
    if (!$('title').querySelector('input')) setText($('title'), title);
    setText($('agent'), agent);
  }

  connection(state) {
    clearTimeout(this.#slow);
    if (state.phase === 'catching' && !state.total) return; // nothing to catch up with: `live` is next
    if (state.phase === 'connecting') {
      this.#slow = setTimeout(() => this.#show(state), CONNECTING_SHOWN_AFTER_MS);
    } else this.#show(state);
  }

  tick() {
    if (this.#state?.retry_at) this.#show(this.#state);
  }

  #show(state) {
    const [, words, retry] = $('connection').children;
    this.#state = state;
    $('connection').hidden = false;
    $('connection').dataset.phase = state.phase;
    setText(words, connectionWords(state, Date.now()));
    retry.hidden = state.phase !== 'offline' && state.phase !== 'restarting';
    $('rename').hidden = $('delete').hidden = state.phase === 'closed';
  }

  #rename() {
    if (!this.#actions.rename || $('title').querySelector('input')) return;
    const title = $('title').textContent;
    const input = h('input', { type: 'text', maxlength: '200', 'aria-label': 'Title', dir: 'auto' });
    let over = false;
    const finish = (keep) => {
      if (over) return;
      over = true;
      const text = input.value.trim();
      const changed = keep && text && text !== title;
      $('title').replaceChildren(changed ? text : title);
      if (changed) this.#actions.rename(text);
    };
    input.value = title;
    input.addEventListener('keydown', (event) => {
      if (event.isComposing) return;
      if (event.key !== 'Enter' && event.key !== 'Escape') return;
      event.preventDefault(); // or the Enter would press the button that gets the focus
      finish(event.key === 'Enter');
      $('rename').focus();
    });
    input.addEventListener('blur', () => finish(true));
    $('title').replaceChildren(input);
    input.select();
  }
}
