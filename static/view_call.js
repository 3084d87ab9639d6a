/* One tool call in the transcript: a card whose look is a pure function of what the log says of the call.

   Closed, it is one line: state, tool, arguments in brief, time taken. Open, it shows arguments and result whole. Where a
   person has to decide, the decision stands below it; where the call is a sub-agent, its own transcript does. */

import { h, setAttribute, setText } from './dom.js';
import { visible } from './exact.js';
import { toast } from './toast.js';
import { argumentList, argumentsOf, gist } from './view_arguments.js';
import { ApprovalView, DoubtView } from './view_decision.js';
import { callLook, callStates, decisionWords, duration, elapsed } from './words.js';

const decisions = { approval: ApprovalView, doubt: DoubtView };

export class CallView {
  #context;
  #card = null;
  inner = null; // the Items of the level below
  #decision = null;
  #drawn = null; // which arguments the details show

  constructor(context) {
    this.#context = context;
    this.tool = h('code', { class: 'tool' });
    this.gist = h('span', { class: 'gist' });
    this.state = h('span', { class: 'state' });
    this.time = h('span', { class: 'time' });
    const glyph = h('i', { class: 'glyph', 'aria-hidden': 'true' });
    this.summary = h('summary', {}, glyph, this.tool, this.gist, this.state, this.time);
    this.given = h('div', {});
    this.outcome = h('div', { class: 'outcome' });
    this.bar = h('progress', { max: '1', hidden: true });
    this.doing = h('span', { dir: 'auto' });
    this.progress = h('div', { class: 'progress', hidden: true }, this.bar, this.doing);
    this.element = h('article', { class: 'call' }, h('details', {}, this.summary, this.given, this.outcome), this.progress);
  }

  update(card) {
    this.#card = card;
    const look = callLook(card);
    this.element.dataset.phase = card.phase;
    this.element.dataset.look = look;
    setText(this.tool, card.agent ?? card.tool);
    const args = argumentsOf(card);
    setText(this.gist, gist(args));
    const decided = card.phase === 'returned' && card.decision;
    setText(this.state, decided ? decisionWords(card.decision, this.#context.viewer()) : callStates[look] ?? callStates.failed);
    this.state.classList.toggle('unseen', card.phase === 'returned' && !decided); // the check mark says it
    if (this.#drawn !== args) this.given.replaceChildren(h('h4', {}, 'Arguments'), argumentList(args));
    this.#drawn = args;
    this.#showOutcome(card);
    this.#showProgress(card);
    this.#showDecision(card);
    this.drawInner(card);
    this.tick();
  }

  get ticks() {
    return this.#card.phase === 'running' || Boolean(this.#decision?.ticks || this.inner?.ticks);
  }

  focusDecision() {
    return this.#decision?.focus();
  }

  refused(args, message) {
    return this.#decision?.refused(args, message);
  }

  /** The level below, which changes on its own. */
  drawInner({ items }) {
    if (!items.length) return;
    if (!this.inner) {
      this.inner = this.#context.level();
      this.element.append(this.inner.element);
    }
    this.inner.draw(items);
  }

  tick() {
    const { phase, ms, started_at } = this.#card;
    const running = phase === 'running' ? elapsed(this.#context.now() - started_at) : '';
    setText(this.time, ms === undefined ? running : duration(ms));
    this.#decision?.tick(this.#context.now());
    this.inner?.tick();
  }

  #showOutcome({ result, truncated, error, decision, settled }) {
    const note = (text) => h('p', { class: 'note', dir: 'auto' }, visible(text));
    const parts = [];
    if (decision) parts.push(note(decisionWords(decision, this.#context.viewer())));
    if (result !== undefined) {
      parts.push(h('h4', {}, 'Result'), h('pre', { class: 'result', dir: 'auto', tabindex: '0' }, visible(result)));
    }
    if (truncated) parts.push(note('Only the beginning is shown; the agent has all of it.'));
    if (error) parts.push(h('p', { class: 'problem', dir: 'auto' }, visible(error.message)));
    if (settled) parts.push(note(`It turned out later: ${settled.result ?? settled.error.message}`));
    this.outcome.replaceChildren(...parts);
  }

  #showProgress({ phase, progress }) {
    this.progress.hidden = phase !== 'running' || !progress;
    setText(this.doing, visible(progress?.text ?? ''));
    this.bar.hidden = progress?.fraction === undefined;
    setAttribute(this.bar, 'value', progress?.fraction);
  }

  #showDecision(card) {
    const View = decisions[card.phase];
    if (this.#decision && this.#decision.request !== (View && card.request)) {
      if (this.#decision.begun && card.decision) toast(`${decisionWords(card.decision, this.#context.viewer())}. What you were writing is not used.`);
      this.#decision.element.remove();
      this.#decision = null;
    }
    if (!View) return;
    if (!this.#decision) {
      this.#decision = new View(card, this.#context);
      this.element.append(this.#decision.element);
    }
    this.#decision.update(this.#context.pendingDecision(card), this.#context.connected());
  }
}
