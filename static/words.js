/* Every sentence that the page says by itself, and how it writes numbers and times. Pure; no DOM. */

import { visible } from './exact.js';

const number = new Intl.NumberFormat();
const large = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const small = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const timeOfDay = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' });
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });

export const fullTime = (at) => dayAndTime.format(at);

function span(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** How long something took: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min. */
export const duration = (ms) => (ms < 9_950 ? `${(Math.max(0, ms) / 1000).toFixed(1)} s` : span(Math.round(ms / 1000)));

/** How long something has been going on, in whole seconds. */
export const elapsed = (ms) => span(Math.max(0, Math.floor(ms / 1000)));

export function ago(at, now) {
  const minutes = Math.floor((now - at) / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  if (new Date(at).toDateString() === new Date(now).toDateString()) return timeOfDay.format(at);
  return day.format(at);
}

export const count = (n, one, many = `${one}s`) => `${number.format(n)} ${n === 1 ? one : many}`;

export function tokens(usage) {
  const sum = usage.input + usage.output;
  return sum ? `${usage.estimated ? 'about ' : ''}${compact.format(sum)} tokens` : '';
}

export function tokensInFull(usage) {
  const cached = usage.cached ? `, ${number.format(usage.cached)} of it cached` : '';
  return `${number.format(usage.input)} in${cached}, ${number.format(usage.output)} out`;
}

/** What it cost, in the currency of the server's prices; nothing where nothing has a price. */
export function money(usage) {
  if (usage.cost === undefined) return '';
  return `${usage.unpriced ? 'more than ' : usage.estimated ? 'about ' : ''}${amount(usage.cost)} spent`;
}

const amount = (millionths) => (millionths < 1e6 ? small : large).format(millionths / 1e6);

export const who = (id, viewer) => (!id || id === viewer ? 'you' : id);

// --- the conversation

export const statusWords = { idle: '', running: 'Working', waiting: 'Waiting for you', suspended: 'Paused' };
/** What the run is doing, as far as this page can know. */
export function runWords({ status, open, connected, stopping }) {
  if (stopping) return connected ? 'Stopping…' : 'Will be stopped when the connection is back';
  if (!connected) return `Last seen: ${statusWords[status].toLowerCase()}`;
  return status === 'waiting' && open > 1 ? `${statusWords.waiting}: ${count(open, 'decision')}` : statusWords[status];
}

// --- a ceiling that a run has reached: {of, ceiling, used}

const STEPS_MORE = 25;
const doubled = new Set(['tokens', 'money', 'calls']);

/** The new ceiling with which a run goes on; none where going on is enough. */
export function raised(over) {
  if (over?.of === 'steps') return { steps: over.used + STEPS_MORE };
  return doubled.has(over?.of) ? { [over.of]: 2 * Math.max(over.ceiling, over.used) } : {};
}

export function goOnWords(over) {
  if (over?.of === 'steps') return `Go on, ${STEPS_MORE} more steps`;
  return doubled.has(over?.of) ? `Go on, 2× ${over.of}` : 'Go on';
}

const ceilings = {
  steps: ({ used }) => `${count(used, 'step')}`,
  calls: ({ used }) => `${count(used, 'tool call')}`,
  tokens: ({ used, ceiling }) => `${number.format(used)} of ${count(ceiling, 'token')}`,
  money: ({ used, ceiling }) => `${amount(used)} of ${amount(ceiling)} spent`,
  seconds: ({ used }) => `${duration(used * 1000)} of work`,
};

function budgetWords(event) {
  if (event.of === 'repeats') return `Paused: the agent has asked ${event.used} times in a row for the same.`;
  const figures = Object.hasOwn(ceilings, event.of ?? '') ? ` (${ceilings[event.of](event)})` : '';
  return `Paused: the run has reached its budget${figures}.`;
}

export const listWords = { ...statusWords, waiting: 'Needs you' };

const suspensions = {
  turns: 'Paused after a number of steps.',
  request: 'Paused, as asked.',
  context: 'Paused: the conversation does not fit into the model any more.',
  retry: 'Paused: the model’s provider is not answering.',
};

const suspensionWords = ({ reason, message, until }) =>
  [suspensions[reason] ?? 'Paused.', message, until && `It goes on by itself at ${timeOfDay.format(until)}.`].filter(Boolean).join(' ');

export const compactedWords = ({ before, after }) =>
  `Context compacted: ${number.format(before)} → ${number.format(after)} tokens`;

export const noteKinds = {
  progress: 'Progress', knowledge: 'Knowledge', environment: 'Environment', decision: 'Decisions',
};

export const notesWords = (n) => (n ? count(n, 'note') : 'Notes');

const NOTE_CHARS = 160; // of a note in the transcript; the panel has all of it

const brief = (text) => {
  const line = text.replace(/\s+/g, ' ');
  return line.length > NOTE_CHARS ? `${line.slice(0, NOTE_CHARS - 1)}…` : line;
};

/** What a neutral line of the transcript says. */
export function sentence(event, viewer) {
  switch (event.type) {
    case 'actor.activated': return 'The server started again; the run goes on.';
    case 'run.suspended': return event.reason === 'budget' ? budgetWords(event) : suspensionWords(event);
    case 'run.resumed': return 'Goes on.';
    case 'suspension.requested': return 'Pauses at the end of this step.';
    case 'always.revoked': return `${event.tool} needs approval again (${who(event.by, viewer)}).`;
    case 'compaction.failed':
      return `Older messages could not be summarised for the model. ${event.retry_at ? 'It is tried again.' : 'It is done another way.'}`;
    case 'note.saved': return `Note (${event.kind}): ${visible(brief(event.text))}`;
    default: return `Something happened that this page is too old to show: ${event.type}`;
  }
}

/** What has become of a call, in a word: its phase, or how it failed. An approval that nobody gave in time is no denial. */
export function callLook({ phase, error, decision }) {
  if (phase !== 'failed') return phase;
  return error.kind === 'denied' && decision?.decision === 'expired' ? 'expired' : error.kind;
}

export const callStates = {
  asked: 'Next', approval: 'Needs your approval', approved: 'Starting', running: 'Running', doubt: 'Your help is needed',
  returned: 'Done', error: 'Failed', timeout: 'Timed out', cancelled: 'Cancelled', denied: 'Denied', in_doubt: 'In doubt',
  expired: 'Expired', skipped: 'Skipped', unknown_tool: 'No such tool', bad_arguments: 'Arguments refused', failed: 'Failed',
};

/** How long a decision may still be made. */
export const expiryWords = (left) => (left > 0 ? `Expires in ${elapsed(left + 999)}` : 'Expired');

export function decisionWords({ decision, by, reason, edited, always }, viewer) {
  const whose = who(by, viewer);
  switch (decision) {
    case 'approved': return `Approved${edited ? ' with changed arguments' : ''} by ${whose}${always ? ', from now on always' : ''}`;
    case 'denied': return `Denied by ${whose}${reason ? `: ${reason}` : ''}`;
    case 'expired': return 'Nobody decided in time';
    case 'cancelled': return 'Closed without a decision';
    case 'done': return `Settled by ${whose}: it was done`;
    case 'rerun': return `Settled by ${whose}: run it again`;
    case 'skip': return `Settled by ${whose}: skip it`;
    default: return decision;
  }
}

/** To who comes second: it has been decided, by whom, how long ago. */
export function tooLateWords({ decision, by, at }, viewer, now) {
  const whose = by === viewer ? 'by you in another tab' : `by ${by}`;
  return `Already ${decision} ${whose}, ${elapsed(now - at)} ago.`;
}

export function wordsState(item, now) {
  if (item.kind === 'prompt') return { dropped: 'Not delivered', withdrawn: 'Taken back' }[item.state] ?? '';
  switch (item.state) {
    case 'waiting': return 'Hint, waits for the next step';
    case 'delivered': return item.step ? `Hint, given at step ${item.step}` : 'Hint, given';
    case 'carried': return 'Hint, starts the next run';
    case 'withdrawn': return 'Hint, taken back';
    default: return item.reason === 'cancelled' ? 'Hint, not given: the run was stopped' : 'Hint, not given';
  }
}

export const outcomes = { completed: 'Done', failed: 'Failed', cancelled: 'Stopped', moved: 'Moved to another server' };

export const interruptions = {
  cancel: 'Stopped here', hint: 'Interrupted here by a hint', crash: 'Cut off: the server went down; asking again',
  stall: 'The model went silent', upstream: 'The connection to the model broke',
};

export const finishes = {
  length: 'The model’s limit for one answer was reached here',
  limit: 'The limit for one answer was reached here',
};

// --- the connection

export const closings = {
  4501: 'You are not signed in.', 4503: 'You have no access to this conversation.',
  4504: 'There is no such conversation.', 4510: 'This conversation was deleted.',
  4511: 'What is stored of this conversation is damaged. It is left alone.',
};

export function connectionWords(state, now) {
  const left = state.retry_at === undefined ? 0 : Math.max(0, Math.ceil((state.retry_at - now) / 1000));
  switch (state.phase) {
    case 'live': return 'Live';
    case 'connecting': return 'Connecting…';
    case 'catching': return `Catching up ${number.format(state.done)} of ${number.format(state.total)}`;
    case 'restarting': return left ? `Server restarting, back in ${left} s` : 'Server restarting…';
    case 'offline': return left ? `Offline, retry in ${left} s` : 'Offline, retrying…';
    default: return closings[state.code] ?? 'Closed';
  }
}
