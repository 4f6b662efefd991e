// The page: what the address says is loaded and shown; what the user does changes the address.

import { findSeries, readLabels, readService } from "./api.js";
import { drawAccuracy, loadAccuracy } from "./accuracy.js";
import { loadBands } from "./bands.js";
import { readyCalls } from "./calls.js";
import { drawChart, readyChart } from "./chart.js";
import { $, announce, latestOnly, make, settled } from "./dom.js";
import { Finder } from "./finder.js";
import { Follower } from "./follow.js";
import { readyKnown, showKnown, stopPlaying } from "./known.js";
import { asKnown, loadMore, loadThen, loadView } from "./load.js";
import { loadPlotly, unitText } from "./plot.js";
import { readyRange, showRange, zoomOut, zoomTo } from "./range.js";
import { askForKey, readySignIn, showWho } from "./sign_in.js";
import { go, onChange, state } from "./state.js";
import { describeView, showCut } from "./summary.js";
import { pointTo, showTable } from "./table.js";
import { show, zoneName } from "./times.js";

const NEW_DATA = ["series", "range", "from", "to"];
const MOVE_MS = 40;
const MOST_FACETS = 12;
const MOST_VALUES = 200;

let view = null;
let finder;
let actualFinder;
const facets = {};

const reload = latestOnly(async (signal) => {
  if (!state().series) return showNothing();
  loadPlotly().catch(() => {}); // meanwhile; whoever draws hears what is wrong with it
  $("main").setAttribute("aria-busy", "true");
  const loaded = await loadView(state(), signal);
  if (!loaded) throw new Error(`There is no series ${state().series} here, or it is retired.`);
  view = loaded;
  follower.begin(view.series.series_id, view.position);
  return render();
});

const follower = new Follower({
  news: () => attempt(reload),
  told(mark) {
    $("live").hidden = !mark;
    if (mark === $("live").textContent) return;
    $("live").textContent = $("live").dataset.mark = mark;
    $("live").title = mark === "stale" ? "The service cannot be reached; trying again" : "What is written shows by itself";
    if (mark === "stale") announce("The service cannot be reached. What is shown may be stale.");
  },
});

const rethink = latestOnly(async (signal) => {
  const mine = view;
  if (!mine) return;
  const [then, bands] = await Promise.all([
    loadThen(state(), mine.span, signal),
    loadBands(mine.banded, state(), mine.span, signal),
  ]);
  if (mine !== view) return;
  Object.assign(view, { then, bands });
  await render();
});

const extend = latestOnly(async (signal) => {
  await loadMore(view, signal);
  await render();
});

const reckon = latestOnly(async (signal) => {
  const mine = view;
  const rows = await loadAccuracy(state(), mine.span, signal);
  if (mine !== view || state().tab !== "accuracy") return;
  showTable("accuracy", rows, state().tz, zoneName(state().tz));
  $("accuracy-chart").setAttribute("aria-label", `Error by lead time, ${rows.length} steps; the table has the figures`);
  await drawAccuracy(rows, unitText(view.series));
});

/** Runs a task of the page; what goes wrong is said, and a key that is not good is asked for anew. */
async function attempt(task) {
  try {
    fail(null);
    await task();
  } catch (error) {
    fail(error);
  } finally {
    $("main").removeAttribute("aria-busy");
  }
}

function fail(error) {
  const box = $("problem");
  box.hidden = !error;
  if (!error) return;
  if (error.status === 401) {
    box.replaceChildren("Sign in to see what is here.");
    askForKey($("sign-out").hidden ? "" : "The key is no longer good.");
    return;
  }
  const again = make("button", { type: "button", className: "plain" }, "Try again");
  again.addEventListener("click", start);
  box.replaceChildren(error.message, error.requestId ? ` (request ${error.requestId}) ` : " ", again);
}

function showNothing() {
  view = null;
  follower.end();
  $("view").hidden = true;
  $("welcome").hidden = false;
  document.title = "TimeDB";
}

async function render() {
  const s = state();
  const { series } = view;
  document.title = `${series.series_key} – TimeDB`;
  $("welcome").hidden = true;
  $("view").hidden = false;
  showAbout(series);
  finder.choose(series.series_id);
  showRange(s, view.span, view.extent);
  showKnown(s, view.knownTimes);
  for (const name of ["revisions", "changes", "bands"]) $(`show-${name}`).checked = s[name] === "1";
  const summary = describeView(view, s);
  $("summary").textContent = summary;
  showCut(view, () => attempt(extend));
  $("line-name").textContent = s.known ? "As known then" : "Latest";
  $("now-key").hidden = !s.known;
  showTab();
  announce(summary);
  await drawChart(view, s);
}

