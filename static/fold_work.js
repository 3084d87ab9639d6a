/* What an agent does, as items of the transcript: its replies and its tool calls. Pure, a part of the fold (fold.js). */

import { callKey, itemsOf, levelKey, push } from './fold_items.js';

const usageOf = (sum, now) => ({
  input: sum.input + now.input,
  output: sum.output + now.output,
  cached: (sum.cached ?? 0) + (now.cached ?? 0),
  estimated: Boolean(sum.estimated || now.estimated),
  cost: now.cost === undefined ? sum.cost : (sum.cost ?? 0) + now.cost,
  unpriced: Boolean(sum.unpriced || now.unpriced),
});

/** What a call of the model took, by whatever event says it. */
export function spent(state, { usage }) {
  if (state.run && usage) state.run.usage = usageOf(state.run.usage, usage);
}

// --- a step: one reply per attempt that is still to be seen

const superseded = (reply, event) =>
  reply.run === event.run && reply.step === event.step && reply.phase !== 'replied' &&
  !(reply.phase === 'interrupted' && (reply.reason === 'cancel' || reply.reason === 'hint'));

export function stepStarted(state, event) {
  const items = itemsOf(state, event);
  const before = state.replies.get(levelKey(event));
  if (before && superseded(before, event)) items.splice(items.lastIndexOf(before), 1);
  const { run, step, attempt, model } = event;
  const key = `reply:${levelKey(event)}#${step}.${attempt}`;
  const reply = { kind: 'reply', key, run, step, attempt, model, phase: 'open', text: '', reasoning: '' };
  state.replies.set(levelKey(event), push(items, reply, event));
  if (!event.path?.length && state.run) state.run.step = step;
}

export function streamed(field) {
  return (state, event) => {
    const reply = replyOf(state, event);
    if (!reply || reply.phase !== 'open') return;
    reply[field] += event.text;
    reply.changed = event.seq;
  };
}

function replyOf(state, event) {
  const reply = state.replies.get(levelKey(event));
  return reply?.step === event.step && reply.attempt === event.attempt ? reply : undefined;
}

export function attemptEnded(phase) {
  return (state, event) => {
    spent(state, event);
    const reply = replyOf(state, event);
    if (!reply) return;
    const { text = '', reasoning = '', reason, finish, error, retry_at } = event;
    Object.assign(reply, { phase, text, reasoning, reason, finish, error, retry_at, changed: event.seq });
    if (phase !== 'replied') return;
    for (const { call, tool, arguments: asked } of event.calls) cardOf(state, { ...event, call, tool }, { asked });
  };
}

/** People see all that was summarised for the model; a line says that, and the summariser's work is counted. */
export function contextCompacted(state, event) {
  spent(state, event);
  const { before, after, summary, at } = event;
  push(itemsOf(state, event), { kind: 'compacted', key: `compacted:${event.seq}`, before, after, summary, at }, event);
}

// --- a tool call: one card, whose phase is asked, approval, approved, running, doubt, returned or failed

function cardOf(state, event, more) {
  const key = callKey(event.run, event.path, event.call);
  let card = state.calls.get(key);
  if (!card) {
    const { run, path = [], call, tool = '' } = event;
    card = { kind: 'call', key: `call:${key}`, run, path, call, tool, phase: 'asked', items: [] };
    state.calls.set(key, push(itemsOf(state, event), card, event));
  }
  return Object.assign(card, { changed: event.seq }, more);
}

export function toolStarted(state, event) {
  const { arguments: args, agent, at } = event;
  cardOf(state, event, { phase: 'running', arguments: args, agent, started_at: at, progress: null });
}

export function toolProgressed(state, event) {
  const { progress } = cardOf(state, event);
  cardOf(state, event, {
    progress: { text: event.text ?? progress?.text, fraction: event.fraction ?? progress?.fraction },
  });
}

export function toolEnded(phase) {
  return (state, event) => {
    const { result, truncated, error, ms } = event;
    cardOf(state, event, { phase, result, truncated, error, ms, progress: null });
    state.open.delete(callKey(event.run, event.path, event.call));
  };
}

export function toolSettled(state, event) {
  const { of: run, result, error } = event;
  cardOf(state, { ...event, run }, { settled: { result, error } });
}

export function personNeeded(phase) {
  return (state, event) => {
    state.open.set(callKey(event.run, event.path, event.call), event);
    cardOf(state, event, { phase, request: event, arguments: event.arguments, progress: null });
  };
}

export function approvalDecided(state, event) {
  state.open.delete(callKey(event.run, event.path, event.call));
  const { decision, by, at, reason, arguments: edited, always } = event;
  const card = cardOf(state, event, { decision: { decision, by, at, reason, edited: Boolean(edited), always } });
  if (edited) card.arguments = edited;
  if (decision === 'approved') card.phase = 'approved';
  if (always) state.always.add(card.tool);
  else if (decision === 'approved' && card.request?.changed) state.always.delete(card.tool); // it was for another definition
}

export function doubtSettled(state, event) {
  state.open.delete(callKey(event.run, event.path, event.call));
  const { outcome, by, at } = event;
  cardOf(state, event, { phase: 'approved', decision: { decision: outcome, by, at } });
}
