/* The page before there is a conversation: a welcome, and the first prompt on its way.

   The creation has one id, kept in sessionStorage until the server has answered: tried again, reloaded or clicked twice,
   it makes one conversation. */

import { Refused, create } from './api.js';
import { $, h, setText } from './dom.js';
import { freshId } from './outbox.js';
import { pending } from './storage.js';
import { toast } from './toast.js';

const KEPT = 'holdfast.creation';
const AGAIN_MS = 2_000;

export class Creation {
  #composer;
  #oncreated;
  #over = false;

  constructor({ head, composer, oncreated }) {
    this.#composer = composer;
    this.#oncreated = oncreated;
    this.title = '';
    head.open(null);
    composer.open(null, { submit: (_type, text) => this.#submit(text) });
    const kept = pending.get(KEPT);
    $('welcome').hidden = Boolean(kept);
    if (kept) this.#create(JSON.parse(kept));
    else if (matchMedia('(pointer: fine)').matches) composer.focus(); // elsewhere it would bring up the keyboard
  }

  tick() {}

  stop() {
    this.#over = true;
    $('welcome').hidden = true;
    $('unsent').replaceChildren();
  }

  #submit(text) {
    if (pending.get(KEPT)) return this.#composer.giveBack(text); // one at a time
    const creation = { id: freshId(), prompt: text };
    pending.set(KEPT, JSON.stringify(creation));
    return this.#create(creation);
  }

  async #create({ id, prompt }) {
    const note = h('p', { class: 'meta' }, 'Sending…');
    $('welcome').hidden = true;
    const bubble = h('div', { class: 'bubble', dir: 'auto' }, prompt);
    $('unsent').replaceChildren(h('article', { class: 'words unsent' }, bubble, note));
    while (!this.#over) {
      try {
        const { conversation } = await create(id, prompt);
        pending.remove(KEPT);
        if (!this.#over) this.#oncreated(conversation);
        return;
      } catch (error) {
        if (error instanceof Refused && error.status < 500 && error.status !== 429) return this.#refused(error, prompt);
        setText(note, 'Will be sent when the server can be reached');
      }
      await new Promise((go) => setTimeout(go, AGAIN_MS));
    }
  }

  #refused(error, prompt) {
    pending.remove(KEPT);
    $('unsent').replaceChildren();
    $('welcome').hidden = false;
    this.#composer.giveBack(prompt);
    toast(error.message);
  }
}
