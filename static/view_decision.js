/* A person's decision on one tool call: approve (also with other arguments), deny, or settle a doubt.

   What is shown is what runs: the command carries the digest of the arguments that the event held. The buttons are armed
   half a second after they came into view, and none has the focus by itself, so that a click or a key that was meant for
   something else decides nothing. */

import { h, setText } from './dom.js';
import { parse, print } from './exact.js';
import { argumentList } from './view_arguments.js';

const ARMED_AFTER_MS = 500;

function arm(element, buttons) {
  for (const button of buttons) button.disabled = true;
  const seen = new IntersectionObserver(([entry]) => {
    if (!entry.isIntersecting) return;
    seen.disconnect();
    setTimeout(() => { for (const button of buttons) button.disabled = false; }, ARMED_AFTER_MS);
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
    this.send = (type, more) => context.command({ type, run, call: [...path, call], digest: this.request.digest, ...more });
    this.note = h('p', { class: 'note', role: 'status' });
    this.fields = h('fieldset', {});
    this.element = h('section', { class: 'decision', 'aria-label': `${words} ${card.tool}`, tabindex: '-1' });
  }

  /** `pending`: a decision of this page is on its way. */
  update(pending, connected) {
    this.fields.disabled = Boolean(pending);
    const sending = connected ? 'Sending your decision…' : 'Your decision will be sent when the connection is back.';
    setText(this.note, pending ? sending : '');
  }
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
    this.back = button('Back', () => this.#show('reading'), 'quiet');
    this.whether = h('label', { class: 'always' }, this.always, `Always allow ${tool} in this conversation`);
    this.fields.append(this.list, this.editor, this.problem, this.reason,
      h('div', { class: 'row' }, this.approve, this.edit, this.deny, this.back), this.whether);
    this.element.append(h('h3', {}, 'Allow ', h('code', {}, tool), '?'));
    if (request.summary) this.element.append(h('p', { dir: 'auto' }, request.summary));
    this.element.append(this.fields, this.note);
    this.#show('reading');
    arm(this.element, [this.approve, this.edit, this.deny]);
  }

  #show(mode) {
    this.mode = mode;
    this.list.hidden = mode === 'editing';
    this.editor.hidden = mode !== 'editing';
    this.reason.hidden = mode !== 'denying';
    this.problem.hidden = true;
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
    try {
      const edited = parse(this.editor.value);
      if (edited === null || typeof edited !== 'object' || Array.isArray(edited)) throw new SyntaxError('It must be an object.');
      const same = print(edited) === print(this.request.arguments);
      return this.send('approve', { always, arguments: same ? undefined : edited });
    } catch (error) {
      this.problem.textContent = `This is not what the tool can take. ${error.message}`;
      this.problem.hidden = false;
      return this.editor.focus();
    }
  }

  #deny() {
    if (this.mode === 'denying') return this.send('deny', { reason: this.reason.value.trim() || undefined });
    this.#show('denying');
    return this.reason.focus();
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
      h('h3', {}, 'Did ', h('code', {}, card.tool), ' happen?'),
      h('p', {}, 'The server went down while this was running, and nobody can tell whether it was done. Please look, then say.'),
      this.fields, this.note,
    );
    arm(this.element, [done, rerun, skip]);
  }
}
