/* The notes of the open conversation, by kind: a panel over the page that a button in the head opens. There is no button
   where there are no notes. */

import { $, h, setText } from './dom.js';
import { visible } from './exact.js';
import { notebook } from './fold.js';
import { fullTime, noteKinds, notesWords, who } from './words.js';

export class Notes {
  #viewer;
  #drawn = 0;

  /** `viewer()`: who looks. */
  constructor(viewer) {
    this.#viewer = viewer;
    this.stop();
  }

  draw(state) {
    if (this.#drawn === state.noted) return;
    this.#drawn = state.noted;
    $('notes-open').hidden = state.notes.size === 0;
    setText($('notes-open'), notesWords(state.notes.size));
    const { current_task: current } = notebook(state);
    const sections = Object.keys(noteKinds).map((kind) => this.#section(kind, [...state.notes.values()], current));
    $('notes').replaceChildren(h('h2', {}, 'Notes'), ...sections.filter(Boolean));
  }

  stop() {
    this.#drawn = 0;
    $('notes').togglePopover(false);
    $('notes').replaceChildren();
    $('notes-open').hidden = true;
  }

  #section(kind, notes, current) {
    const rows = notes.filter((note) => note.kind === kind).map((note) => this.#row(note));
    if (!rows.length) return null;
    const now = kind === 'progress' && current && h('p', { class: 'now', dir: 'auto' }, h('b', {}, 'Now: '), visible(current));
    return h('section', {}, h('h3', {}, noteKinds[kind]), now, h('ol', {}, ...rows));
  }

  #row({ text, at, by, task, result }) {
    const facts = [fullTime(at), by && who(by, this.#viewer())].filter(Boolean).join(' · ');
    const said = task === undefined ? [visible(text)] : [h('b', {}, '✓ ', visible(task)), result && `\n${visible(result)}`];
    return h('li', {}, h('p', { class: 'text', dir: 'auto' }, ...said), h('p', { class: 'meta' }, facts));
  }
}
