// The bands of a forecast: between quantiles that lie alike around the median, such as 0.1 and 0.9. Series that differ
// in the label `quantile` alone are siblings.

import { findSeries, PAGE_ROWS, readValues } from "./api.js";
import { $, make } from "./dom.js";
import { mixed } from "./plot.js";
import { justAfter, timesOf } from "./times.js";
import { number, showNumber } from "./versions.js";

const isQuantile = (text) => /^0\.\d*[1-9]$/.test(text); // its one spelling
const percent = (text) => showNumber(100 * Number(text));

/** What a series has bands of: `pairs` of quantiles, the widest first, and how to ask for them; null: it has none. */
export async function findBands(series, signal) {
  const { quantile, ...labels } = series.labels;
  if (!isQuantile(quantile)) return null;
  const name = series.series_key;
  const { found } = await findSeries({ name, labels, limit: PAGE_ROWS }, signal);
  const count = Object.keys(series.labels).length;
  const siblings = found.filter((each) => isQuantile(each.labels.quantile) && Object.keys(each.labels).length === count);
  const pairs = pairsOf(siblings.map((each) => each.labels.quantile));
  if (pairs.length === 0) return null;
  const not = found.flatMap((each) => Object.keys(each.labels)).map((label) => [label, null]);
  const these = { ...Object.fromEntries(not), ...labels, quantile: [...new Set([quantile, ...pairs.flatMap(({ low, high }) => [low, high])])] };
  return { pairs, asked: { name, labels: JSON.stringify(these), pivot: "quantile" } };
}

function pairsOf(quantiles) {
  const sorted = quantiles.toSorted((one, other) => one - other);
  return sorted.filter((low) => low < 0.5).flatMap((low) => {
    const high = sorted.find((each) => Math.abs(Number(low) + Number(each) - 1) < 1e-9);
    return high ? [{ low, high, name: `${percent(low)}–${percent(high)} %` }] : [];
  });
}

/** The bands in a range, as known at the state's time: `pairs`, wide `rows`, and `next`, what asks for those left. */
export async function loadBands(bands, { known }, span, signal) {
  if (!bands) return { pairs: [], rows: [] };
  const next = { ...bands.asked, ...span, ...(known && { end_known: justAfter(known) }) };
  return moreBands({ pairs: bands.pairs, rows: [], next }, signal);
}

/** The bands with another page of their rows, on the same snapshot. */
export async function moreBands({ pairs, rows, next }, signal) {
  if (!next) return { pairs, rows };
  const { data, next_cursor: cursor } = await readValues(next, signal);
  return { pairs, rows: rows.concat(data), next: cursor ? { ...next, cursor } : null };
}

/** The areas to draw, the widest first; nothing where one of the pair is missing. */
export function areas({ pairs, rows }, colours) {
  return pairs.map(({ low, high, name }, at) => {
    const line = { color: colours.bandEdge, width: 1 };
    const style = { mode: "lines", line, fill: "toself", fillcolor: shade(at, pairs, colours), hoverinfo: "skip" };
    return { under: [], trace: { name, ...outlines(rows, low, high), ...style, type: "scatter" } };
  });
}

/** The further in, the stronger. */
const shade = (at, pairs, { bandOut, bandIn }) => mixed(bandOut, bandIn, pairs.length > 1 ? at / (pairs.length - 1) : 1);

/** The outline of each stretch without gaps: on along the upper edge, back along the lower. */
function outlines(rows, low, high) {
  const [x, y] = [[], []];
  let [upper, lower] = [[], []];
  let end = null;
  for (const row of rows) {
    const edges = [row[low], row[high]].map(number);
    const times = timesOf(row);
    if (edges.includes(null) || (end !== null && times[0] !== end)) close();
    if (edges.includes(null)) continue;
    for (const ms of times) {
      lower.push([ms, edges[0]]);
      upper.push([ms, edges[1]]);
    }
    end = times[1] ?? null;
  }
  close();
  return { x, y };

  function close() {
    if (upper.length === 0) return;
    for (const [ms, value] of [...upper, ...lower.reverse(), upper[0], [null, null]]) {
      x.push(ms);
      y.push(value);
    }
    [upper, lower, end] = [[], [], null];
  }
}

/** Names the pairs beside the chart, each with its colour. */
export function showBands({ pairs }, colours) {
  $("bands-key").hidden = pairs.length === 0;
  $("bands-names").replaceChildren(...pairs.flatMap(({ name }, at) => {
    const swatch = make("i", { className: "swatch band" });
    swatch.style.setProperty("background", shade(at, pairs, colours));
    return [at ? ", " : "", swatch, ` ${name}`];
  }));
}
