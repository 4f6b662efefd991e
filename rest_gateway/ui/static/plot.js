// Plotly, fetched once from this service when there is something to draw, and how its charts look here.

let loading = null;

/** Plotly, or an error where the service has not got it. */
export function loadPlotly() {
  loading ??= import("./plotly.min.js").then(
    () => window.Plotly,
    () => {
      throw new Error("Charts need the package plotly where the service is installed.");
    },
  );
  return loading;
}

export const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false, showTips: false };

const COLOURS = {
  line: "--line", fanOld: "--fan-old", fanNew: "--fan-new", change: "--change", withdrawn: "--withdrawn",
  mark: "--mark", ink: "--ink", quiet: "--quiet", grid: "--grid", paper: "--card", bias: "--bias",
  bandOut: "--band-out", bandIn: "--band-in", bandEdge: "--band-edge",
};

/** The colours of the theme that is on. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(Object.entries(COLOURS).map(([name, variable]) => [name, style.getPropertyValue(variable).trim()]));
}

/** A text for Plotly, which else takes some markup for markup. */
export const literal = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The unit of a series for an axis. */
export const unitText = ({ unit }) => (unit === "dimensionless" ? "" : literal(unit));

/** Between two colours of the form #rrggbb; `share` from 0 to 1. */
export function mixed(one, other, share) {
  const parts = [1, 3, 5].map((at) => {
    const [from, to] = [one, other].map((each) => parseInt(each.slice(at, at + 2), 16));
    return Math.round(from + (to - from) * share);
  });
  return `rgb(${parts.join(",")})`;
}

/** What all charts have in common. */
export function baseLayout(colours) {
  const axis = {
    type: "linear", automargin: true, gridcolor: colours.grid, linecolor: colours.grid, zeroline: false,
    tickfont: { size: 12, color: colours.quiet },
  };
  const title = () => ({ font: { size: 12, color: colours.quiet } });
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: colours.ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 52, r: 14, t: 22, b: 40 },
    showlegend: false, hovermode: "closest", hoverdistance: 12, dragmode: "zoom",
    xaxis: { ...axis, showgrid: true, title: title() },
    yaxis: { ...axis, fixedrange: true, title: title() },
    uirevision: "same",
  };
}
