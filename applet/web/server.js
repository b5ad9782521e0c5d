/**
 * The requests to the recognition server (`ffem serve`). Everything that leaves the page goes through `send`, and what
 * it is given is a vector, the model's id and a name.
 */

import { makeBody } from "../shared/matching.js";

/** A server's answer that is no success. `status` is the HTTP status, 0 where there was no answer. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Server {
  /**
   * `settings()` gives {address, key}; `report(exchange)` is told of each request: {method, url, headers, body, sent},
   * and once it is answered also {status, answer, received, milliseconds}; bytes are those of the bodies.
   */
  constructor(settings, report) {
    this.settings = settings;
    this.report = report;
  }

  recognise(modelId, vector) {
    return this.send("POST", "v1/match", makeBody(modelId, vector));
  }

  enrol(modelId, vector, name) {
    return this.send("POST", "v1/enrol", makeBody(modelId, vector, name));
  }

  /** The first hundred: {people, next}, where `next` is null if these are all. */
  list() {
    return this.send("GET", "v1/people");
  }

  remove(personId) {
    return this.send("DELETE", `v1/people/${encodeURIComponent(personId)}`);
  }

  async send(method, path, body) {
    const { address, key } = this.settings();
    const request = makeRequest(method, path, body, address, key);
    const exchange = {
      method,
      url: request.url,
      // The browser adds its own, such as Origin, which no page can see.
      headers: Object.fromEntries(request.headers),
      body,
      sent: countBytes(body ?? ""),
    };
    this.report(exchange);
    const start = performance.now();
    const response = await fetch(request).catch(() => {
      throw new ServerError(0, `the server at ${request.url} does not answer, or does not allow this page to ask.`);
    });
    const answer = await response.text();
    const milliseconds = performance.now() - start;
    this.report({ ...exchange, status: response.status, answer, received: countBytes(answer), milliseconds });
    if (!response.ok) throw new ServerError(response.status, explain(response.status, answer));
    return answer ? JSON.parse(answer) : null;
  }
}

function makeRequest(method, path, body, address, key) {
  let url;
  try {
    url = new URL(path, address.endsWith("/") ? address : `${address}/`);
  } catch {
    const given = address || "the server's address";
    throw new ServerError(0, `${given} is no address; give one such as http://localhost:8000.`);
  }
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const alone = { credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" };
  return new Request(url, { method, headers, body, ...alone });
}

function countBytes(text) {
  return new TextEncoder().encode(text).length;
}

function explain(status, answer) {
  const reasons = {
    401: "the server does not know this API key.",
    403: "this API key may not do that.",
    404: "the server has nothing of that kind: is its address right?",
    429: "too many requests; wait a minute.",
  };
  let detail;
  try {
    detail = JSON.parse(answer).detail;
  } catch {
    detail = undefined; // a proxy's own page
  }
  return reasons[status] ?? `the server refused (${status})${typeof detail === "string" ? `: ${detail}` : "."}`;
}
