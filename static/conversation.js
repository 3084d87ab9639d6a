/* The conversation that is open: its state (the fold), its connection, its outbox, and the parts of the page that show it.

   Events change the state at once and the page at the next frame, at most once per frame. Everything a person does here
   becomes a command in the outbox; what it led to is shown when the event says so, in this tab like in any other. */

import { Connection } from './connection.js';
import { $ } from './dom.js';
import { apply, callKey, initial, status } from './fold.js';
import { Items } from './items.js';
import { alarm, tell, tellConnection, tellWaiting } from './notify.js';
import { Outbox } from './outbox.js';
import { toast } from './toast.js';
import { Transcript } from './transcript.js';
import { Notes } from './view_notes.js';
import { connectionWords, raised, tooLateWords } from './words.js';

const FAR_BEHIND = 500; // events: so far from the end nothing is drawn, it would be over before it is seen
const decides = new Set(['approve', 'deny', 'settle']);
const returned = new Set(['hint.dropped', 'prompt.dropped', 'hint.withdrawn', 'prompt.withdrawn']);
const lost = (element) => !element.isConnected || element.matches(':disabled') || !element.checkVisibility();

export class Conversation {
  #head;
  #composer;
  #state = initial();
  #viewer = null;
  #limits = null;
  #clock = 0; // the server's time less ours, in ms
  #phase = 'connecting';
  #behind = 0;
  #frame = 0;
  #mine = new Set(); // words of this page: if they are dropped or taken back, they go back to its composer
  #outbox;
  #connection;
  #transcript;
  #notes;
  #onchange;

  /** `onchange()`: the title may have changed. */
  constructor(conversation, { head, composer, onremove, onchange }) {
    this.conversation = conversation;
    this.#head = head;
    this.#composer = composer;
    this.#onchange = onchange;
    this.#transcript = new Transcript(this.#context());
    this.#notes = new Notes(() => this.#viewer?.id);
    composer.open(conversation, {
      submit: (type, text, interrupt) => this.#submit(type, text, interrupt),
      stop: () => this.#stop(),
      look: () => this.#look(),
      goOn: () => this.#goOn(),
      takeBack: (item) => this.#command({ type: 'withdraw', target: item.message }),
      revoke: (tool) => this.#command({ type: 'revoke', tool }),
    });
    head.open({
      retryNow: () => this.#connection.retryNow(),
      rename: (title) => this.#command({ type: 'rename', title }),
      remove: onremove,
    });
    this.#outbox = new Outbox(conversation, () => this.#outboxChanged());
    this.#connection = new Connection(conversation, this.#reader(), this.#outbox);
  }

