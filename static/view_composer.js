/* The dock below the transcript: what the run is doing, what waits, and where a person writes.

   Never disabled because the connection is away: what is written then is sent later, and the page says so. Enter sends,
   Shift+Enter is a new line, Escape goes to Stop. The draft of each conversation is kept in this browser. */

import { $, h, setText } from './dom.js';
import { visible } from './exact.js';
import { drafts } from './storage.js';
import { toast } from './toast.js';
import { count, elapsed, goOnWords, runWords, tokens } from './words.js';

const placeholders = {
  idle: 'Write a message',
  running: 'Give a hint while it works',
  waiting: 'Give a hint; it is read after your decision',
  suspended: 'Give a hint',
};
const bytes = new TextEncoder();
const TEXT_BYTES_MAX = 65_536; // until `attached.limits` says otherwise

export class Composer {
  #form = $('composer');
  #input = $('words');
  #later = $('later');
  #send = $('send');
  #interrupt = $('interrupt');
  #note = $('composer-note');
  #strip = $('strip');
  #draft = '';
  #run = null;
  #limit = TEXT_BYTES_MAX;
  #actions = null;
  #says = h('b', {});
  #facts = h('span', { class: 'facts' });
  #look = h('button', { type: 'button', id: 'look', onclick: () => this.#actions.look() }, 'Show');
  #goOn = h('button', { type: 'button', id: 'go-on', onclick: () => this.#actions.goOn() });
  #stopButton = h('button', { type: 'button', class: 'danger', id: 'stop', onclick: () => this.#actions.stop() }, 'Stop');

  constructor() {
    const pulse = h('i', { class: 'pulse', 'aria-hidden': 'true' });
    this.#strip.append(pulse, this.#says, this.#facts, this.#look, this.#goOn, this.#stopButton);
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit(this.#run ? 'hint' : 'prompt');
    });
    this.#later.addEventListener('click', () => this.#submit('prompt'));
    this.#input.addEventListener('input', () => this.#keepDraft());
    this.#input.addEventListener('keydown', (event) => this.#key(event));
  }

  /** For a conversation, or a new one. `actions`: {submit(type, text, interrupt), stop, look, goOn, takeBack, revoke}. */
  open(conversation, actions) {
    this.#actions = actions;
    this.#draft = `holdfast.draft.${conversation ?? 'new'}`;
    this.#input.value = drafts.get(this.#draft) ?? '';
    this.show({ status: 'idle', run: null, queue: [], open: 0, always: [], connected: true, limits: {} });
  }

  /** What the conversation is like now. */
  show({ status, run, queue, open, always, connected, closed, stopping, limits, elapsedMs = 0 }) {
    this.#run = run;
    this.#limit = limits?.text_bytes ?? TEXT_BYTES_MAX;
    this.#form.hidden = Boolean(closed);
    this.#input.placeholder = placeholders[status];
    setText(this.#send, run ? 'Hint now' : 'Send');
    this.#later.hidden = !run;
    this.#interrupt.hidden = status !== 'running';
    this.#form.dataset.away = String(!connected);
    this.#showNote(connected);
    this.#showStrip({ run, status, open, connected, stopping, elapsedMs });
    list($('queue'), queue, (item) => item.message, (item) => this.#queued(item));
    list($('allowed'), always, (tool) => tool, (tool) => this.#allowed(tool));
  }

  tick(elapsedMs) {
    if (this.#run) setText(this.#facts, this.#factsOf(this.#run, elapsedMs));
  }

  /** Words that were not delivered, or that somebody wants again, go back to where they were written. */
  giveBack(text) {
    this.#input.value = [text, this.#input.value].filter(Boolean).join('\n\n');
    this.#keepDraft();
  }

  focus() {
    this.#input.focus();
  }

  /** The focus comes here by itself: to the words, or where that would bring up a keyboard, to the transcript. */
  rest() {
    const fine = matchMedia('(pointer: fine)').matches;
    $(fine ? 'words' : 'scroll').focus({ preventScroll: true });
  }

  #submit(type) {
    const text = this.#input.value;
    if (!text.trim()) return this.#input.focus();
    if (bytes.encode(text).length > this.#limit) return toast(`That is too long. ${count(this.#limit, 'byte')} at most.`);
    const interrupt = type === 'hint' && !this.#interrupt.hidden && this.#interrupt.firstElementChild.checked;
    this.#input.value = '';
    this.#interrupt.firstElementChild.checked = false;
    this.#keepDraft();
    return this.#actions.submit(type, text, interrupt);
  }

  #key(event) {
    if (event.isComposing || event.keyCode === 229) return; // an input method is at work
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      this.#submit(this.#run && !event.altKey ? 'hint' : 'prompt');
    } else if (event.key === 'Escape' && this.#run) this.#stopButton.focus();
  }

  #keepDraft() {
    if (this.#input.value) drafts.set(this.#draft, this.#input.value);
    else drafts.remove(this.#draft);
  }

  #showNote(connected) {
    const keys = this.#run ? 'Enter: hint now. Alt+Enter: after this run' : 'Enter to send';
    setText(this.#note, connected ? keys : 'Not connected. What you write will be sent.');
  }

  #showStrip({ run, status, open, connected, stopping, elapsedMs }) {
    this.#strip.hidden = !run;
    if (!run) return;
    this.#strip.dataset.status = stopping ? 'stopping' : status;
    this.#strip.dataset.away = String(!connected);
    setText(this.#says, runWords({ status, open, connected, stopping }));
    setText(this.#facts, this.#factsOf(run, elapsedMs));
    this.#look.hidden = !open;
    this.#goOn.hidden = status !== 'suspended';
    setText(this.#goOn, goOnWords(run.over));
    this.#stopButton.disabled = Boolean(stopping);
  }

  #factsOf(run, elapsedMs) {
    return [run.step ? `step ${run.step}` : '', elapsed(elapsedMs), tokens(run.usage)].filter(Boolean).join(' · ');
  }

  #queued(item) {
    return h('li', {},
      h('span', { class: 'label' }, 'After this run'),
      h('span', { class: 'text', dir: 'auto', title: item.text }, item.text),
      h('button', { type: 'button', class: 'quiet', onclick: () => this.#actions.takeBack(item) }, 'Take back'));
  }

  #allowed(tool) {
    return h('li', {}, h('code', {}, visible(tool)), ' is always allowed here ',
      h('button', { type: 'button', class: 'quiet', onclick: () => this.#actions.revoke(tool) }, 'Revoke'));
  }
}

/** Shows these things in a list; rebuilt only when they are others, so that the focus in it stays. */
function list(element, things, keyOf, rowOf) {
  const keys = JSON.stringify(things.map(keyOf));
  if (element.dataset.keys === keys) return;
  element.dataset.keys = keys;
  element.hidden = things.length === 0;
  element.replaceChildren(...things.map(rowOf));
}
