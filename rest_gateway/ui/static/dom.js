// The few things that every part of the page does with the document. Text only, never markup.

export const $ = (id) => document.getElementById(id);

/** A new element; `properties` are set as such, and `data` and `aria` as attributes of that kind. */
export function make(tag, { data = {}, aria = {}, role, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(data)) element.dataset[name] = value;
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  if (role) element.setAttribute("role", role);
  element.append(...children);
  return element;
}

/** Says something to those who do not see the page change. */
export function announce(text) {
  $("status").textContent = text;
}

/** Calls `action` once, when there were no calls for `wait` milliseconds. */
export function settled(action, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(action, wait, ...given);
  };
}

/** Runs one async `task(signal, …)` at a time: a new call aborts the one before, whose answer nobody gets. */
export function latestOnly(task) {
  let running = null;
  return async (...given) => {
    running?.abort();
    const mine = (running = new AbortController());
    try {
      return await task(mine.signal, ...given);
    } catch (error) {
      if (mine.signal.aborted) return undefined;
      throw error;
    }
  };
}