  get title() {
    if (this.#state.title) return this.#state.title;
    const first = this.#state.items.find((item) => item.kind === 'prompt')?.text ?? '';
    return first.length > 60 ? `${first.slice(0, 59)}…` : first;
  }

  tick() {
    if (!this.#connected) return; // nobody knows what time it is there
    this.#transcript.tick();
    this.#composer.tick(this.#elapsed());
  }

  stop() {
    cancelAnimationFrame(this.#frame);
    this.#connection.stop();
    this.#transcript.stop();
    this.#notes.stop();
    alarm('');
    $('gone').hidden = true;
  }

  // --- what the connection reports

  #reader() {
    return {
      reset: () => {
        this.#state = initial();
        this.#transcript.reset();
        this.#notes.stop();
        this.#schedule();
      },
      attached: ({ viewer, limits, now }) => {
        this.#viewer = viewer;
        this.#limits = limits;
        this.#clock = now - Date.now();
      },
      events: (events, live) => {
        for (const event of events) {
          apply(this.#state, event);
          if (live) tell(event, this.#state);
        }
        if (live) this.#giveBack(events);
        this.#schedule();
      },
      rejected: (frame, entry) => this.#rejected(frame, entry),
      state: (state) => {
        tellConnection(state.phase);
        if (state.phase === 'live') tellWaiting(this.#state);
        this.#phase = state.phase;
        this.#behind = state.phase === 'catching' ? state.total - state.done : 0;
        this.#head.connection(state);
        this.#showGone(state);
        this.#outboxChanged();
      },
    };
  }

  #showGone(state) {
    $('gone').hidden = state.phase !== 'closed';
    if (state.phase === 'closed') $('gone').firstElementChild.textContent = connectionWords(state);
  }

  #rejected({ code, message, decision }, entry) {
    const { text, run, call, arguments: edited } = entry?.frame ?? {};
    if (text) this.#composer.giveBack(text);
    const told = code === 'bad_arguments' && edited && this.#transcript.refused(`call:${callKey(run, [], call.join('/'))}`, edited, message);
    if (!told) toast(decision ? tooLateWords(decision, this.#viewer?.id, Date.now() + this.#clock) : message);
  }

  /** All of a frame together: a stop drops several, and they keep their order. */
  #giveBack(events) {
    const mine = events.filter(({ type, message }) => returned.has(type) && this.#mine.delete(message));
    if (mine.length) this.#composer.giveBack(mine.map(({ message }) => this.#state.words.get(message).text).join('\n\n'));
  }

  // --- what a person does

  #command(frame) {
    return this.#connection.command(frame);
  }

  #submit(type, text, interrupt) {
    this.#mine.add(this.#command(interrupt ? { type, text, interrupt } : { type, text }));
    this.#transcript.toEnd();
  }

  #stop() {
    const run = this.#state.run?.run;
    if (run && !this.#stopping(run)) this.#command({ type: 'cancel', run });
  }

  #goOn() {
    const { run, over } = this.#state.run;
    this.#command({ type: 'resume', run, ...raised(over) });
  }

  #look() {
    const [key] = this.#state.open.keys();
    if (key) this.#transcript.goTo(`call:${key}`);
  }

  /** What had the focus is gone: it goes to what waits for this person, else to where they write; nothing moves. */
  #handOver() {
    const [key] = this.#state.open.keys();
    if (!key || !this.#transcript.focus(`call:${key}`)) this.#composer.rest();
  }

  // --- what the page shows

  #context() {
    const context = {
      viewer: () => this.#viewer?.id,
      now: () => Date.now() + this.#clock,
      connected: () => this.#connected,
      command: (frame) => this.#command(frame),
      reuse: (text) => {
        this.#composer.giveBack(text);
        this.#composer.focus();
      },
      retrying: (reply) => this.#state.run?.run === reply.run,
      pendingDecision: ({ run, path, call }) => this.#outbox.find((frame) =>
        decides.has(frame.type) && callKey(frame.run, [], frame.call.join('/')) === callKey(run, path, call)),
      whenNear: () => Promise.resolve(),
      level: () => new Items(context),
    };
    return context;
  }

  get #connected() {
    return this.#phase === 'live' || this.#phase === 'catching';
  }

  #stopping(run) {
    return this.#state.run?.stopping || Boolean(this.#outbox.find((frame) => frame.type === 'cancel' && frame.run === run));
  }

  #elapsed() {
    const { run } = this.#state;
    return run ? Date.now() + this.#clock - run.started_at : 0;
  }

  #outboxChanged() {
    for (const key of this.#state.open.keys()) this.#transcript.stale(`call:${key}`);
    this.#schedule();
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const state = this.#state;
    const held = document.activeElement;
    if (this.#behind < FAR_BEHIND) this.#transcript.draw(state, this.#unsent());
    this.#notes.draw(state);
    this.#head.name(this.title, state.agent);
    this.#composer.show({
      status: status(state),
      run: state.run,
      queue: state.queue.filter((item) => item.kind === 'prompt' && item.state === 'waiting'),
      open: state.open.size,
      always: [...state.always],
      connected: this.#connected,
      closed: this.#phase === 'closed',
      stopping: state.run && this.#stopping(state.run.run),
      limits: this.#limits,
      elapsedMs: this.#elapsed(),
    });
    if (held !== document.body && lost(held)) this.#handOver();
    this.#onchange();
  }

  #unsent() {
    const note = this.#connected ? 'Sending…' : 'Will be sent when the connection is back';
    return this.#outbox.all().filter(({ frame }) => frame.text && !this.#state.words.has(frame.id))
      .map(({ frame }) => ({ text: frame.text, note }));
  }
}
