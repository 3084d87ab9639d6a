/* The pieces that every part of the fold puts into a transcript. Pure, like all of the fold (fold.js). */

export const callKey = (run, path, call) => [run, ...(path ?? []), call].join('/');

export const levelKey = (event) => [event.run, ...(event.path ?? [])].join('/');

/** Adds an item; `changed` is the seq of the last event that touched it. */
export function push(items, item, event) {
  item.changed = event.seq;
  items.push(item);
  return item;
}

/** The transcript of an event's level: the conversation's own, or that of a sub-agent's card. */
export function itemsOf(state, event) {
  if (!event.path?.length) return state.items;
  return state.calls.get(levelKey(event))?.items ?? state.items;
}

/** A neutral line, whose words are the view's. */
export function line(state, event) {
  push(itemsOf(state, event), { kind: 'line', key: `line:${event.seq}`, event }, event);
}
