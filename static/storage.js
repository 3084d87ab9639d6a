/* What this browser keeps: drafts for as long as it likes, unanswered commands for as long as the tab lives.

   Where the browser refuses to keep anything (blocked, full), it is kept in memory: the page works on, and only a reload
   forgets. */

function safely(storage) {
  const memory = new Map();
  return {
    get(key) {
      try {
        return memory.get(key) ?? globalThis[storage].getItem(key);
      } catch {
        return null;
      }
    },
    set(key, text) {
      try {
        globalThis[storage].setItem(key, text);
        memory.delete(key);
      } catch {
        memory.set(key, text);
      }
    },
    remove(key) {
      memory.delete(key);
      try {
        globalThis[storage].removeItem(key);
      } catch {
        // it was never there
      }
    },
  };
}

export const drafts = safely('localStorage');
export const pending = safely('sessionStorage');
