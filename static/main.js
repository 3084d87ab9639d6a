/* The page: which address shows what, and the parts that stay while conversations come and go.

   `/` is a new chat, `/c/{conversation}` a conversation. Nothing here knows of frames, events or elements inside the parts. */

import { remove, restore } from './api.js';
import { Conversation } from './conversation.js';
import { Creation } from './creation.js';
import { $ } from './dom.js';
import { prepareKeys } from './keys.js';
import { List } from './list.js';
import { notifyOf, prepareNotifications, showTitle } from './notify.js';
import { ask, toast } from './toast.js';
import { Composer } from './view_composer.js';
import { Head } from './view_head.js';
import { ListView } from './view_list.js';
import { count } from './words.js';

const UNDO_MS = 10_000;
const TIMES_MS = 30_000;
const narrow = matchMedia('(max-width: 48rem)');

const head = new Head();
const composer = new Composer();
const listView = new ListView();
let shown = null; // the Conversation or the Creation
const list = new List(listChanged);

function conversationAt(path) {
  const [, conversation] = /^\/c\/([^/]+)$/.exec(path) ?? [];
  return conversation && decodeURIComponent(conversation);
}

function open() {
  const conversation = conversationAt(location.pathname);
  shown?.stop();
  if (conversation) {
    const onremove = () => removeConversation(conversation);
    shown = new Conversation(conversation, { head, composer, onremove, onchange: title });
  } else shown = new Creation({ head, composer, oncreated: (id) => go(`/c/${encodeURIComponent(id)}`, true) });
  showSide(false);
  listChanged({});
}

function go(path, replace = false) {
  if (replace) history.replaceState(null, '', path);
  else if (path !== location.pathname) history.pushState(null, '', path);
  open();
}

function title() {
  const { waiting } = list;
  showTitle(shown?.title, waiting);
  $('menu').dataset.waiting = String(waiting > 0);
  $('menu').setAttribute('aria-label', waiting ? `Conversations, ${count(waiting, 'needs you', 'need you')}` : 'Conversations');
}

function listChanged({ item, before }) {
  listView.show(list.items, shown?.conversation);
  $('example').hidden = !list.loaded || list.items.length > 0;
  title();
  if (item) notifyOf(item, before, (conversation) => go(`/c/${encodeURIComponent(conversation)}`));
}

async function removeConversation(conversation) {
  const sure = await ask('Delete this conversation?', 'Its run is stopped. For a short while it can be brought back.', 'Delete');
  if (!sure) return;
  try {
    await remove(conversation);
  } catch (error) {
    toast(`It was not deleted. ${error.message}`);
    return;
  }
  list.forget(conversation);
  if (shown?.conversation === conversation) go('/');
  toast('Deleted.', { label: 'Undo', run: () => undo(conversation) }, UNDO_MS);
}

async function undo(conversation) {
  try {
    await restore(conversation);
    go(`/c/${encodeURIComponent(conversation)}`);
  } catch (error) {
    toast(`It cannot be brought back. ${error.message}`);
  }
}

/** On a narrow page the side lies over the rest; on a wide one it is always there. */
function showSide(isOpen) {
  const wasOpen = document.body.dataset.side === 'open';
  document.body.dataset.side = isOpen ? 'open' : 'closed';
  $('menu').setAttribute('aria-expanded', String(isOpen));
  $('scrim').hidden = !isOpen;
  document.querySelector('main').inert = isOpen;
  if (isOpen) $('new').focus();
  else if (wasOpen) $('menu').focus();
}

function followLink(event) {
  const link = event.target.closest?.('a[href^="/"]');
  const elsewhere = event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!link || elsewhere || event.defaultPrevented) return;
  event.preventDefault();
  go(link.getAttribute('href'));
}

function search() {
  if (narrow.matches) showSide(true);
  $('search').focus();
}

document.addEventListener('click', followLink);
$('menu').addEventListener('click', () => showSide(document.body.dataset.side !== 'open'));
$('scrim').addEventListener('click', () => showSide(false));
$('example').addEventListener('click', () => {
  $('words').value = $('example').textContent;
  $('composer').requestSubmit();
});
narrow.addEventListener('change', () => showSide(false));
addEventListener('popstate', open);
setInterval(() => {
  if (document.hidden) return;
  head.tick();
  shown.tick();
}, 1_000);
setInterval(() => document.hidden || listView.show(list.items, shown.conversation), TIMES_MS);
prepareNotifications();
prepareKeys({ search, escape: () => document.body.dataset.side === 'open' && showSide(false) });
open();
