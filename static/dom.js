/* Making elements. Text goes in as text: nothing here, and nothing that uses it, ever parses HTML
   (the one place that does is markdown.js). */

/** An element: `h('button', {class: 'quiet', onclick: go, disabled: true}, 'Go')`. Absent children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Writes only what differs, so that a selection in unchanged text survives. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (value === undefined || value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Whether letters go into it. */
export const isField = (element) => element.matches('textarea, select, input:not([type="checkbox"])') || element.isContentEditable;

export const $ = (id) => document.getElementById(id);
