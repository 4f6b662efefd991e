// What the versions of a series say: its revisions, and what was changed in them. Plain data, no document.
//
// The rows are those of `mode=overlapping&all_versions=true`: sorted by known_time, valid_time, …, change_time.

/** A value as a number to draw: null, NaN and the infinities are gaps. */
export const number = (value) => (typeof value === "number" ? value : null);

/** `{revisions, changes, knownTimes}` of all version rows. */
export function readVersions(rows) {
  const chains = new Map();
  for (const row of rows) {
    const chain = chains.get(row.value_id);
    if (chain) chain.push(row);
    else chains.set(row.value_id, [row]);
  }
  const revisions = [];
  const changes = [];
  for (const chain of chains.values()) {
    const last = chain.at(-1);
    if (!last.retracted) revisions.push(last);
    chain.forEach((row, at) => {
      if (at > 0 || row.retracted) changes.push(changeOf(chain[at - 1], row, at === chain.length - 1));
    });
  }
  changes.sort((one, other) => (one.row.change_time < other.row.change_time ? 1 : -1));
  return { revisions, changes, knownTimes: [...new Set(rows.map((row) => row.known_time))].sort() };
}

function changeOf(before, row, stands) {
  let kind = "annotated";
  if (row.retracted && !before?.retracted) kind = "withdrawn";
  else if (before?.retracted && !row.retracted) kind = "restored";
  else if (before?.value !== row.value) kind = "corrected";
  // A withdrawn version may have no value of its own; its mark stands where the value was.
  return { kind, before: before?.value ?? null, after: row.value, row, stands, at: number(row.value) ?? number(before?.value) };
}

/** Who changed what, when and why, a line each. */
export function describeChange({ kind, before, after, row }, showTime) {
  const what = kind === "corrected" ? `corrected: ${showNumber(before)} → ${showNumber(after)}` : kind;
  const when = showTime(row.change_time.replace(/\.\d+/, ""));
  const lines = [what, row.changed_by ? `by ${row.changed_by}, ${when}` : when];
  if (row.annotation) lines.push(`“${row.annotation}”`);
  return lines;
}

/** The lines of the fan: revisions that came together, oldest first: `[{known_time, rows}]`. */
export function fanLines(revisions) {
  const lines = new Map();
  for (const row of revisions) {
    const of = `${row.known_time} ${row.run_id}`;
    const line = lines.get(of);
    if (line) line.rows.push(row);
    else lines.set(of, { known_time: row.known_time, rows: [row] });
  }
  return [...lines.values()].sort((one, other) => (one.known_time < other.known_time ? -1 : 1));
}

/** A number as it is read, not as it is stored; texts such as NaN as they are. */
export function showNumber(value, digits = 8) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? String(Number(value.toPrecision(digits))).replace("-", "−") : value;
}
