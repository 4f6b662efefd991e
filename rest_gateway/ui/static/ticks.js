// Marks of a time axis that is drawn in instants: at round wall-clock times of the zone, also across its clock changes.

import { fromWall, wall } from "./times.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  1000, 5000, 15_000, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 5 * DAY, 10 * DAY,
];
const MONTH_STEPS = [1, 3, 6, 12, 24, 60, 120, 240, 600, 1200];
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** `{tickvals, ticktext}` for the instants from `from` to `to` (ms), at most about `most` of them. */
export function timeTicks(from, to, zone, most) {
  const span = Math.max(to - from, 1);
  const step = STEPS.find((each) => span / each <= most);
  const marks = step ? evenMarks(from, to, zone, step) : monthMarks(from, to, zone, span / (30.4 * DAY) / most);
  return { tickvals: marks.map(([ms]) => ms), ticktext: marks.map(([, text]) => text) };
}

function evenMarks(from, to, zone, step) {
  const marks = [];
  let day = "";
  const first = Math.floor(wall(from, zone).getTime() / step) * step;
  for (let clock = first; clock <= wall(to, zone).getTime() + step; clock += step) {
    const shown = new Date(clock);
    const ms = fromWall(shown, zone);
    if (ms < from || ms > to) continue;
    const date = `${shown.getUTCDate()} ${MONTHS[shown.getUTCMonth()]}`;
    const newDay = date !== day;
    const year = day === "" || (shown.getUTCMonth() === 0 && newDay && shown.getUTCDate() < 11);
    const line = newDay ? date + (year ? ` ${shown.getUTCFullYear()}` : "") : "";
    day = date;
    marks.push([ms, step >= DAY ? line : `${clockText(shown, step)}<br>${line}`]);
  }
  return marks;
}

const clockText = (shown, step) => shown.toISOString().slice(11, step < MINUTE ? 19 : 16);

function monthMarks(from, to, zone, least) {
  const months = MONTH_STEPS.find((each) => each >= least) ?? MONTH_STEPS.at(-1);
  const start = wall(from, zone);
  const marks = [];
  const first = Math.floor((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months;
  for (let count = first; ; count += months) {
    const shown = new Date(0);
    shown.setUTCFullYear(Math.floor(count / 12), count % 12, 1);
    const ms = fromWall(shown, zone);
    if (ms > to) return marks;
    const [month, year] = [MONTHS[count % 12], shown.getUTCFullYear()];
    const named = marks.length === 0 || count % 12 === 0;
    if (ms >= from) marks.push([ms, months >= 12 ? String(year) : `${month}${named ? `<br>${year}` : ""}`]);
  }
}
