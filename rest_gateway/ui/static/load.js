// What the page needs of a series for a state: asked of the service, at most a page of each kind at once.

import { findById, readLatest, readValues } from "./api.js";
import { findBands, loadBands, moreBands } from "./bands.js";
import { positionOf } from "./follow.js";
import { canonical, fromMs, justAfter, spanMs, timesOf, toMs } from "./times.js";
import { readVersions } from "./versions.js";

/**
 * What is known of a series in a range: `series`; `position`, from where on its feed has what is not
 * in here; `span`, the range as parameters of `GET /values`; `asked`, the range as chosen by hand; `extent`, the range of what there is, or null; `flat`, the rows known now; `then`, those known at a
 * time, or null; `versions` and what they say; `cut`, cursors of what is left; `banded`, what it has bands of, and
 * `bands`, those known then.
 */
export async function loadView(state, signal) {
  const series = await findById(state.series, signal);
  if (!series) return null;
  const [span, position, banded] = await Promise.all([
    spanOf(state, signal),
    positionOf(state.series, signal),
    findBands(series, signal),
  ]);
  const of = { series_id: state.series, ...span };
  const [flat, versions, then, bands] = await Promise.all([
    readValues(of, signal),
    readValues({ ...of, mode: "overlapping", all_versions: true }, signal),
    loadThen(state, span, signal),
    loadBands(banded, state, span, signal),
  ]);
  const read = { flat: flat.data, then, versions: versions.data, bands, cut: {} };
  const view = { series, position, span, banded, asked: askedFor(state), ...read };
  if (flat.next_cursor) view.cut.flat = flat.next_cursor;
  if (versions.next_cursor) view.cut.versions = versions.next_cursor;
  return understood(view);
}

/** The flat rows as they were known at the state's time, that instant included; null where it is now. */
export async function loadThen(state, span, signal) {
  if (!state.known) return null;
  const bounds = { series_id: state.series, ...span, end_known: justAfter(state.known) };
  return (await readValues(bounds, signal)).data;
}

/** Reads another page of what was cut, on the same snapshot. */
export async function loadMore(view, signal) {
  const of = { series_id: view.series.series_id, ...view.span };
  const { cut: { flat, versions }, bands } = view;
  const [moreFlat, moreVersions, moreOfBands] = await Promise.all([
    flat && readValues({ ...of, cursor: flat }, signal),
    versions && readValues({ ...of, mode: "overlapping", all_versions: true, cursor: versions }, signal),
    moreBands(bands, signal),
  ]);
  if (view.bands === bands) view.bands = moreOfBands; // else the state has another time meanwhile
  view.flat = view.flat.concat(moreFlat?.data ?? []);
  view.versions = view.versions.concat(moreVersions?.data ?? []);
  view.cut = {};
  if (moreFlat?.next_cursor) view.cut.flat = moreFlat.next_cursor;
  if (moreVersions?.next_cursor) view.cut.versions = moreVersions.next_cursor;
  return understood(view);
}

function understood(view) {
  let [from, to] = [Infinity, -Infinity];
  for (const row of [...view.flat, ...view.versions])
    for (const ms of timesOf(row)) [from, to] = [Math.min(from, ms), Math.max(to, ms)];
  return Object.assign(view, { extent: from <= to ? [from, to] : null }, readVersions(view.versions));
}

/** What is shown of a view: only what was known by the state's time. */
export function asKnown(view, { known }) {
  const by = (row) => !known || row.known_time <= known;
  return {
    rows: view.then ?? view.flat,
    revisions: view.revisions.filter(by),
    changes: view.changes.filter((change) => by(change.row)),
  };
}

/** The bounds that were asked for by hand, in ms; a preset has none. */
function askedFor({ range, from, to }) {
  if (range !== "custom") return {};
  const [first, last] = [from, to].map((text) => (canonical(text) ? toMs(text) : undefined));
  return { from: first, to: last };
}

async function spanOf({ series, range, from, to }, signal) {
  if (range === "all") return {};
  if (range === "custom") {
    const [start_valid, end_valid] = [canonical(from), canonical(to)];
    return { ...(start_valid && { start_valid }), ...(end_valid && { end_valid }) };
  }
  const latest = await readLatest(series, signal);
  if (!latest) return {};
  const end = toMs(latest.valid_time) + 1;
  return { start_valid: fromMs(end - 1 - spanMs(range)), end_valid: fromMs(end) };
}
