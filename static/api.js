/* The few HTTP calls of the page; everything that happens inside a conversation goes over its socket. */

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer's JSON (null for 204). Raises `Refused` where the server says no, TypeError where nobody answers. */
async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { 'content-type': 'application/json' } : {},
    body: body && JSON.stringify(body),
  });
  const json = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (answer.ok) return json;
  throw new Refused(answer.status, json?.error?.message ?? `The server answered ${answer.status}.`);
}

const at = (conversation, rest = '') => `/api/conversations/${encodeURIComponent(conversation)}${rest}`;

export const create = (id, prompt) => call('POST', '/api/conversations', { id, prompt });
export const remove = (conversation) => call('DELETE', at(conversation));
export const restore = (conversation) => call('POST', at(conversation, '/restore'));

const page = (parameters) => call('GET', `/api/conversations?${new URLSearchParams({ limit: 100, ...parameters })}`);
export const search = (q) => page({ q });
export const older = (before) => page(before ? { before } : {});
