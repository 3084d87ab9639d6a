/* JSON and text exactly as they are: what a person approves is what will run.

   Whole numbers that JavaScript cannot hold keep the digits that were sent, and characters that cannot be seen, or that
   turn the text around, are written out. Pure. */

const exactNumbers = typeof JSON.rawJSON === 'function';
const mayLoseDigits = /\d{16}|\d[eE]\+?\d/;

function keepDigits(_key, value, context) {
  if (typeof value !== 'number' || !context) return value;
  const held = Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value));
  return held ? value : JSON.rawJSON(context.source);
}

/** JSON.parse that loses no digit. `print` writes them back. */
export function parse(text) {
  return exactNumbers && mayLoseDigits.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
}

export const print = (value, indent = 0) => JSON.stringify(value, null, indent);

// The same characters as in app/web/render.py.
const invisible =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

/** The text with its bidi, zero-width and control characters written out, as in ⟦U+202E⟧. */
export function visible(text) {
  return text.replace(invisible, (found) => `⟦U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}⟧`);
}
