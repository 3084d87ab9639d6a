/* The text of one reply on the page: finished blocks as rendered Markdown, the open tail as plain text.

   While text streams, only the tail is touched; a block that is finished (a blank line outside a code fence) moves from
   the tail into the rendered part. At the end the whole text is rendered once more, so that a page that saw it grow and
   a page that was opened later show the same. Put in by markdown.js; nothing here parses HTML. */

import { h } from './dom.js';
import { typeset } from './markdown.js';

export class Prose {
  #tail = document.createTextNode('');
  #open = h('div', { class: 'plain', dir: 'auto' });
  #text = '';
  #from = 0; // what comes before is rendered
  #scanned = 0; // complete lines up to here have been looked at
  #boundary = 0; // where the last finished block ends
  #fence = '';
  #rendering = false;
  #finished = false;

  constructor(whenNear) {
    this.element = h('div', { class: 'prose' }, this.#open);
    this.#open.append(this.#tail);
    this.whenNear = whenNear;
  }

  /** The text as it is now; `finished`: it will not change any more. */
  show(text, finished) {
    if (this.#finished && text === this.#text) return;
    const grown = text.startsWith(this.#text) ? text.slice(this.#text.length) : null;
    if (grown === null) this.#startOver();
    if (grown !== '') this.#tail.appendData(grown ?? text);
    this.#text = text;
    this.#finished = finished;
    if (finished) this.#renderAll(grown === text);
    else this.#renderBlocks();
  }

  #startOver() {
    this.element.replaceChildren(this.#open);
    this.#tail.data = '';
    this.#from = this.#scanned = this.#boundary = 0;
    this.#fence = '';
  }

  /** `atOnce`: nobody saw it grow, so there is no hurry before it comes near the window. */
  async #renderAll(unseen) {
    const text = this.#text;
    if (!text.trim()) return;
    if (unseen) await this.whenNear(this.element);
    const whole = h('div', { class: 'rendered' });
    const wanted = () => this.#finished && this.#text === text && this.element.isConnected;
    if (await typeset(whole, text, wanted)) this.element.replaceChildren(whole);
  }

  async #renderBlocks() {
    this.#scan();
    if (this.#rendering || this.#boundary === this.#from) return;
    const [from, to] = [this.#from, this.#boundary];
    const block = h('div', { class: 'rendered' });
    const wanted = () => !this.#finished && this.#from === from && this.#boundary >= to;
    this.#rendering = true;
    const done = await typeset(block, this.#text.slice(from, to), wanted);
    this.#rendering = false;
    if (!done) return;
    this.#open.before(block);
    this.#from = to;
    this.#tail.data = this.#text.slice(to);
  }

  #scan() {
    for (let end; (end = this.#text.indexOf('\n', this.#scanned)) !== -1; this.#scanned = end + 1) {
      const line = this.#text.slice(this.#scanned, end);
      const [, fence] = /^ {0,3}(`{3,}|~{3,})/.exec(line) ?? [];
      if (this.#fence) {
        if (fence?.startsWith(this.#fence) && line.trim() === fence) this.#fence = '';
      } else if (fence) this.#fence = fence;
      if (!this.#fence && !line.trim()) this.#boundary = end + 1;
    }
  }
}
