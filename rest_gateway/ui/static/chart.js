// The chart: the flat line, the fan of revisions and the bands of quantiles behind it, and marks where something was changed.

import { areas, showBands } from "./bands.js";
import { $ } from "./dom.js";
import { asKnown } from "./load.js";
import { baseLayout, CONFIG, loadPlotly, mixed, palette, unitText } from "./plot.js";
import { addressOf } from "./state.js";
import { timeTicks } from "./ticks.js";
import { show, timesOf, toMs } from "./times.js";
import { describeChange, fanLines, number, showNumber } from "./versions.js";

const FAN_SHADES = 10;
const DOTTED_ROWS = 150; // so few that each may have a dot
const TICK_PX = 95;

/** What is under each point of each trace, for the tip: rows and changes. */
let under = [];
/** The change that a point is marked with, by place; a mark and the line's own point lie on each other. */
let marked = new Map();
let where = {};

/** What happens as the user does it: `zoomed(fromMs, toMs)`, `unzoomed()`, `picked(change)`. */
const on = {};

/** Draws a view; the last call wins. */
export async function drawChart(view, state) {
  const Plotly = await loadPlotly();
  const gd = $("chart");
  const colours = palette();
  const shown = asKnown(view, state);
  const drawn = state.bands === "1" ? areas(view.bands, colours) : [];
  showBands(view.bands, colours);
  if (state.revisions === "1") drawn.push(...fan(shown.revisions, colours));
  if (view.then) drawn.push(line("known now", view.flat, { color: colours.quiet, width: 1.5, dash: "dot" }));
  drawn.push(line(view.then ? "as known" : "latest", shown.rows, { color: colours.line, width: 2.4 }));
  if (state.changes === "1") drawn.push(...marks(shown.changes, colours));
  const first = under.length === 0;
  under = drawn.map(({ under: each }) => each);
  marked = new Map();
  for (const { trace, under: these } of drawn)
    these.forEach(({ change }, at) => change && marked.set(`${trace.x[at]} ${trace.y[at]}`, change));
  where = { zone: state.tz, unit: view.series.unit };
  await Plotly.react(gd, drawn.map(({ trace }) => trace), layout(view, state, colours, gd.clientWidth), CONFIG);
  if (first) listen(gd);
  gd.dataset.drawn = addressOf(state);
}

function layout(view, state, colours, width) {
  const base = baseLayout(colours);
  const range = bounds(view);
  Object.assign(base.xaxis, { range, ...timeTicks(...range, state.tz, Math.max(3, width / TICK_PX)) });
  Object.assign(base.yaxis.title, { text: unitText(view.series), standoff: 8 });
  const known = state.known && toMs(state.known);
  if (known >= range[0] && known <= range[1]) {
    const mark = { x0: known, x1: known, xref: "x", y0: 0, y1: 1, yref: "paper", type: "line" };
    base.shapes = [{ ...mark, line: { color: colours.mark, width: 1.5 } }];
    const side = known - range[0] > (range[1] - range[0]) * 0.85 ? "right" : "left";
    base.annotations = [
      { x: known, y: 1, yref: "paper", yanchor: "bottom", xanchor: side, showarrow: false, text: "as known at", font: { color: colours.mark, size: 12 } },
    ];
  }
  return base;
}

/** The x range: what was asked for by hand, else from the first value to the last. */
function bounds({ asked, extent }) {
  const [from, to] = extent ?? [Date.now() - 86_400_000, Date.now()];
  const edge = from === to ? 3_600_000 : (to - from) * 0.01;
  return [asked?.from ?? from - edge, asked?.to ?? to + edge];
}

/** The points of a line; an interval is a level stretch. */
function points(rows) {
  const [x, y, of] = [[], [], []];
  let end = null;
  for (const row of rows) {
    const times = timesOf(row);
    if (end !== null && times.length === 2 && times[0] !== end) add(end, null, row);
    for (const ms of times) add(ms, number(row.value), row);
    end = times[1] ?? null;
  }
  return { x, y, under: of };

  function add(ms, value, row) {
    x.push(ms);
    y.push(value);
    of.push({ row });
  }
}

