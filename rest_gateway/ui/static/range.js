// Which range of valid time, and in which zone times are written.

import { $, make } from "./dom.js";
import { go, state } from "./state.js";
import { brief, canonical, fromInput, fromMs, toInput, toMs, zoneName } from "./times.js";

let lastPreset = "7d";

/** Readies the controls; what they do goes through the address. */
export function readyRange() {
  $("zone").append(...["utc", "local"].map((zone) => make("option", { value: zone }, zone === "utc" ? "UTC" : "Local")));
  $("zone").addEventListener("change", (event) => go({ tz: event.target.value }));
  $("ranges").addEventListener("change", (event) => go({ range: event.target.value, from: "", to: "" }));
  for (const name of ["from", "to"]) $(name).addEventListener("change", () => typed(name));
}

/** Shows a stretch that was marked in the chart, in whole seconds. */
export function zoomTo(fromMs_, toMs_) {
  const [from, to] = [Math.floor(fromMs_ / 1000) * 1000, Math.ceil(toMs_ / 1000) * 1000];
  go({ range: "custom", from: brief(fromMs(from)), to: brief(fromMs(to)) });
}

export const zoomOut = () => go({ range: lastPreset, from: "", to: "" });

/** Shows the state, and of a preset what it came to. */
export function showRange({ range, from, to, tz }, span, extent) {
  if (range !== "custom") lastPreset = range;
  for (const radio of document.getElementsByName("range")) radio.checked = radio.value === range;
  $("zone").value = tz;
  $("zone").title = zoneName(tz);
  const bounds = range === "custom" ? [from, to] : [span.start_valid, span.end_valid];
  ["from", "to"].forEach((name, at) => {
    const bound = canonical(bounds[at]);
    const ms = bound ? toMs(bound) : extent?.[at];
    $(name).value = ms === undefined ? "" : toInput(ms, tz);
  });
}

function typed(name) {
  const { tz } = state();
  const times = ["from", "to"].map((each) => {
    const { value, valueAsNumber } = $(each);
    return Number.isNaN(valueAsNumber) || !value ? "" : brief(fromMs(fromInput(value, tz)));
  });
  const [from, to] = times;
  const wrong = from && to && from >= to;
  $(name).setCustomValidity(wrong ? "The range must end after it starts." : "");
  if (wrong) return $(name).reportValidity();
  for (const each of ["from", "to"]) $(each).setCustomValidity("");
  return go({ range: "custom", from, to });
}
