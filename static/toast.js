/* Short words at the edge of the page, and the one question that is asked before something is deleted. */

import { $, h } from './dom.js';

const SHOWN_MS = 6_000;

/** Shows a sentence for a while; `action`: {label, run}. */
export function toast(text, action, ms = SHOWN_MS) {
  const element = h('div', { class: 'toast', role: 'status' }, h('span', { dir: 'auto' }, text));
  const timer = setTimeout(() => element.remove(), ms);
  const act = () => {
    clearTimeout(timer);
    element.remove();
    action.run();
  };
  if (action) element.append(h('button', { type: 'button', onclick: act }, action.label));
  $('toasts').append(element);
}

/** Resolves to whether the person said yes. */
export function ask(title, text, yes) {
  const dialog = $('confirm');
  dialog.replaceChildren(
    h('h2', { id: 'confirm-title', dir: 'auto' }, title),
    h('p', {}, text),
    h('form', { method: 'dialog', class: 'row' },
      h('button', { value: 'no', autofocus: true }, 'Cancel'),
      h('button', { value: 'yes', class: 'danger' }, yes)),
  );
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
