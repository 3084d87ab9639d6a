/* What reaches a person who is not looking: the spoken regions, the tab's title, and notifications.

   Speaks at boundaries only, never for what is replayed, never word by word. Notifications need a permission that is
   asked for by a click; of several tabs one shows them, and none while a tab is being looked at. */

import { $ } from './dom.js';
import { callKey } from './fold.js';
import { callLook, callStates, count, sentence } from './words.js';

export const speak = (text) => { $('status').textContent = text; };
export const alarm = (text) => { $('alert').textContent = text; };

const persons = { approval: true, in_doubt: true }; // of these the request itself has spoken

/** Says what an event that has just happened means; `state` is the state after it. */
export function tell(event, state) {
  const call = () => state.calls.get(callKey(event.run, event.path, event.call));
  switch (event.type) {
    case 'run.started': return speak('The agent started.');
    case 'tool.returned': return speak(`${call().tool} finished.`);
    case 'tool.failed': return speak(`${call().tool}: ${callStates[callLook(call())] ?? callStates.failed}.`);
    case 'hint.applied': return speak(`The hint was given at step ${event.step}.`);
    case 'approval.requested':
    case 'doubt.raised': return alarm(needed(event));
    case 'approval.decided':
    case 'doubt.settled': return alarm(''); // it is not needed any more
    case 'run.suspended': return event.reason in persons ? undefined : alarm(sentence(event));
    case 'run.completed': return speak(`The answer is complete, ${count(lastWords(state), 'word')}.`);
    case 'run.cancelled': return speak('The run was stopped.');
    case 'run.failed': return alarm(`The run failed. ${event.error.message}`);
    default: return undefined;
  }
}

/** Says what waits for the person who has just arrived. */
export function tellWaiting(state) {
  const [event] = state.open.values();
  if (event) alarm(needed(event));
}

const needed = ({ type, tool }) => `Your ${type === 'doubt.raised' ? 'help' : 'approval'} is needed for ${tool}.`;

function lastWords(state) {
  const reply = state.items.findLast((item) => item.kind === 'reply');
  return reply ? reply.text.split(/\s+/).filter(Boolean).length : 0;
}

export function showTitle(title, waiting) {
  const whole = `${waiting ? `(${waiting}) ` : ''}${title ? `${title} · ` : ''}Holdfast`;
  if (document.title !== whole) document.title = whole;
}

let lost = false;

/** Says that the connection has gone or come back; the small changes in between are only shown. */
export function tellConnection(phase) {
  const away = phase === 'offline' || phase === 'restarting';
  if (away && !lost) speak('The connection is lost. What you write will be sent later.');
  if (lost && phase === 'live') speak('Connected again.');
  lost = phase !== 'live' && (lost || away);
}

// --- notifications

let mayNotify = false;

/** Sets up the button that asks, and finds out which tab of this browser is the one that notifies. */
export function prepareNotifications() {
  const button = $('notify');
  if (typeof Notification === 'undefined' || !navigator.locks) return; // only where the page is served securely
  button.hidden = Notification.permission !== 'default';
  button.addEventListener('click', async () => {
    await Notification.requestPermission();
    button.hidden = Notification.permission !== 'default';
  });
  const forGood = () => new Promise(() => {});
  navigator.locks.request('holdfast.notifier', () => { mayNotify = true; return forGood(); });
  let letGo = () => {};
  const untilAway = () => new Promise((resolve) => { letGo = resolve; });
  const look = () => {
    letGo();
    if (!document.hidden) navigator.locks.request('holdfast.looking', { mode: 'shared' }, untilAway);
  };
  document.addEventListener('visibilitychange', look);
  look();
}

/** A conversation has changed: is that worth a notification? Needs you > has ended. */
export async function notifyOf(item, before, open) {
  if (!mayNotify || Notification.permission !== 'granted' || !before || item.status === before.status) return;
  const body = { waiting: 'Waiting for your decision', idle: 'Has ended' }[item.status];
  if (!body) return;
  const { held } = await navigator.locks.query();
  if (held.some((lock) => lock.name === 'holdfast.looking')) return;
  const notice = new Notification(item.title || 'Holdfast', { body, tag: item.conversation, icon: '/static/icon.svg' });
  notice.addEventListener('click', () => { window.focus(); open(item.conversation); notice.close(); });
}
