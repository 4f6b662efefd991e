// Keeps what is shown current: one call at a time waits for what is written of the series, and none while nobody looks.

import { readChanges } from "./api.js";

const WAIT_SECONDS = 30;
const GATHER_MS = 500; // a burst of commits is one piece of news
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;

/** Where the feed of a series stands now: what is loaded afterwards holds all before it. Null where there is none. */
export const positionOf = (series, signal) =>
  readChanges({ series_id: series, since: "now" }, signal).then(
    ({ token }) => token,
    (error) => {
      if (error.name === "AbortError") throw error;
      return null; // whoever loads the series hears why
    },
  );

/**
 * Follows one series from a position until there is news.
 *
 * `news()` is called once, and has to begin anew from where it then is; `told(mark)` hears `live`, `stale` while the
 * service cannot be asked, and `""` where nothing is followed.
 */
export class Follower {
  #news;
  #told;
  #followed = null;
  #running = null;

  constructor({ news, told }) {
    this.#news = news;
    this.#told = told;
    for (const [target, event] of [[document, "visibilitychange"], [window, "online"]])
      target.addEventListener(event, () => this.#run());
  }

  begin(series, token) {
    this.#followed = token && { series, token };
    this.#told(token ? "live" : "");
    this.#run();
  }

  end() {
    this.begin(null, null);
  }

  async #run() {
    this.#running?.abort();
    if (!this.#followed || document.hidden) return;
    const { signal } = (this.#running = new AbortController());
    try {
      await this.#until(signal);
    } catch (error) {
      if (!signal.aborted) throw error;
      return;
    }
    this.#followed = null;
    this.#news();
  }

  /** Waits until something is written, or the service refuses to say. */
  async #until(signal) {
    let pause = FIRST_PAUSE_MS;
    for (;;) {
      const { series, token } = this.#followed;
      try {
        const answer = await readChanges({ series_id: series, since: token, wait: WAIT_SECONDS }, signal);
        this.#told("live");
        if (answer.count) return sleep(GATHER_MS, signal);
        this.#followed.token = answer.token;
        pause = FIRST_PAUSE_MS;
      } catch (error) {
        if (signal.aborted) throw error;
        if (error.status >= 400 && error.status < 500 && error.status !== 429) return undefined;
        this.#told("stale");
        await sleep(pause, signal);
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    }
  }
}

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
