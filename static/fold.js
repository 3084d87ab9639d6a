/* What happened, as state: the fold of a conversation's log, mirroring app/core/apply.py as far as a reader sees it.

   Pure: no DOM, no clock, no chance, no network; the same events give the same state, live or replayed, in whatever
   frames they came. `apply` changes its state in place and has one owner. It refuses nothing: a log is a list of facts,
   and an event of a newer version becomes a neutral line.

   `state.items` is the transcript, in order. An item has a `key` that never changes and `changed`, the seq of the last
   event that touched it: a view redraws an item when, and only when, `changed` has moved. */

import { line, push } from './fold_items.js';
import { noteSaved } from './fold_notes.js';
import {
  approvalDecided, attemptEnded, contextCompacted, doubtSettled, personNeeded, stepStarted, streamed, toolEnded,
  toolProgressed, toolSettled, toolStarted,
} from './fold_work.js';

export { callKey } from './fold_items.js';
export { notebook } from './fold_notes.js';

export function initial() {
  return {
    seq: 0,
    agent: '',
    title: '',
    run: null, // {run, agent, message, status, started_at, step, usage, reason, until, over, stopping}
    carried: [], // hints that start the next run, which a drain may leave to the next process
    queue: [], // words that are on their way, in the order of acceptance
    open: new Map(), // call key -> the open approval.requested or doubt.raised event
    always: new Set(), // tools that need no approval any more
    notes: new Map(), // note -> what was saved
    noted: 0, // seq of the last note
    items: [],
    words: new Map(), // message -> its item
    calls: new Map(), // call key -> its card
    replies: new Map(), // level key -> its latest reply
  };
}

export function fold(events, state = initial()) {
  for (const event of events) apply(state, event);
  return state;
}

export function apply(state, event) {
  state.seq = event.seq;
  if (Object.hasOwn(happened, event.type)) happened[event.type](state, event);
  else line(state, event);
}

export const status = (state) => state.run?.status ?? 'idle';

/** What `attached` says of a conversation, as this state knows it (PROTOCOL.md §1.1). */
export function projection(state) {
  const { run } = state;
  const queued = [...state.carried, ...state.queue];
  return {
    status: status(state),
    agent: state.agent,
    title: state.title,
    run: run && { run: run.run, status: run.status, started_at: run.started_at, step: run.step },
    approvals: [...state.open.values()],
    queued: queued.map(({ kind, message, text, author }) => ({ kind, target: message, message, text, author })),
  };
}

const silent = () => {};

// --- a person's words: {state: waiting, delivered, carried, withdrawn or dropped}

function words(kind, event, outcome) {
  const { message, text, author, run, at } = event;
  return { kind, key: `words:${message}`, message, text, author, run, at, interrupt: event.interrupt ?? false, state: outcome };
}

function given(kind, outcome) {
  return (state, event) => {
    const item = words(kind, event, outcome);
    state.words.set(event.message, item);
    state.queue.push(item);
    if (outcome === 'waiting' && kind === 'prompt') return; // it enters the transcript when its run starts
    push(state.items, item, event);
  };
}

function leave(state, seq, message, outcome, more) {
  const item = state.words.get(message);
  if (!item) return;
  state.queue = state.queue.filter((other) => other !== item);
  Object.assign(item, { state: outcome, changed: seq }, more);
  if (!state.items.includes(item)) state.items.push(item);
}

function left(outcome) {
  return (state, event) => {
    const { seq, message, step, into, reason } = event;
    leave(state, seq, message, outcome, { step, into, reason });
  };
}

function carried(state, event) {
  const item = state.words.get(event.message);
  left('carried')(state, event);
  if (item) state.carried.push(item);
}

// --- the run

function runStarted(state, event) {
  const { run, agent, message, at } = event;
  state.run = {
    run, agent, message, status: 'running', started_at: at, step: 0, usage: { input: 0, output: 0 },
    reason: null, until: null, over: null, stopping: false,
  };
  if (state.queue.some((item) => item.message === message)) leave(state, event.seq, message, 'delivered'); // else it was carried
  state.carried = [];
}

function suspended(state, event) {
  if (!state.run) return;
  const { reason, until = null, of, ceiling, used } = event;
  const person = reason === 'approval' || reason === 'in_doubt';
  const over = of ? { of, ceiling, used } : null; // which ceiling the run has reached
  Object.assign(state.run, { status: person ? 'waiting' : 'suspended', reason, until, over });
  if (!person) line(state, event);
}

function resumed(state, event) {
  if (!state.run) return;
  if (state.run.status === 'suspended') line(state, event);
  Object.assign(state.run, { status: 'running', reason: null, until: null, over: null });
}

function ended(outcome) {
  return (state, event) => {
    const run = state.run ?? { started_at: event.at, step: 0, usage: { input: 0, output: 0 } };
    const { usage = run.usage, steps = run.step, ms = event.at - run.started_at, error, by } = event;
    const asked = state.words.get(run.message)?.text;
    push(state.items, { kind: 'end', key: `end:${event.run}`, outcome, usage, steps, ms, error, by, asked }, event);
    state.run = null;
    state.open.clear();
  };
}

// --- every event there is

const happened = {
  'conversation.created': (state, { agent, title }) => Object.assign(state, { agent, title }),
  'conversation.renamed': (state, { title }) => Object.assign(state, { title }),
  'actor.activated': (state, event) => status(state) === 'running' && line(state, event),
  'actor.drained': silent,
  'command.noted': silent,
  'prompt.given': given('prompt', 'delivered'),
  'prompt.queued': given('prompt', 'waiting'),
  'prompt.withdrawn': left('withdrawn'),
  'prompt.dropped': left('dropped'),
  'hint.given': given('hint', 'waiting'),
  'hint.applied': left('delivered'),
  'hint.carried': carried,
  'hint.withdrawn': left('withdrawn'),
  'hint.dropped': left('dropped'),
  'run.started': runStarted,
  'run.suspended': suspended,
  'run.resumed': resumed,
  'run.sliced': silent,
  'run.completed': ended('completed'),
  'run.failed': ended('failed'),
  'run.cancelled': ended('cancelled'),
  'run.moved': ended('moved'),
  'suspension.requested': line,
  'cancel.requested': (state) => state.run && Object.assign(state.run, { stopping: true }),
  'step.started': stepStarted,
  'text.streamed': streamed('text'),
  'reasoning.streamed': streamed('reasoning'),
  'model.replied': attemptEnded('replied'),
  'model.interrupted': attemptEnded('interrupted'),
  'model.failed': attemptEnded('failed'),
  'tool.started': toolStarted,
  'tool.progressed': toolProgressed,
  'tool.returned': toolEnded('returned'),
  'tool.failed': toolEnded('failed'),
  'tool.settled': toolSettled,
  'approval.requested': personNeeded('approval'),
  'approval.decided': approvalDecided,
  'always.revoked': (state, event) => state.always.delete(event.tool) && line(state, event),
  'doubt.raised': personNeeded('doubt'),
  'doubt.settled': doubtSettled,
  'compaction.started': silent,
  'compaction.failed': line,
  'context.compacted': contextCompacted,
  'note.saved': noteSaved,
  'archive.flushed': silent,
};
