/* A person's decision on one tool call: approve (also with other arguments), deny, or settle a doubt.

   What is shown is what runs: the command carries the digest of the arguments that the event held. The buttons are armed
   half a second after they came into view, and none has the focus by itself, so that a click or a key that was meant for
   something else decides nothing. While a decision is on its way the focus waits at the card. With the focus in an approval
   `a` approves and `r` denies, except where one writes. */

import { h, isField, setText } from './dom.js';
import { parse, print } from './exact.js';
import { argumentList, gist } from './view_arguments.js';
import { expiryWords, fullTime } from './words.js';

const ARMED_AFTER_MS = 500;

const newest = new WeakMap(); // element -> its last arming, the only one that counts

function arm(element, buttons) {
  const arming = {};
  newest.set(element, arming);
  for (const button of buttons) button.disabled = true;
  const seen = new IntersectionObserver(([entry]) => {
    if (!entry.isIntersecting) return;
    seen.disconnect();
    setTimeout(() => { if (newest.get(element) === arming) for (const button of buttons) button.disabled = false; }, ARMED_AFTER_MS);
  });
  seen.observe(element);
}

const field = (label, placeholder, maxlength) =>
  h('input', { type: 'text', dir: 'auto', 'aria-label': label, placeholder, maxlength });
const button = (label, onclick, look = '') => h('button', { type: 'button', class: look, onclick }, label);

class Decision {
  constructor(card, context, words) {
    const { run, path, call } = card;
    this.request = card.request;
    this.sent = false;
    this.send = (type, more) => {
      this.sent = true;
      this.element.focus({ preventScroll: true });
      context.command({ type, run, call: [...path, call], digest: this.request.digest, ...more });
    };
    this.note = h('p', { class: 'note', role: 'status' });
    this.fields = h('fieldset', {});
    this.element = h('section', { class: 'decision', 'aria-label': `${words} ${card.tool}: ${gist(this.request.arguments)}`, tabindex: '-1' });
  }

  /** `pending`: a decision of this page is on its way. */
  update(pending, connected) {
    this.fields.disabled = Boolean(pending);
    const sending = connected ? 'Sending your decision…' : 'Your decision will be sent when the connection is back.';
    setText(this.note, pending ? sending : '');
  }

  /** The focus comes here from elsewhere, where the key or click that is under way may have been meant. Moves nothing. */
  focus() {
    arm(this.element, this.armed);
    this.element.focus({ preventScroll: true });
    return true;
  }

  /** Something is written here that was not sent. */
  get begun() {
    return false;
  }

  tick() {}

  refused() {}
}

