/* The live list: what `GET /ws` says of the newest conversations, and every change to one of them.

   No cursor: a new connection starts over, so the list is rebuilt between its greeting and `live`. No DOM. */

import { Socket } from './socket.js';

export class List {
  #socket;
  #onchange;
  #items = new Map();
  #incoming = new Map();
  #live = false;

  /** `onchange({item?, before?})`: the list changed; `item` and what it was `before`, where a single one did. */
  constructor(onchange) {
    this.#onchange = onchange;
    this.#socket = new Socket({
      address: () => new URL('/ws', location.href.replace(/^http/, 'ws')).href,
      onframe: (frame) => this.#received(frame),
      onchange: ({ phase }) => { if (phase === 'connecting') this.#startOver(); },
    });
  }

  /** Newest first, and it stays so while several are at work. */
  get items() {
    return [...this.#items.values()].sort((a, b) => b.created_at - a.created_at);
  }

  /** How many of them wait for a person. */
  get waiting() {
    return [...this.#items.values()].filter((item) => item.status === 'waiting').length;
  }

  get loaded() {
    return this.#live;
  }

  /** Takes one out before the server says so: it was deleted here. */
  forget(conversation) {
    this.#items.delete(conversation);
    this.#incoming.delete(conversation);
    this.#onchange({});
  }

  #startOver() {
    this.#live = false;
    this.#incoming = new Map();
  }

  #received(frame) {
    if (frame.type === 'live') {
      this.#items = this.#incoming;
      this.#live = true;
      this.#socket.live();
      this.#onchange({});
    } else if (frame.type === 'conversation') this.#changed(frame.item);
    else if (frame.type === 'conversation_deleted') this.forget(frame.conversation);
  }

  #changed(item) {
    if (!this.#live) return void this.#incoming.set(item.conversation, item);
    const before = this.#items.get(item.conversation);
    this.#items.set(item.conversation, item);
    return this.#onchange({ item, before });
  }
}
