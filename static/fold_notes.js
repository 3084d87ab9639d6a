/* The notes of a conversation: what is done and next, learned, changed, decided. Pure, a part of the fold (fold.js). */

import { line } from './fold_items.js';

/** A note whose id is there already takes the place of the older one. */
export function noteSaved(state, event) {
  const { note, kind, text, at, by, run, call, task, result, next } = event;
  state.notes.set(note, { note, kind, text, at, by, run, call, task, result, next });
  state.noted = event.seq;
  line(state, event);
}

const isCheckpoint = ({ task }) => task !== undefined;

function currentTask(notes) {
  let current = null;
  for (const { task, next } of notes.filter(isCheckpoint)) current = next || (task === current ? null : current);
  return current;
}

/** `notes{}` of `GET /api/conversations/{c}`, as this state knows it. */
export function notebook(state) {
  const notes = [...state.notes.values()];
  return {
    completed: notes.filter(isCheckpoint)
      .map(({ task, result, at }) => ({ task, result, timestamp: new Date(at).toISOString() })),
    current_task: currentTask(notes),
    notes: notes.filter((note) => !isCheckpoint(note)),
  };
}
