/* A list of transcript items on the page: one element per item, made once, updated when and only when its item changed.

   Used for the transcript itself and, inside a card, for the transcript of a sub-agent. */

import { h } from './dom.js';
import { CallView } from './view_call.js';
import { ReplyView } from './view_reply.js';
import { CompactedView, EndView, LineView, WordsView } from './view_words.js';

const views = {
  prompt: WordsView, hint: WordsView, reply: ReplyView, call: CallView, line: LineView, compacted: CompactedView, end: EndView,
};

export class Items {
  #context;
  #shown = new Map(); // key -> {view, changed}

  constructor(context, element = h('div', { class: 'level' })) {
    this.#context = context;
    this.element = element;
  }

  draw(items) {
    let before = null;
    for (const item of items) {
      const shown = this.#shown.get(item.key) ?? this.#add(item, before);
      if (shown.changed !== item.changed) shown.view.update(item);
      else if (item.items?.length) shown.view.drawInner(item);
      shown.changed = item.changed;
      before = shown.view.element;
    }
    if (this.#shown.size > items.length) this.#sweep(new Set(items.map((item) => item.key)));
  }

  /** The next `draw` updates this item whether it changed or not: something beside the log did (the outbox). */
  stale(key) {
    const shown = this.#shown.get(key);
    if (shown) shown.changed = null;
    else for (const { view } of this.#shown.values()) view.inner?.stale(key);
  }

  /** The view of an item, here or in a level below. */
  find(key) {
    const shown = this.#shown.get(key);
    if (shown) return shown.view;
    for (const { view } of this.#shown.values()) {
      const below = view.inner?.find(key);
      if (below) return below;
    }
    return undefined;
  }

  get ticks() {
    return [...this.#shown.values()].some(({ view }) => view.ticks);
  }

  tick() {
    for (const { view } of this.#shown.values()) if (view.ticks) view.tick();
  }

  clear() {
    this.#shown.clear();
    this.element.replaceChildren();
  }

  #add(item, before) {
    const shown = { view: new views[item.kind](this.#context), changed: null };
    this.#shown.set(item.key, shown);
    if (before) before.after(shown.view.element);
    else this.element.prepend(shown.view.element);
    return shown;
  }

  #sweep(keys) {
    for (const [key, { view }] of this.#shown) {
      if (keys.has(key)) continue;
      view.element.remove();
      this.#shown.delete(key);
    }
  }
}
