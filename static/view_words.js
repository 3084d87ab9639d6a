/* A person's words in the transcript, neutral lines, and how a run ended. */

import { h, setText } from './dom.js';
import {
  compactedWords, count, duration, fullTime, money, outcomes, sentence, tokens, tokensInFull, who, wordsState,
} from './words.js';

export class WordsView {
  #context;

  constructor(context) {
    this.#context = context;
    this.text = h('div', { class: 'bubble', dir: 'auto' });
    this.meta = h('p', { class: 'meta' });
    this.element = h('article', { class: 'words' }, this.text, this.meta);
  }

  update(item) {
    const { viewer, command, reuse } = this.#context;
    this.element.dataset.kind = item.kind;
    this.element.dataset.state = item.state;
    setText(this.text, item.text);
    this.text.title = fullTime(item.at);
    const parts = [item.author && item.author !== viewer() ? item.author : '', wordsState(item)].filter(Boolean);
    this.meta.replaceChildren(parts.join(' · '));
    if (item.state === 'waiting') {
      const takeBack = () => command({ type: 'withdraw', target: item.message });
      this.meta.append(h('button', { type: 'button', class: 'quiet', onclick: takeBack }, 'Take back'));
    }
    if (item.state === 'dropped' || item.state === 'withdrawn') {
      this.meta.append(h('button', { type: 'button', class: 'quiet', onclick: () => reuse(item.text) }, 'Use again'));
    }
    this.meta.hidden = !this.meta.childNodes.length || !this.meta.textContent;
  }
}

export class LineView {
  #context;

  constructor(context) {
    this.#context = context;
    this.element = h('p', { class: 'line', dir: 'auto' });
  }

  update({ event }) {
    setText(this.element, sentence(event, this.#context.viewer()));
    this.element.title = fullTime(event.at);
  }
}

/** That the model has a summary from here on, and, to unfold, which. */
export class CompactedView {
  constructor() {
    this.element = h('div', { class: 'line' });
  }

  update({ before, after, summary, at }) {
    const words = compactedWords({ before, after });
    this.element.title = fullTime(at);
    this.element.replaceChildren(summary
      ? h('details', {}, h('summary', {}, words), h('div', { class: 'plain', dir: 'auto' }, summary))
      : words);
  }
}

export class EndView {
  #context;

  constructor(context) {
    this.#context = context;
    this.element = h('div', { class: 'end' });
  }

  update({ outcome, usage, steps, ms, error, by, asked }) {
    const whose = by ? ` by ${who(by, this.#context.viewer())}` : '';
    const facts = [`${outcomes[outcome]}${whose}`, duration(ms), count(steps, 'step'), tokens(usage), money(usage)].filter(Boolean);
    this.element.dataset.outcome = outcome;
    const line = h('p', { class: 'facts', title: tokensInFull(usage) }, facts.join(' · '));
    if (!error) return this.element.replaceChildren(line);
    const retry = () => this.#context.command({ type: 'prompt', text: asked });
    const failure = h('div', { class: 'failure' },
      h('h2', {}, 'The run failed'),
      h('p', { dir: 'auto' }, error.message),
      h('p', { class: 'note' }, error.kind),
      asked && h('button', { type: 'button', onclick: retry }, 'Try again'));
    return this.element.replaceChildren(failure, line);
  }
}
