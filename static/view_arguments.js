/* The arguments of a call as a person reads them: exactly what will run, nothing hidden, nothing prettier than it is. */

import { h } from './dom.js';
import { parse, print, visible } from './exact.js';

/** The arguments as an object, or the model's own text where it is none. */
export function argumentsOf(card) {
  if (card.arguments) return card.arguments;
  try {
    const value = parse(card.asked || '{}');
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : card.asked;
  } catch {
    return card.asked;
  }
}

const shown = (value) => visible(typeof value === 'string' ? value : print(value, 2));

/** One row per argument; a string stands in quotation marks (by the style sheet), everything else is JSON. */
export function argumentList(args) {
  if (typeof args === 'string') return h('pre', {}, visible(args));
  const rows = Object.entries(args).flatMap(([name, value]) => [
    h('dt', {}, visible(name)),
    h('dd', { class: typeof value === 'string' ? 'string' : typeof value, dir: 'auto' }, shown(value)),
  ]);
  return rows.length ? h('dl', { class: 'arguments' }, ...rows) : h('p', { class: 'note' }, 'No arguments');
}

/** The arguments in half a line. */
export function gist(args) {
  if (typeof args === 'string') return visible(args).slice(0, 120);
  return Object.entries(args).map(([name, value]) => `${visible(name)}: ${visible(print(value))}`).join(', ').slice(0, 120);
}
