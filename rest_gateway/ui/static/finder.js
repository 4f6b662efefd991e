// A search field with its list of series: typing asks the service, arrow keys move, Enter or a click picks.

import { findSeries, LISTED_SERIES } from "./api.js";
import { latestOnly, make, settled } from "./dom.js";

const TYPING_MS = 150;

export class Finder {
  /**
   * @param input the search field, a combobox
   * @param list its listbox
   * @param options `pick(series)`; `fail(error)`; `labels()`, a filter; `said(text)`, how many there are;
   *   `popup`, whether the list shows only while the field is in use
   */
  constructor(input, list, { pick, fail, labels = () => ({}), said = () => {}, popup = false }) {
    Object.assign(this, { input, list, pick, fail, labels, said, popup });
    this.found = [];
    this.active = -1;
    this.chosen = "";
    this.ask = latestOnly((signal) => this.#ask(signal));
    const typed = settled(() => this.refresh(), TYPING_MS);
    input.addEventListener("input", typed);
    input.addEventListener("keydown", (event) => this.#onKey(event));
    list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    list.addEventListener("click", (event) => this.#pick(event.target.closest("[role=option]")?.dataset.at));
    if (!popup) return;
    input.addEventListener("focus", () => {
      input.select();
      this.refresh();
    });
    input.addEventListener("blur", () => this.#open(false));
  }

  /** Asks the service again and shows what there is. */
  async refresh() {
    try {
      await this.ask();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Marks the series that is open. */
  choose(seriesId) {
    this.chosen = seriesId;
    for (const option of this.list.children)
      option.setAttribute("aria-selected", String(this.found[option.dataset.at].series_id === seriesId));
  }

  async #ask(signal) {
    const search = this.input.value.trim();
    const { found, more } = await findSeries({ search, labels: this.labels() }, signal);
    this.found = found;
    this.list.replaceChildren(...found.map((series, at) => this.#option(series, at)));
    this.#activate(-1);
    this.choose(this.chosen);
    if (this.popup) this.#open(document.activeElement === this.input);
    const count = found.length === 1 ? "1 series" : `${found.length} series`;
    this.said(more ? `The first ${LISTED_SERIES}; type more to narrow them down` : count);
    return found;
  }

  #option(series, at) {
    const labels = Object.entries(series.labels).map(([name, value]) => `${name}=${value}`);
    return make(
      "li",
      { role: "option", id: `${this.list.id}-${at}`, data: { at }, aria: { selected: "false" } },
      make("span", { className: "name" }, series.series_key),
      make("span", { className: "unit" }, series.unit === "dimensionless" ? "" : series.unit),
      make("span", { className: "own-labels" }, labels.join(" · ")),
    );
  }

  #onKey(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };
    if (event.key in moves && this.found.length) {
      if (this.popup) this.#open(true);
      const last = this.found.length - 1;
      this.#activate(Math.min(last, Math.max(0, this.active + moves[event.key])));
    } else if (event.key === "Enter" && this.found.length) {
      this.#pick(Math.max(this.active, 0));
    } else if (event.key === "Escape" && this.popup && !this.list.hidden) {
      this.#open(false);
    } else {
      return;
    }
    event.preventDefault();
  }

  #activate(at) {
    this.list.children[this.active]?.classList.remove("active");
    this.active = at;
    const option = this.list.children[at];
    option?.classList.add("active");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.input.setAttribute("aria-activedescendant", option.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  #pick(at) {
    if (at === undefined) return;
    const series = this.found[at];
    this.choose(series.series_id);
    if (this.popup) this.#open(false);
    this.pick(series);
  }

  #open(open) {
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
  }
}
