/* What test_fold.py asks of static/fold.js, inside Chromium. */

import { apply, fold, initial, notebook, projection } from '/static/fold.js';

const without = (name, value) => (name === 'changed' ? undefined : value);

/** What a person sees of a state: everything but which event touched it last. */
const shown = (state) => JSON.stringify(
  { ...projection(state), always: [...state.always], notes: notebook(state), items: state.items }, without);

/** For each log, the projection and the notes after each event, as text. */
export function projections(logs) {
  return logs.map((log) => {
    const state = initial();
    return log.map((event) => {
      apply(state, event);
      return JSON.stringify({ ...projection(state), notes: notebook(state) });
    });
  });
}

/** For each log, what its run has used after each event: input, output, cost. */
export function usages(logs) {
  return logs.map((log) => {
    const state = initial();
    return log.map((event) => {
      apply(state, event);
      const { input, output, cost = null } = state.run?.usage ?? {};
      return state.run ? [input, output, cost] : null;
    });
  });
}

/** [log, seq] of every cursor at which a reader that left and came back would end with something else than a new one. */
export function divergences(logs) {
  return logs.flatMap(({ events, lasting }, log) => {
    const whole = shown(fold(lasting));
    return events.map(({ seq }) => seq).filter((cursor) => {
      const left = fold(events.filter(({ seq }) => seq <= cursor));
      return shown(fold(lasting.filter(({ seq }) => seq > cursor), left)) !== whole;
    }).map((cursor) => [log, cursor]);
  });
}

/** [log, seq] of every event that changed an item without saying so, or left one key to two items. */
export function silentChanges(logs) {
  return logs.flatMap((events, log) => {
    const state = initial();
    let before = new Map();
    return events.filter((event) => {
      apply(state, event);
      const now = new Map(state.items.map((item) => [item.key, { changed: item.changed, text: JSON.stringify(item, without) }]));
      const silent = [...now].some(([key, item]) => before.get(key)?.changed === item.changed && before.get(key).text !== item.text);
      before = now;
      return silent || now.size !== state.items.length;
    }).map(({ seq }) => [log, seq]);
  });
}

export const unknown = (events) => fold(events).items.filter(({ kind }) => kind === 'line').map(({ event }) => event.type);
