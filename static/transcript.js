/* The transcript on the page: its items, what this page has not got through yet, and where the person is reading.

   Stays at the end only while the person is there; otherwise a button says how much is new. Of a long conversation the end
   is drawn first, and more as somebody scrolls up. Draws once per frame at most (the caller sees to that) and never moves
   the focus by itself. */

import { $, h, setText } from './dom.js';
import { Items } from './items.js';
import { count } from './words.js';

const NEAR_END_PX = 60;
const AHEAD = '1200px 0px';
const ITEMS_FIRST = 150;
const ITEMS_MORE = 150;

export class Transcript {
  #scroll = $('scroll');
  #unsent = $('unsent');
  #latest = $('latest');
  #items;
  #drawn = [];
  #from = null; // the first item that is drawn
  #atEnd = true;
  #top = 0; // where the person was when this last looked
  #seen = 0; // items when the person left the end
  #waiting = '';
  #near = new Map();
  #nearness;
  #sizes = new ResizeObserver(() => this.#stay());
  #listening = new AbortController();

  constructor(context) {
    const { signal } = this.#listening;
    this.#nearness = new IntersectionObserver((entries) => this.#came(entries), { root: this.#scroll, rootMargin: AHEAD });
    this.#items = new Items({ ...context, whenNear: (element) => this.#whenNear(element) }, $('transcript'));
    this.#items.clear();
    this.#unsent.replaceChildren();
    this.#scroll.addEventListener('scroll', () => this.#scrolled(), { signal, passive: true });
    this.#latest.addEventListener('click', () => {
      this.toEnd();
      this.#scroll.focus({ preventScroll: true }); // the button is gone
    }, { signal });
    for (const element of [this.#scroll, $('transcript'), this.#unsent]) this.#sizes.observe(element);
  }

  draw(state, unsent) {
    this.#drawn = state.items;
    if (this.#from === null && state.items.length) {
      this.#from = Math.max(0, state.items.length - ITEMS_FIRST);
      this.#watchEarlier();
    }
    this.#items.draw(state.items.slice(this.#from ?? 0));
    this.#drawUnsent(unsent);
    this.#stay();
  }

  tick() {
    this.#items.tick();
  }

  stale(key) {
    this.#items.stale(key);
  }

  reset() {
    this.#items.clear();
    this.#from = null;
    this.#atEnd = true;
  }

  /** Brings a decision into view and gives it the focus: only when somebody asked for it. */
  goTo(key) {
    this.#items.find(key)?.element.scrollIntoView({ block: 'center' });
    this.focus(key);
  }

  /** Gives a decision the focus, moving nothing; whether it is there. */
  focus(key) {
    return Boolean(this.#items.find(key)?.focusDecision());
  }

  /** The server would not take these arguments; whether there is a decision that can say so. */
  refused(key, args, message) {
    return Boolean(this.#items.find(key)?.refused(args, message));
  }

  toEnd() {
    this.#atEnd = true;
    this.#stay();
  }

  stop() {
    this.#listening.abort();
    this.#sizes.disconnect();
    this.#nearness.disconnect();
    this.#items.clear();
    this.#unsent.replaceChildren();
    this.#latest.hidden = true;
  }

  /** Who is at the end leaves it only upwards: where it is far without that, something has grown, and `#stay` follows. */
  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    const near = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    const atEnd = near || (this.#atEnd && scrollTop >= this.#top);
    if (this.#atEnd && !atEnd) this.#seen = this.#drawn.length;
    this.#atEnd = atEnd;
    this.#top = scrollTop;
    this.#showLatest();
  }

  #stay() {
    if (this.#atEnd) this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#top = this.#scroll.scrollTop;
    this.#showLatest();
  }

  #showLatest() {
    const fresh = this.#drawn.length - this.#seen;
    this.#latest.hidden = this.#atEnd;
    this.#scroll.style.overflowAnchor = this.#atEnd ? 'none' : ''; // at the end this holds the place, not the browser
    setText(this.#latest, fresh > 0 ? `↓ ${count(fresh, 'new', 'new')}` : '↓ Latest');
  }

  #drawUnsent(unsent) {
    const waiting = JSON.stringify(unsent);
    if (waiting === this.#waiting) return;
    this.#waiting = waiting;
    this.#unsent.replaceChildren(...unsent.map(({ text, note }) => h('article', { class: 'words unsent' },
      h('div', { class: 'bubble', dir: 'auto' }, text),
      h('p', { class: 'meta' }, note))));
  }

  /** Asks anew whether the first drawn item is about to be seen. */
  #watchEarlier() {
    this.#nearness.unobserve($('earlier'));
    if (this.#from > 0) this.#nearness.observe($('earlier'));
  }

  #drawEarlier() {
    const below = this.#scroll.scrollHeight - this.#scroll.scrollTop;
    this.#from = Math.max(0, this.#from - ITEMS_MORE);
    this.#items.draw(this.#drawn.slice(this.#from));
    this.#scroll.scrollTop = this.#scroll.scrollHeight - below; // at the very top the browser does not hold the place
    this.#watchEarlier();
  }

  /** Resolves once the element is about to be seen. */
  #whenNear(element) {
    return new Promise((resolve) => {
      this.#near.set(element, resolve);
      this.#nearness.observe(element);
    });
  }

  #came(entries) {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      this.#nearness.unobserve(target);
      if (target === $('earlier')) this.#drawEarlier();
      this.#near.get(target)?.();
      this.#near.delete(target);
    }
  }
}
