// How far a forecast was from what came true, by how long before it was said.

import { findById, readAccuracy } from "./api.js";
import { callOf } from "./calls.js";
import { $ } from "./dom.js";
import { baseLayout, CONFIG, loadPlotly, palette } from "./plot.js";
import { showSpan } from "./times.js";

const FIGURES = [["rmse", "RMSE", "line", "solid"], ["mae", "MAE", "change", "solid"], ["bias", "Bias", "bias", "dot"]];
const MOST_MARKS = 9;

/** Asks for the figures of a state; none without a series of actual values. */
export async function loadAccuracy(state, span, signal) {
  if (!state.actual) return [];
  if ($("actual").dataset.series !== state.actual) await showActual(state.actual, signal);
  const rows = await readAccuracy(callOf({ ...state, tab: "accuracy" }, span)[1], signal);
  return rows.sort((one, other) => one.lead_seconds - other.lead_seconds);
}

async function showActual(id, signal) {
  const series = await findById(id, signal);
  $("actual").value = series?.series_key ?? "";
  $("actual").dataset.series = id;
}

/** Draws them over the lead time. */
export async function drawAccuracy(rows, unit) {
  const box = $("accuracy-chart");
  box.hidden = rows.length === 0;
  if (box.hidden) return;
  const Plotly = await loadPlotly();
  const colours = palette();
  const x = rows.map((row) => row.lead_seconds);
  const traces = FIGURES.map(([figure, name, colour, dash]) => ({
    name, x, y: rows.map((row) => row[figure]), customdata: x.map(showSpan), type: "scatter", mode: "lines+markers",
    line: { color: colours[colour], width: 2, dash }, marker: { size: 5 },
    hovertemplate: `%{y:.4g} ${unit}, %{customdata} ahead<extra>${name}</extra>`,
  }));
  const layout = baseLayout(colours);
  const every = Math.ceil(rows.length / MOST_MARKS);
  const marked = x.filter((_, at) => at % every === 0);
  Object.assign(layout.xaxis, { tickvals: marked, ticktext: marked.map(showSpan), fixedrange: true });
  layout.xaxis.title.text = "Lead time";
  Object.assign(layout.yaxis, { zeroline: true, zerolinecolor: colours.quiet });
  layout.yaxis.title.text = unit;
  layout.margin.b = 54;
  Object.assign(layout, { showlegend: true, hovermode: "x", legend: { orientation: "h", y: 1.18, x: 0 } });
  await Plotly.react(box, traces, layout, CONFIG);
}
