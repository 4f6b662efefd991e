// The rows behind the chart as a table, a page of them at a time.

import { $, make } from "./dom.js";
import { show, showSpan } from "./times.js";
import { showNumber } from "./versions.js";

const PAGE = 50;

const time = (name, text) => ({ text, className: () => "time", of: (row, zone) => (row[name] ? show(row[name], zone) : "") });
const value = { text: "Value", numeric: true, of: (row) => showNumber(row.value) };
const figure = (name, text) => ({ text, numeric: true, of: (row) => showNumber(row[name], 5) });
const plain = (name, text) => ({ text, of: (row) => row[name] ?? "" });
const ofRow = ({ of, ...column }) => ({ ...column, of: (change, zone) => of(change.row, zone) });
const ends = { ...time("valid_time_end", "Until"), wanted: (rows) => rows.some((row) => (row.row ?? row).valid_time_end) };

const TABLES = {
  values: [time("valid_time", "Valid time"), ends, value],
  revisions: [time("known_time", "Known at"), time("valid_time", "Valid time"), ends, value, plain("run_id", "Run")],
  changes: [
    { text: "When", className: () => "time", of: ({ row }, zone) => show(row.change_time.replace(/\.\d+/, ""), zone) },
    { text: "What", of: ({ kind }) => kind, className: ({ kind }) => `kind ${kind}` },
    ofRow(time("valid_time", "Valid time")),
    { text: "Before", numeric: true, of: ({ before }) => showNumber(before) },
    { text: "After", numeric: true, of: ({ after, kind }) => (kind === "withdrawn" ? "–" : showNumber(after)) },
    { text: "Who", of: ({ row }) => row.changed_by ?? "" },
    { text: "Why", className: () => "why", of: ({ row }) => row.annotation ?? "" },
    { text: "Tags", of: ({ row }) => (row.tags ?? []).join(", ") },
    ofRow(time("known_time", "Known at")),
    ofRow(plain("run_id", "Run")),
  ],
  accuracy: [
    { text: "Lead time from", numeric: true, of: (row) => showSpan(row.lead_seconds) },
    { text: "to", numeric: true, of: (row) => showSpan(row.lead_seconds_end) },
    figure("count", "Count"), figure("bias", "Bias"), figure("mae", "MAE"), figure("rmse", "RMSE"),
  ],
};
const NONE = {
  values: "No values in this range.",
  revisions: "No revisions in this range.",
  changes: "Nothing in this range was corrected or withdrawn.",
  accuracy: "",
};

let shown = { rows: [], first: 0 };

/** Shows rows in the form of a tab; `zoneText` says of which zone the times are. */
export function showTable(tab, rows, zone, zoneText) {
  const columns = TABLES[tab].filter((column) => column.wanted?.(rows) ?? true);
  shown = { tab, rows, zone, columns, first: 0, zoneText };
  render();
}

/** Turns to the page that has a row, and points to it. */
export function pointTo(row) {
  const at = shown.rows.indexOf(row);
  if (at < 0) return;
  shown.first = Math.floor(at / PAGE) * PAGE;
  render();
  const line = $("rows").querySelectorAll("tbody tr")[at - shown.first];
  line.classList.add("pointed");
  line.scrollIntoView({ block: "nearest" });
}

function render() {
  const { tab, rows, columns, first, zone, zoneText } = shown;
  if (rows.length === 0) {
    $("rows").replaceChildren(make("p", { className: "quiet none" }, NONE[tab]));
    return;
  }
  const head = make("tr", {}, ...columns.map(({ text, numeric }) => {
    const cell = make("th", { className: numeric ? "numeric" : "" }, text);
    cell.scope = "col";
    return cell;
  }));
  const lines = rows.slice(first, first + PAGE).map((row) => make("tr", {}, ...columns.map(
    ({ of, numeric, className }) => make("td", { className: className?.(row) ?? (numeric ? "numeric" : "") }, String(of(row, zone))),
  )));
  const caption = make("caption", { className: "hidden" }, `${tab}, times in ${zoneText}`);
  const table = make("table", { className: tab }, caption, make("thead", {}, head), make("tbody", {}, ...lines));
  const frame = make("div", { className: "scroll", role: "region", tabIndex: 0, aria: { label: "Table" } }, table);
  $("rows").replaceChildren(frame, pager());
}

function pager() {
  const { rows, first } = shown;
  const last = Math.min(first + PAGE, rows.length);
  const count = `${(first + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
  const turn = (text, by, can) => {
    const button = make("button", { type: "button", className: "plain", disabled: !can }, text);
    button.addEventListener("click", () => {
      shown.first += by * PAGE;
      render();
      const buttons = $("rows").querySelectorAll(".pager button");
      (buttons[by > 0 ? 1 : 0].disabled ? buttons[by > 0 ? 0 : 1] : buttons[by > 0 ? 1 : 0]).focus();
    });
    return button;
  };
  const text = make("span", { className: "quiet small" }, count);
  if (rows.length <= PAGE) return make("div", { className: "pager" }, text);
  return make("div", { className: "pager" }, turn("Earlier rows", -1, first > 0), text, turn("More rows", 1, last < rows.length));
}
