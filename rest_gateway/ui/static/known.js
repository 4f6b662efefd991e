// The slider "as known at": one stop for each known_time, and at its end what is known now.

import { $ } from "./dom.js";
import { go, state } from "./state.js";
import { show } from "./times.js";

const PLAY_MS = 350;
const ONE_MOVE_MS = 1000; // moves that follow each other faster are one step of the history

let times = [];
let playing = 0;
let movedAt = -Infinity;

/** Readies the slider and its buttons. */
export function readyKnown() {
  $("known").addEventListener("input", () => moveTo(Number($("known").value)));
  $("known-back").addEventListener("click", () => moveTo(position() - 1));
  $("known-on").addEventListener("click", () => moveTo(position() + 1));
  $("known-now").addEventListener("click", () => moveTo(times.length));
  $("known-play").addEventListener("click", () => (playing ? stopPlaying() : play()));
}

/** Shows the state; `knownTimes` are those of the revisions that are loaded, sorted. */
export function showKnown({ known, tz }, knownTimes) {
  times = knownTimes;
  const at = position();
  const slider = $("known");
  slider.max = String(times.length);
  slider.value = String(at);
  slider.disabled = times.length === 0;
  const text = known ? `${show(known, tz)}${tz === "utc" ? " UTC" : ""}` : "latest";
  slider.setAttribute("aria-valuetext", known ? `${text}, ${at + 1} of ${times.length} revisions` : "latest");
  $("known-time").textContent = known ? text : "now: the latest word on everything";
  $("known-first").textContent = times.length ? show(times[0], tz) : "";
  $("known-back").disabled = times.length === 0 || (known !== "" && at <= 0);
  for (const id of ["known-on", "known-now"]) $(id).disabled = known === "";
  $("known-play").disabled = times.length < 2;
}

/** Where the state's time stands among the revisions: the last that was known by then; -1 before the first. */
function position() {
  const { known } = state();
  return known ? times.findLastIndex((time) => time <= known) : times.length;
}

function moveTo(at) {
  stopPlaying();
  jump(at);
}

function jump(at) {
  const to = Math.max(0, at);
  const replace = performance.now() - movedAt < ONE_MOVE_MS;
  movedAt = performance.now();
  go({ known: to >= times.length ? "" : times[to] }, { replace });
}

function play() {
  const first = position() >= times.length ? 0 : position() + 1;
  jump(first);
  playing = setInterval(() => {
    jump(position() + 1);
    if (!state().known) stopPlaying();
  }, PLAY_MS);
  $("known-play").textContent = "❚❚ Pause";
  $("known-play").setAttribute("aria-label", "Pause");
}

/** Holds where it is. */
export function stopPlaying() {
  clearInterval(playing);
  playing = 0;
  $("known-play").textContent = "▶ Play";
  $("known-play").setAttribute("aria-label", "Play the revisions");
}
