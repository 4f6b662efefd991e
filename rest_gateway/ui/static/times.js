// Times. Inside: milliseconds since 1970 to draw with, and the API's own text, whose microseconds must not be lost.

const WHOLE = "2025-01-01T00:00:00".length;

export const toMs = (text) => Date.parse(text);

/** The instants of a row in ms: its valid time, and where that ends if it is an interval. */
export const timesOf = (row) => [toMs(row.valid_time), ...(row.valid_time_end ? [toMs(row.valid_time_end)] : [])];

/** The API's form of a time, `YYYY-MM-DDTHH:MM:SS.ffffff+00:00`, which also sorts as text; null for what is none. */
export function canonical(text) {
  const ms = Date.parse(text ?? "");
  if (Number.isNaN(ms)) return null;
  const fraction = /\.(\d{1,6})/.exec(text)?.[1] ?? "";
  return `${new Date(ms).toISOString().slice(0, WHOLE)}.${fraction.padEnd(6, "0")}+00:00`;
}

export const fromMs = (ms) => canonical(new Date(ms).toISOString());

/** The shortest form, for addresses and calls. */
export const brief = (text) => text.replace(/\.?0*\+00:00$/, "Z");

/** One microsecond later: `end_known` excludes its own instant, "as known at" includes it. */
export function justAfter(text) {
  const micros = Number(text.slice(WHOLE + 1, WHOLE + 7)) + 1;
  if (micros < 1e6) return `${text.slice(0, WHOLE)}.${String(micros).padStart(6, "0")}+00:00`;
  return fromMs(Date.parse(`${text.slice(0, WHOLE)}Z`) + 1000);
}

const offsetMs = (ms, zone) => (zone === "local" ? -new Date(ms).getTimezoneOffset() * 60_000 : 0);

/** The wall clock of a zone (`utc` or `local`) at `ms`, as a Date whose UTC fields show it. */
export const wall = (ms, zone) => new Date(ms + offsetMs(ms, zone));

/** The instant at which the wall clock shows what the UTC fields of `shown` say; a skipped one counts as the next. */
export function fromWall(shown, zone) {
  if (zone !== "local") return shown.getTime();
  return new Date(
    shown.getUTCFullYear(), shown.getUTCMonth(), shown.getUTCDate(),
    shown.getUTCHours(), shown.getUTCMinutes(), shown.getUTCSeconds(), shown.getUTCMilliseconds(),
  ).getTime();
}

/** `2025-01-01 09:00`, with seconds and less only where there are any, and local times with their offset. */
export function show(text, zone) {
  const ms = toMs(text);
  const clock = wall(ms, zone).toISOString();
  const fraction = (/\.(\d+)/.exec(text)?.[1] ?? "").replace(/0+$/, "");
  const seconds = clock.slice(17, 19) + (fraction && `.${fraction}`);
  return `${clock.slice(0, 10)} ${clock.slice(11, 16)}${seconds === "00" ? "" : `:${seconds}`}${suffix(ms, zone)}`;
}

function suffix(ms, zone) {
  if (zone !== "local") return "";
  const minutes = offsetMs(ms, zone) / 60_000;
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return ` ${minutes < 0 ? "−" : "+"}${String(hours).padStart(2, "0")}:${String(rest).padStart(2, "0")}`;
}

export const zoneName = (zone) =>
  zone === "local" ? `local time (${Intl.DateTimeFormat().resolvedOptions().timeZone})` : "UTC";

/** What a datetime-local input shows for an instant, and back. */
export const toInput = (ms, zone) => wall(ms, zone).toISOString().slice(0, WHOLE).replace(/:00$/, "");
export const fromInput = (value, zone) => fromWall(new Date(`${value.length === 16 ? `${value}:00` : value}Z`), zone);

const SPAN = /^(\d+)(m|h|d|y)$/;
const UNITS = { m: 60_000, h: 3_600_000, d: 86_400_000, y: 366 * 86_400_000 };

/** `7d` as milliseconds. */
export function spanMs(text) {
  const [, count, unit] = SPAN.exec(text);
  return Number(count) * UNITS[unit];
}

/** How long, in words: `36 h`, `2 d 12 h`. */
export function showSpan(seconds) {
  const sign = seconds < 0 ? "−" : "";
  let left = Math.abs(seconds);
  if (left < 48 * 3600 && left % 3600 === 0) return `${sign}${left / 3600} h`;
  const parts = [];
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count) parts.push(`${count} ${unit}`);
  }
  return sign + (parts.slice(0, 2).join(" ") || "0 h");
}
