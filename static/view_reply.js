/* One reply of the model in the transcript: its reasoning (closed), its text, and what became of the attempt. */

import { h, setText } from './dom.js';
import { Prose } from './prose.js';
import { elapsed, finishes, interruptions } from './words.js';

export class ReplyView {
  #context;
  #prose;
  #thoughts = null;
  #thinking = h('p', { class: 'thinking' }, h('i'), h('i'), h('i'), h('span', { class: 'unseen' }, 'The model is answering'));
  #note = h('p', { class: 'note' });
  #reply = null;

  constructor(context) {
    this.#context = context;
    this.#prose = new Prose(context.whenNear);
    this.element = h('article', { class: 'reply' });
  }

  update(reply) {
    this.#reply = reply;
    const open = reply.phase === 'open';
    const parts = [];
    if (reply.reasoning) parts.push(this.#reasoning(reply));
    if (reply.text) {
      this.#prose.show(reply.text, !open);
      parts.push(this.#prose.element);
    }
    if (open && !reply.text) parts.push(this.#thinking);
    if (this.#remark(reply)) parts.push(this.#note);
    if (parts.some((part, index) => this.element.children[index] !== part) || this.element.children.length !== parts.length) {
      this.element.replaceChildren(...parts);
    }
    this.element.hidden = parts.length === 0;
    this.element.dataset.phase = reply.phase;
    this.ticks = Boolean(reply.retry_at) && !open;
  }

  tick() {
    this.#remark(this.#reply);
  }

  #reasoning({ reasoning, text, phase }) {
    if (!this.#thoughts) {
      this.#thoughts = { summary: h('summary', {}), text: document.createTextNode('') };
      const body = h('div', { class: 'plain', dir: 'auto' });
      body.append(this.#thoughts.text);
      this.#thoughts.element = h('details', { class: 'reasoning' }, this.#thoughts.summary, body);
    }
    const shown = this.#thoughts.text;
    if (reasoning.startsWith(shown.data)) shown.appendData(reasoning.slice(shown.length));
    else shown.data = reasoning;
    setText(this.#thoughts.summary, phase === 'open' && !text ? 'Thinking…' : 'Reasoning');
    return this.#thoughts.element;
  }

  /** Writes what there is to say about how the attempt ended; false if there is nothing. */
  #remark({ phase, reason, error, retry_at, finish, attempt }) {
    const words = [];
    if (phase === 'interrupted') words.push(interruptions[reason] ?? 'Interrupted');
    if (phase === 'failed' && retry_at) words.push(`Attempt ${attempt} failed`);
    if (error && retry_at) words.push(error.message);
    if (phase === 'replied' && finishes[finish]) words.push(finishes[finish]);
    if (retry_at && this.#context.retrying(this.#reply)) {
      const left = retry_at - this.#context.now();
      words.push(left > 0 ? `Asking again in ${elapsed(left + 999)}` : 'Asking again');
    }
    setText(this.#note, words.map((sentence) => sentence.replace(/\.$/, '')).join('. '));
    return words.length > 0;
  }
}