function line(name, rows, style) {
  const { x, y, under } = points(rows);
  const mode = x.length > DOTTED_ROWS || rows.some((row) => row.valid_time_end) ? "lines" : "lines+markers";
  const marker = { size: style.dash ? 3 : 4, color: style.color };
  return { under, trace: { name, x, y, mode, line: style, marker, type: "scatter", hoverinfo: "none", connectgaps: false } };
}

/** The revisions as a few traces, each a shade, however many lines there are: the newer, the stronger. */
function fan(revisions, colours) {
  const lines = fanLines(revisions);
  const shades = Math.min(FAN_SHADES, lines.length);
  return Array.from({ length: shades }, (_, shade) => {
    const [from, to] = [shade, shade + 1].map((each) => Math.round((each * lines.length) / shades));
    const [x, y, under] = [[], [], []];
    for (const { rows } of lines.slice(from, to)) {
      const these = points(rows);
      x.push(...these.x, null);
      y.push(...these.y, null);
      under.push(...these.under, {});
    }
    const color = mixed(colours.fanOld, colours.fanNew, shades > 1 ? shade / (shades - 1) : 1);
    const alone = lines.slice(from, to).some(({ rows }) => rows.length === 1 && !rows[0].valid_time_end);
    const mode = alone ? "lines+markers" : "lines";
    const trace = { name: "revisions", x, y, mode, line: { color, width: 1 }, marker: { color, size: 3 }, type: "scatter", hoverinfo: "none" };
    return { under, trace };
  });
}

function marks(changes, colours) {
  const kinds = [
    ["corrected", ["corrected", "restored", "annotated"], "diamond", colours.change],
    ["withdrawn", ["withdrawn"], "x", colours.withdrawn],
  ];
  return kinds.map(([name, which, symbol, color]) => {
    const these = changes.filter((change) => change.stands && which.includes(change.kind) && change.at !== null);
    const marker = { symbol, size: 10, color, line: { color: colours.paper, width: 1.5 } };
    const x = these.map(({ row }) => toMs(row.valid_time));
    const trace = { name, x, y: these.map(({ at }) => at), mode: "markers", marker, type: "scatter", hoverinfo: "none", cliponaxis: false };
    return { under: these.map((change) => ({ row: change.row, change })), trace };
  });
}

/** Says what is to happen as the user does something to the chart; see `on`. */
export const readyChart = (actions) => Object.assign(on, actions);

function listen(gd) {
  const pointed = ({ points: [point] }) => {
    const change = marked.get(`${point.x} ${point.y}`);
    return change ? { change, row: change.row } : (under[point.curveNumber]?.[point.pointNumber] ?? {});
  };
  gd.on("plotly_relayout", (change) => {
    const [from, to] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    if (from !== undefined && to !== undefined) on.zoomed(from, to);
  });
  gd.on("plotly_doubleclick", () => on.unzoomed());
  gd.on("plotly_hover", (event) => {
    const { row, change } = pointed(event);
    if (row) tip(event.event, row, change);
  });
  gd.on("plotly_unhover", () => ($("tip").hidden = true));
  gd.on("plotly_click", (event) => {
    const { change } = pointed(event);
    if (change) on.picked(change);
  });
}

function tip(event, row, change) {
  const { zone, unit } = where;
  const box = $("tip");
  const value = `${showNumber(change?.at ?? row.value)}${unit === "dimensionless" ? "" : ` ${unit}`}`;
  const lines = [value, `for ${show(row.valid_time, zone)}`];
  if (row.known_time) lines.push(`known at ${show(row.known_time, zone)}`);
  if (change) lines.push(...describeChange(change, (text) => show(text, zone)));
  box.textContent = lines.join("\n");
  box.hidden = false;
  const frame = box.parentElement.getBoundingClientRect();
  const left = Math.min(event.clientX - frame.left + 14, frame.width - box.offsetWidth - 4);
  box.style.setProperty("left", `${Math.max(0, left)}px`);
  const below = event.clientY - frame.top + 14;
  const top = below + box.offsetHeight > frame.height ? below - box.offsetHeight - 28 : below;
  box.style.setProperty("top", `${top}px`);
}
