// All that the page shows is said by its address, so that it can be sent, kept and gone back to. No key is part of it.

import { brief, canonical } from "./times.js";

const FIELDS = {
  series: "", // series_id
  range: "7d", // up to the newest value; or `custom` with from and to
  from: "",
  to: "",
  known: "", // as known at this time, inclusive; empty: now
  tz: "utc",
  revisions: "1",
  changes: "1",
  bands: "1",
  tab: "values",
  actual: "", // series_id of the actual values
  horizon: "1h",
};
const ALLOWED = {
  range: /^(1d|7d|30d|1y|all|custom)$/,
  tz: /^(utc|local)$/,
  revisions: /^[01]$/,
  changes: /^[01]$/,
  bands: /^[01]$/,
  tab: /^(values|revisions|changes|accuracy)$/,
  horizon: /^(15m|1h|6h|1d)$/,
};

const listeners = [];
let current = parse(location.search);

/** What is shown now; not to be changed but with `go`. */
export const state = () => current;

/** Calls `listener(state, names of the fields that changed)` after each change. */
export const onChange = (listener) => listeners.push(listener);

/** Shows something else. `replace`: as part of the same step of the history, as while a slider moves. */
export function go(change, { replace = false } = {}) {
  const next = { ...current, ...change };
  const address = addressOf(next);
  if (address !== addressOf(current)) history[replace ? "replaceState" : "pushState"](null, "", address);
  tell(next);
}

export function addressOf(wanted) {
  const query = new URLSearchParams();
  for (const [name, usual] of Object.entries(FIELDS)) if (wanted[name] !== usual) query.set(name, name === "known" ? brief(wanted[name]) : wanted[name]);
  const text = query.toString().replaceAll("%3A", ":");
  return location.pathname + (text && `?${text}`);
}

function parse(search) {
  const given = new URLSearchParams(search);
  const found = {};
  for (const [name, usual] of Object.entries(FIELDS)) {
    const value = given.get(name) ?? usual;
    found[name] = ALLOWED[name]?.test(value) === false ? usual : value;
  }
  found.known = canonical(found.known) ?? ""; // in the form of the answers, to compare with
  return found;
}

function tell(next) {
  const changed = new Set(Object.keys(FIELDS).filter((name) => next[name] !== current[name]));
  current = next;
  if (changed.size) for (const listener of listeners) listener(current, changed);
}

// The address as it would be written here: without what is unknown, wrong or usual.
history.replaceState(null, "", addressOf(current));
addEventListener("popstate", () => tell(parse(location.search)));
