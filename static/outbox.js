/* What a person has said and the server has not answered yet, for one conversation.

   Every command has an id, is kept in sessionStorage until it is accepted or rejected or its own event arrives, and is
   sent again after each `attached`: the id makes that safe. An accepted command stays in memory until the cursor has
   passed its event, so that the page never shows a gap between "sent" and "happened". No socket, no DOM. */

import { parse, print } from './exact.js';
import { pending } from './storage.js';

/** 128 random bits; also where `crypto.randomUUID` is missing, on plain http. */
export function freshId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export class Outbox {
  #key;
  #entries = []; // {frame, accepted: seq or null}
  #onchange;

  constructor(conversation, onchange) {
    this.#key = `holdfast.outbox.${conversation}`;
    this.#onchange = onchange;
    this.#entries = read(this.#key).map((frame) => ({ frame, accepted: null }));
  }

  add(frame) {
    const entry = { frame: { id: freshId(), ...frame }, accepted: null };
    this.#entries.push(entry);
    this.#changed();
    return entry;
  }

  /** Everything that is on its way, in order; `waiting` only what nobody has answered. */
  all() {
    return this.#entries;
  }

  waiting() {
    return this.#entries.filter((entry) => entry.accepted === null);
  }

  find(matches) {
    return this.#entries.find((entry) => matches(entry.frame));
  }

  accepted(id, seq, cursor) {
    const entry = this.find((frame) => frame.id === id);
    if (!entry) return;
    entry.accepted = seq;
    this.#settle(cursor);
  }

  rejected(id) {
    const entry = this.find((frame) => frame.id === id);
    this.#entries = this.#entries.filter((other) => other !== entry);
    this.#changed();
    return entry;
  }

  /** These events are applied; the cursor is `cursor`. */
  seen(events, cursor) {
    for (const { cause, seq } of events) {
      const entry = cause && this.find((frame) => frame.id === cause);
      if (entry) entry.accepted = seq;
    }
    this.#settle(cursor);
  }

  /** The server would not take a frame of this size: the largest is not sent again. */
  giveUpLargest() {
    const size = (entry) => print(entry.frame).length;
    const [largest] = this.waiting().sort((a, b) => size(b) - size(a));
    return largest && this.rejected(largest.frame.id);
  }

  #settle(cursor) {
    const before = this.#entries.length;
    this.#entries = this.#entries.filter((entry) => entry.accepted === null || entry.accepted > cursor);
    if (before) this.#changed();
  }

  #changed() {
    const frames = this.waiting().map((entry) => entry.frame);
    if (frames.length) pending.set(this.#key, print(frames));
    else pending.remove(this.#key);
    this.#onchange();
  }
}

function read(key) {
  try {
    return parse(pending.get(key) ?? '[]');
  } catch {
    return [];
  }
}
