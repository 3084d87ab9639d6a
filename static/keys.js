/* The keys that work anywhere on the page, and the list of all keys there are (`?`).

   Letters are keys only where nobody writes: never in a field, never with Ctrl, Alt or ⌘, never under a dialog. None of them
   decides anything: `a` and `r` belong to the approval that has the focus (view_decision.js). */

import { $, isField } from './dom.js';

/** `search()`: go to the list's search; `escape()`: Escape was pressed. */
export function prepareKeys({ search, escape }) {
  $('keys-open').addEventListener('click', () => $('keys').showModal());
  document.addEventListener('keydown', (event) => {
    const { key, altKey, ctrlKey, metaKey, isComposing, target } = event;
    if (key === 'k' && (ctrlKey || metaKey)) {
      event.preventDefault();
      search();
    } else if (key === 'Escape') escape();
    else if (isComposing || altKey || ctrlKey || metaKey || isField(target) || document.querySelector('dialog[open]')) return;
    else if (key === '?') $('keys').showModal();
    else if (key === 'j') step(1);
    else if (key === 'k') step(-1);
  });
}

/** To the next message, from the one that has the focus, or else from what can be seen. */
function step(by) {
  const messages = [...$('transcript').children].filter((one) => one.matches('article, .end') && !one.hidden);
  const at = messages.findIndex((one) => one.contains(document.activeElement));
  const { top, bottom } = $('scroll').getBoundingClientRect();
  const seen = (one) => one.getBoundingClientRect().bottom > top && one.getBoundingClientRect().top < bottom;
  const next = at >= 0 ? messages[at + by] : by > 0 ? messages.find(seen) : messages.findLast(seen);
  if (!next) return;
  const place = next.querySelector('.decision') ?? next; // where its own keys work
  place.tabIndex = -1;
  place.focus({ preventScroll: true });
  place.scrollIntoView({ block: place === next ? 'start' : 'center' });
}