function showAbout(series) {
  const unit = series.unit === "dimensionless" ? "" : make("span", { className: "unit" }, series.unit);
  $("title").replaceChildren(series.series_key, " ", unit);
  $("labels").replaceChildren(...Object.entries(series.labels).map(([name, value]) => make("li", {}, `${name}=${value}`)));
  $("description").textContent = series.description ?? "";
}

function showTab() {
  const { tab, tz } = state();
  for (const each of $("tabs").children) {
    const chosen = each.dataset.tab === tab;
    each.setAttribute("aria-selected", String(chosen));
    each.tabIndex = chosen ? 0 : -1;
    if (chosen) $("panel").setAttribute("aria-labelledby", each.id);
  }
  $("accuracy").hidden = tab !== "accuracy";
  $("downloads").hidden = tab === "accuracy" && !state().actual;
  const shown = asKnown(view, state());
  $("tab-changes").textContent = shown.changes.length ? `Changes (${shown.changes.length})` : "Changes";
  if (tab === "accuracy") {
    $("horizon").value = state().horizon;
    attempt(reckon);
    return;
  }
  showTable(tab, { values: shown.rows, revisions: shown.revisions, changes: shown.changes }[tab], tz, zoneName(tz));
}

function readyTabs() {
  const tabs = [...$("tabs").children];
  $("tabs").addEventListener("click", (event) => {
    const { tab } = event.target.dataset;
    if (tab) go({ tab });
  });
  $("tabs").addEventListener("keydown", (event) => {
    const open = tabs.filter((each) => !each.hidden);
    const at = open.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: open.length - 1 }[event.key];
    const next = open[(to + open.length) % open.length];
    if (to === undefined || !next) return;
    event.preventDefault();
    go({ tab: next.dataset.tab });
    next.focus();
  });
}

function readyRest() {
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    (view ? $("title") : $("search")).focus();
  });
  for (const name of ["revisions", "changes", "bands"])
    $(`show-${name}`).addEventListener("change", (event) => go({ [name]: event.target.checked ? "1" : "0" }));
  $("horizon").addEventListener("change", (event) => go({ horizon: event.target.value }));
  $("picture").addEventListener("click", async () => {
    const Plotly = await loadPlotly();
    const filename = view.series.series_key.replace(/[^\w.-]+/g, "_");
    await Plotly.downloadImage($("chart"), { format: "png", width: 1200, height: 600, scale: 2, filename });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view && attempt(render));
}

async function readyFacets() {
  const labels = await readLabels();
  const offered = Object.entries(labels).filter(([, values]) => values.length > 1 && values.length <= MOST_VALUES);
  $("facets").hidden = offered.length === 0;
  $("facet-list").replaceChildren(...offered.slice(0, MOST_FACETS).map(([name, values]) => {
    const choose = make("select", {}, make("option", { value: "" }, "any"), ...values.map((value) => make("option", { value }, value)));
    choose.value = facets[name] ?? "";
    choose.addEventListener("change", () => {
      if (choose.value) facets[name] = choose.value;
      else delete facets[name];
      finder.refresh();
    });
    return make("label", {}, name, choose);
  }));
}

async function start() {
  await attempt(async () => {
    const [{ found }, { version, endpoints }] = await Promise.all([findSeries({ limit: 1 }), readService()]);
    showWho({ closed: !$("sign-in").hidden || !$("sign-out").hidden });
    $("no-series").hidden = found.length > 0;
    $("version").textContent = version;
    $("tab-accuracy").hidden = !Object.values(endpoints).some((text) => text.startsWith("GET /accuracy "));
    await Promise.all([finder.refresh(), readyFacets(), reload()]);
  });
}

onChange((now, changed) => {
  if (NEW_DATA.some((name) => changed.has(name))) {
    if (changed.has("series")) stopPlaying();
    attempt(reload);
  } else if (changed.has("known")) {
    showKnown(now, view?.knownTimes ?? []);
    moved();
  } else if (view) {
    attempt(render);
  }
});
const moved = settled(() => attempt(rethink), MOVE_MS);

finder = new Finder($("search"), $("found"), {
  pick: ({ series_id }) => go({ series: series_id, known: "" }),
  fail,
  labels: () => facets,
  said: (text) => ($("found-count").textContent = text),
});
actualFinder = new Finder($("actual"), $("actual-found"), {
  pick: ({ series_id, series_key }) => {
    $("actual").value = series_key;
    $("actual").dataset.series = series_id;
    go({ actual: series_id });
  },
  fail,
  popup: true,
});
readySignIn(start);
readyRange();
readyKnown();
readyTabs();
readyRest();
readyCalls(() => ({ state: state(), view }), fail);
readyChart({
  zoomed: zoomTo,
  unzoomed: zoomOut,
  picked: (change) => {
    go({ tab: "changes" });
    pointTo(change);
  },
});
start();
