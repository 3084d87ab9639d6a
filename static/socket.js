/* One WebSocket that comes back: one owner, one socket at a time, and a generation number by which every callback of an
   older socket is known and ignored.

   Knows when to connect, when to believe that a socket is dead, and how long to wait (UX.md §3). Knows nothing of
   conversations and cursors: connection.js and list.js say which address to use and read the frames. Time is always
   wall-clock time, because the timers of a hidden page run when they like. */

import { parse, print } from './exact.js';

const GREETING_MS = 8_000; // from the call to the first frame: a hung handshake blocks every later one to this host
const SILENCE_MS = 45_000; // the server sends a heartbeat after 20 s
const PONG_MS = 3_000;
const STABLE_MS = 10_000;
const DELAY_MAX_MS = 20_000;

export class Socket {
  #address;
  #onframe;
  #onchange;
  #socket = null;
  #generation = 0;
  #tries = 0;
  #heard = 0;
  #greeted = false;
  #liveSince = 0;
  #pinged = false;
  #over = false;
  #comeBackAfter = null;
  #timers = { retry: 0, deadline: 0, age: 0 };
  #listening = new AbortController();

  /** `address()`: where to connect, asked each time. `onframe(frame, asked)`: asked, where a heartbeat answers a ping.
      `onchange({phase, retry_at?, code?})`: connecting, open, offline, restarting or closed (for good). */
  constructor({ address, onframe, onchange }) {
    this.#address = address;
    this.#onframe = onframe;
    this.#onchange = onchange;
    const { signal } = this.#listening;
    for (const name of ['online', 'offline', 'pageshow', 'focus']) addEventListener(name, () => this.wake(), { signal });
    document.addEventListener('resume', () => this.wake(), { signal });
    document.addEventListener('visibilitychange', () => document.hidden || this.wake(), { signal });
    addEventListener('pagehide', () => this.#abandon(), { signal }); // an open socket keeps a page out of the back/forward cache
    this.#connect();
  }

  /** Gives the socket up for good. */
  stop() {
    this.#over = true;
    this.#listening.abort();
    this.#abandon();
  }

  /** Whether it went out; if not, there will be another greeting to answer. */
  send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(print(frame));
    return true;
  }

  /** What was received makes no sense, or nothing was: come back, with the usual patience. */
  fault() {
    this.#abandon();
    this.#comeBack(1006);
  }

  /** The owner has caught up: from now on the socket may prove itself stable. */
  live() {
    this.#liveSince = Date.now();
  }

  /** Something has changed outside (network, tab, sleep), or a person asks: find out now. */
  wake() {
    if (this.#over) return;
    if (!this.#socket) this.#connect();
    else if (this.#greeted && Date.now() - this.#heard > SILENCE_MS) this.#connect();
    else if (this.#greeted && !this.#pinged) this.#ping();
  }

  #connect() {
    this.#abandon();
    const generation = this.#generation;
    const ifCurrent = (react) => (event) => generation === this.#generation && react(event);
    this.#onchange({ phase: 'connecting' });
    this.#heard = Date.now();
    this.#socket = new WebSocket(this.#address());
    this.#socket.onmessage = ifCurrent(({ data }) => this.#receive(data));
    this.#socket.onclose = ifCurrent(({ code }) => this.#hungUp(code));
    this.#timers.deadline = setTimeout(ifCurrent(() => this.fault()), GREETING_MS);
    this.#timers.age = setInterval(ifCurrent(() => Date.now() - this.#heard > SILENCE_MS && this.#connect()), 5_000);
  }

  #receive(data) {
    this.#heard = Date.now();
    let frame;
    try {
      frame = parse(data);
    } catch {
      this.fault();
      return;
    }
    if (!this.#greeted) {
      this.#greeted = true;
      clearTimeout(this.#timers.deadline);
      this.#onchange({ phase: 'open' });
    }
    if (frame.type === 'draining') {
      this.#comeBackAfter = frame.retry_after_ms;
      this.#onchange({ phase: 'restarting' });
      return;
    }
    if (this.#pinged) clearTimeout(this.#timers.deadline);
    const asked = this.#pinged;
    if (frame.type === 'heartbeat') this.#pinged = false;
    this.#onframe(frame, asked);
  }

  #ping() {
    if (!this.send({ type: 'ping' })) return;
    const generation = this.#generation;
    this.#pinged = true;
    this.#timers.deadline = setTimeout(() => generation === this.#generation && this.#connect(), PONG_MS);
  }

  /** Ends the current socket without a word to anyone; whatever it still says is of an old generation. */
  #abandon() {
    if (this.#liveSince && Date.now() - this.#liveSince > STABLE_MS) this.#tries = 0;
    this.#generation += 1;
    this.#greeted = this.#pinged = false;
    this.#liveSince = 0;
    clearTimeout(this.#timers.retry);
    clearTimeout(this.#timers.deadline);
    clearInterval(this.#timers.age);
    this.#socket?.close();
    this.#socket = null;
  }

  #hungUp(code) {
    this.#abandon();
    if (code >= 4500 && code <= 4999) {
      this.#over = true;
      this.#onchange({ phase: 'closed', code });
    } else this.#comeBack(code);
  }

  #comeBack(code) {
    const restarting = this.#comeBackAfter !== null || code === 1012;
    let delay = Math.random() * Math.min(DELAY_MAX_MS, 500 * 2 ** this.#tries);
    if (navigator.onLine === false) delay = DELAY_MAX_MS; // often a lie, above all about this very machine
    if (code === 1012 || code === 4001) delay += Math.random() * 5_000;
    if (this.#comeBackAfter !== null) delay = this.#comeBackAfter + Math.random() * 1_000;
    this.#comeBackAfter = null;
    this.#tries += 1;
    this.#timers.retry = setTimeout(() => this.#connect(), delay);
    this.#onchange({ phase: restarting ? 'restarting' : 'offline', code, retry_at: Date.now() + delay });
  }
}
