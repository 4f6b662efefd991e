// The REST API, as anybody else may call it. The key, where there is one, goes into a header and nowhere else.

const KEY = "timedb-api-key";

/** Rows asked for at once; what is cut is said, and more can be asked for. */
export const PAGE_ROWS = 20_000;
export const LISTED_SERIES = 100;

export class ApiError extends Error {
  constructor(status, { detail, code, request_id: requestId } = {}) {
    super(detail ?? `the service answered ${status}`);
    Object.assign(this, { status, code, requestId });
  }
}

let held = null; // where the browser stores nothing for this page

export const key = {
  get: () => tried(() => sessionStorage.getItem(KEY)) ?? held,
  set(value) {
    held = value;
    tried(() => sessionStorage.setItem(KEY, value));
  },
  forget() {
    held = null;
    tried(() => sessionStorage.removeItem(KEY));
  },
};

function tried(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/** The address of a call; parameters that are empty are left out. */
export function callAddress(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given).toString().replaceAll("%3A", ":");
  return new URL(path + (query && `?${query}`), document.baseURI);
}

async function call(path, parameters, { signal, accept = "application/json", withKey = key.get() } = {}) {
  // A lake without users wants of writes what no form of another page can send; see docs/security.md.
  const headers = { Accept: accept, "X-Requested-With": "timedb" };
  if (withKey) headers["X-API-Key"] = withKey;
  let response;
  try {
    response = await fetch(callAddress(path, parameters), { headers, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { detail: "The service cannot be reached.", code: "unreachable" });
  }
  if (response.ok) return response;
  throw new ApiError(response.status, await response.json().catch(() => ({})));
}

const json = async (...given) => (await call(...given)).json();

/** What the service is: `{version, endpoints}`; needs no key. */
export const readService = () => json("./", {});

/** Whether a key (or none) is let in; any other trouble is thrown. */
export async function isLetIn(withKey) {
  if (!/^[\x21-\x7e]+$/.test(withKey)) return false; // no header could carry it
  try {
    await call("list_timeseries", { search: "-", limit: 1 }, { withKey });
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
}

/** Series of a name, or that contain every word: `{found: [{series_id, series_key, …}], more: whether there are others}`. */
export async function findSeries({ name = "", search = "", labels = {}, limit = LISTED_SERIES } = {}, signal) {
  const filter = Object.keys(labels).length ? JSON.stringify(labels) : "";
  const answer = await json("list_timeseries", { name, search, labels: filter, limit: limit + 1 }, { signal });
  const found = Object.entries(answer).map(([series_id, about]) => ({ series_id, ...about }));
  return { found: found.slice(0, limit), more: found.length > limit };
}

/** One series by its id, or undefined. */
export async function findById(id, signal) {
  const { found } = await findSeries({ search: id, limit: 1 }, signal);
  return found.find((each) => each.series_id === id);
}

export const readLabels = async () => (await json("series/labels", {})).labels;

/** One page of `GET /values`: `{data, count, next_cursor}`. */
export const readValues = (parameters, signal) =>
  json("values", { non_finite: "text", intervals: true, limit: PAGE_ROWS, ...parameters }, { signal });

/** The newest value of a series, or undefined. */
export async function readLatest(seriesId, signal) {
  const { data } = await readValues({ series_id: seriesId, mode: "latest", limit: 1 }, signal);
  return data[0];
}

/** What was written of a series since a token, at the latest after `wait` seconds: `{count, token}`. */
export const readChanges = (parameters, signal) => json("changes", parameters, { signal });

/** Error figures by lead time: `[{lead_seconds, lead_seconds_end, count, bias, mae, rmse}]`. */
export async function readAccuracy(parameters, signal) {
  const answer = await json("accuracy", parameters, { signal });
  return answer.data ?? answer.rows ?? answer;
}

/** An answer in another format, whole. */
export const readBlob = async (path, parameters, accept) => (await call(path, parameters, { accept })).blob();
