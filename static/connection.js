/* A reader of one conversation: the cursor, and nothing else that is kept between frames.

   A frame is applied only if its `after` is the cursor; the cursor moves only after the frame has been applied. Anything
   else is a fault, and a fault is mended by coming back with the cursor. There is one way to history: this one.
   Knows no DOM and no fold; `reader` is told what happens, and the outbox is emptied after each `attached`. */

import { Socket } from './socket.js';

const AGAIN_MS = 3_000;
const TOO_LARGE = 1009;
const passing = new Set(['draining', 'storage_unavailable', 'rate_limited', 'internal']); // refused now, not for ever

export class Connection {
  #conversation;
  #reader;
  #outbox;
  #socket;
  #cursor = { log: null, seq: 0 };
  #head = 0;
  #from = 0;
  #attached = false;
  #live = false;
  #phase = 'connecting';

  /** `reader`: {reset(), attached(frame), events(events, live), rejected(frame, entry), state(state)}. */
  constructor(conversation, reader, outbox) {
    this.#conversation = conversation;
    this.#reader = reader;
    this.#outbox = outbox;
    this.#socket = new Socket({
      address: () => this.#address(),
      onframe: (frame, asked) => this.#received(frame, asked),
      onchange: (change) => this.#changed(change),
    });
  }

  get seq() {
    return this.#cursor.seq;
  }

  /** Sends a command, now or as soon as there is a connection; the outbox keeps it until it is answered. */
  command(frame) {
    const entry = this.#outbox.add(frame);
    if (this.#attached) this.#socket.send(entry.frame);
    return entry.frame.id;
  }

  retryNow() {
    this.#socket.wake();
  }

  stop() {
    this.#socket.stop();
  }

  #address() {
    const { log, seq } = this.#cursor;
    const address = new URL(`/ws/${encodeURIComponent(this.#conversation)}`, location.href);
    address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
    address.searchParams.set('after', seq);
    if (log) address.searchParams.set('log', log);
    return address.href;
  }

  #changed(change) {
    if (change.phase === 'open') return; // `attached` follows and says more
    if (change.phase !== 'restarting' || change.retry_at) this.#attached = false;
    if (!this.#attached) this.#live = false;
    this.#show(change);
    if (change.code === TOO_LARGE) this.#reader.rejected({ message: 'That was too long.' }, this.#outbox.giveUpLargest());
  }

  #show(state) {
    this.#phase = state.phase;
    this.#reader.state(state);
  }

  #received(frame, asked) {
    switch (frame.type) {
      case 'attached': return this.#attach(frame);
      case 'events': return this.#events(frame);
      case 'live':
        this.#live = true;
        this.#socket.live();
        return this.#show({ phase: 'live' });
      case 'accepted': return this.#outbox.accepted(frame.id, frame.seq, this.seq);
      case 'rejected': return this.#rejected(frame);
      case 'heartbeat':
        if (!asked && this.#live && frame.head !== this.seq) this.#socket.fault();
        return undefined;
      default: return undefined; // of a newer server
    }
  }

  #attach(frame) {
    const anew = frame.reset || (this.#cursor.log !== null && frame.log !== this.#cursor.log);
    if (anew) this.#reader.reset();
    if (anew) this.#cursor.seq = 0;
    if (!frame.reset && frame.after !== this.seq) return this.#socket.fault();
    this.#cursor.log = frame.log;
    this.#head = frame.head;
    this.#from = this.seq;
    this.#attached = true;
    this.#reader.attached(frame);
    this.#show(this.#progress());
    for (const entry of this.#outbox.waiting()) this.#socket.send(entry.frame);
    return undefined;
  }

  #events(frame) {
    if (frame.after !== this.seq) return this.#socket.fault();
    try {
      this.#reader.events(frame.events, this.#live);
    } catch (error) {
      console.error(error); // the state is worthless now: start over, patiently
      this.#reader.reset();
      this.#cursor = { log: null, seq: 0 };
      return this.#socket.fault();
    }
    this.#cursor.seq = frame.through;
    this.#outbox.seen(frame.events, this.seq);
    if (this.#phase === 'catching') this.#show(this.#progress());
    return undefined;
  }

  #progress() {
    return { phase: 'catching', done: this.seq - this.#from, total: Math.max(0, this.#head - this.#from) };
  }

  #rejected(frame) {
    if (!passing.has(frame.code)) return this.#reader.rejected(frame, this.#outbox.rejected(frame.id));
    setTimeout(() => {
      const entry = this.#outbox.find(({ id }) => id === frame.id);
      if (entry && this.#attached) this.#socket.send(entry.frame);
    }, AGAIN_MS);
    return undefined;
  }
}
