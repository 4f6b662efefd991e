// The calls of the API that give what a tab shows: to download in any format that the API has, or to copy.

import { callAddress, readBlob } from "./api.js";
import { $, announce, make } from "./dom.js";
import { brief, justAfter } from "./times.js";

const FORMATS = {
  csv: ["CSV", "text/csv"],
  parquet: ["Parquet", "application/vnd.apache.parquet"],
  ndjson: ["NDJSON", "application/x-ndjson"],
  json: ["JSON", "application/json"],
  arrows: ["Arrow stream", "application/vnd.apache.arrow.stream"],
};

/** The call behind a tab, as `[path, parameters]`: all rows, not only those that are drawn. */
export function callOf(state, span) {
  const known = state.known && { end_known: justAfter(state.known) };
  const bounds = Object.fromEntries(Object.entries({ ...span, ...known }).map(([name, text]) => [name, brief(text)]));
  if (state.tab === "accuracy")
    return ["accuracy", { series_id: state.series, actual_id: state.actual, ...bounds, horizon: state.horizon }];
  const modes = {
    values: {},
    revisions: { mode: "overlapping" },
    changes: { mode: "overlapping", all_versions: true },
  };
  return ["values", { series_id: state.series, ...bounds, ...modes[state.tab] }];
}

/** Readies the buttons; `current()` gives state and view, `fail(error)` shows what went wrong. */
export function readyCalls(current, fail) {
  $("format").append(...Object.entries(FORMATS).map(([name, [text]]) => make("option", { value: name }, text)));
  $("download").addEventListener("click", async () => {
    const { state, view } = current();
    const ending = $("format").value;
    $("download").disabled = true;
    announce("Downloading.");
    try {
      const [path, parameters] = callOf(state, view.span);
      save(await readBlob(path, parameters, FORMATS[ending][1]), `${view.series.series_key}-${state.tab}.${ending}`);
      announce("Downloaded.");
    } catch (error) {
      fail(error);
    } finally {
      $("download").disabled = false;
    }
  });
  $("copy-call").addEventListener("click", async () => {
    const { state, view } = current();
    const address = callAddress(...callOf(state, view.span)).href;
    try {
      await navigator.clipboard.writeText(address);
      say("Copied");
    } catch {
      prompt("The call:", address);
    }
  });
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function say(text) {
  const button = $("copy-call");
  const usual = button.textContent;
  button.textContent = text;
  announce(text);
  setTimeout(() => (button.textContent = usual), 1500);
}