export class ApprovalView extends Decision {
  constructor(card, context) {
    super(card, context, 'Approval of');
    const { tool, request } = card;
    this.list = argumentList(request.arguments);
    this.editor = h('textarea', { class: 'editor', rows: '6', spellcheck: 'false', dir: 'ltr', 'aria-label': 'Arguments as JSON' });
    this.problem = h('p', { class: 'problem', role: 'alert', hidden: true });
    this.reason = field('Reason', 'Why not? The agent is told. (optional)', 4_000);
    this.always = h('input', { type: 'checkbox' });
    this.approve = button('Approve', () => this.#approve(), 'primary');
    this.edit = button('Edit arguments', () => this.#edit());
    this.deny = button('Deny', () => this.#deny(), 'danger');
    this.back = button('Back', () => this.#back(), 'quiet');
    this.expiry = h('p', { class: 'note', title: request.expires_at && fullTime(request.expires_at), hidden: !request.expires_at });
    this.ticks = Boolean(request.expires_at);
    this.whether = h('label', { class: 'always' }, this.always, `Always allow ${tool} in this conversation`);
    this.fields.append(this.list, this.editor, this.problem, this.reason,
      h('div', { class: 'row' }, this.approve, this.edit, this.deny, this.back), this.whether);
    this.element.append(h('h2', {}, 'Allow ', h('code', {}, tool), '?'));
    if (request.summary) this.element.append(h('p', { dir: 'auto' }, request.summary));
    this.element.append(this.fields, this.expiry, this.note);
    this.element.addEventListener('keydown', (event) => this.#key(event));
    this.#show('reading');
    this.armed = [this.approve, this.edit, this.deny];
    arm(this.element, this.armed);
  }

  get begun() {
    return this.mode !== 'reading' && !this.sent;
  }

  tick(now) {
    if (this.ticks) setText(this.expiry, expiryWords(this.request.expires_at - now));
  }

  /** The server would not take these arguments: they stand in the editor, with what it said. */
  refused(args, message) {
    const here = this.element.contains(document.activeElement);
    this.sent = false;
    this.fields.disabled = false;
    if (this.mode !== 'editing') this.editor.value = print(args, 2);
    this.#show('editing');
    this.#wrong(message, here);
    return true;
  }

  #show(mode) {
    this.mode = mode;
    this.list.hidden = mode === 'editing';
    this.editor.hidden = mode !== 'editing';
    this.reason.hidden = mode !== 'denying';
    this.problem.hidden = true;
    this.editor.removeAttribute('aria-invalid');
    this.approve.hidden = mode === 'denying';
    this.edit.hidden = mode !== 'reading';
    this.deny.hidden = mode === 'editing';
    this.back.hidden = mode === 'reading';
    this.whether.hidden = mode === 'denying';
    this.approve.textContent = mode === 'editing' ? 'Approve these' : 'Approve';
  }

  #edit() {
    this.editor.value = print(this.request.arguments, 2);
    this.#show('editing');
    this.editor.focus();
  }

  #approve() {
    const always = this.always.checked || undefined;
    if (this.mode !== 'editing') return this.send('approve', { always });
    this.problem.hidden = true; // what was said of other arguments
    try {
      const edited = parse(this.editor.value);
      if (edited === null || typeof edited !== 'object' || Array.isArray(edited)) throw new SyntaxError('It must be an object.');
      const same = print(edited) === print(this.request.arguments);
      return this.send('approve', { always, arguments: same ? undefined : edited });
    } catch (error) {
      return this.#wrong(error.message, true);
    }
  }

  #wrong(message, focus) {
    this.problem.textContent = `This is not what the tool can take. ${message}`;
    this.problem.hidden = false;
    this.editor.setAttribute('aria-invalid', 'true');
    if (focus) this.editor.focus();
  }

  #deny() {
    if (this.mode === 'denying') return this.send('deny', { reason: this.reason.value.trim() || undefined });
    this.#show('denying');
    return this.reason.focus();
  }

  #back() {
    const from = this.mode === 'editing' ? this.edit : this.deny;
    this.#show('reading');
    from.focus();
  }

  #key(event) {
    const { key, repeat, isComposing, ctrlKey, metaKey, altKey } = event;
    if (repeat || isComposing || ctrlKey || metaKey || altKey) return;
    if (key === 'Enter' && event.target === this.reason) this.#deny();
    if (isField(event.target)) return;
    const meant = { a: this.approve, r: this.deny }[key];
    if (!meant || this.mode !== 'reading') return;
    event.preventDefault(); // the letter is not the reason
    meant.click();
  }
}

export class DoubtView extends Decision {
  constructor(card, context) {
    super(card, context, 'In doubt:');
    const result = field('Result', 'What came out of it? (for “It was done”)', 20_000);
    const settle = (outcome, more) => () => this.send('settle', { outcome, digest: undefined, ...more?.() });
    const done = button('It was done', settle('done', () => ({ result: result.value.trim() || undefined })), 'primary');
    const rerun = button('Run it again', settle('rerun'));
    const skip = button('Skip it', settle('skip'));
    this.fields.append(argumentList(this.request.arguments), result, h('div', { class: 'row' }, done, rerun, skip));
    this.element.append(
      h('h2', {}, 'Did ', h('code', {}, card.tool), ' happen?'),
      h('p', {}, 'The server went down while this was running, and nobody can tell whether it was done. Please look, then say.'),
      this.fields, this.note,
    );
    this.armed = [done, rerun, skip];
    arm(this.element, this.armed);
  }
}
