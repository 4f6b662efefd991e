// What a chart shows, said in words; and what it leaves out.

import { PAGE_ROWS } from "./api.js";
import { $, make } from "./dom.js";
import { asKnown } from "./load.js";
import { show } from "./times.js";
import { number, showNumber } from "./versions.js";

const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** One line for everybody, and the chart's description for those who do not see it. */
export function describeView(view, state) {
  const { rows, revisions, changes } = asKnown(view, state);
  if (rows.length === 0) return state.known ? "Nothing was known yet." : "No values in this range.";
  const unit = view.series.unit === "dimensionless" ? "" : ` ${view.series.unit}`;
  const numbers = rows.map((row) => number(row.value)).filter((value) => value !== null);
  const [least, greatest] = numbers.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
  const parts = [
    `${counted(rows.length, "value", "values")} from ${show(rows[0].valid_time, state.tz)} to ${show(rows.at(-1).valid_time, state.tz)}`,
    ...(numbers.length ? [`${showNumber(least, 4)} to ${showNumber(greatest, 4)}${unit}`] : []),
    counted(revisions.length, "revision", "revisions"),
    ...(changes.length ? [counted(changes.length, "change", "changes")] : []),
  ];
  return parts.join(" · ");
}

/** Says what was cut off, and offers more. */
export function showCut({ cut, flat, versions, bands }, more) {
  const box = $("cut");
  box.hidden = !cut.flat && !cut.versions && !bands.next;
  if (box.hidden) return;
  const parts = [];
  if (cut.flat) parts.push(`the first ${flat.length.toLocaleString("en")} values`);
  if (cut.versions) parts.push(`the ${versions.length.toLocaleString("en")} versions that became known first`);
  if (bands.next) parts.push(`the first ${bands.rows.length.toLocaleString("en")} times of the bands`);
  const button = make("button", { type: "button" }, `Load ${PAGE_ROWS.toLocaleString("en")} more`);
  button.addEventListener("click", more);
  box.replaceChildren(`Cut: these are ${parts.join(" and ")}. Shorten the range, or `, button);
}
