/** What the page shows of a face, an answer, a request and the enrolled people. */

const byId = (id) => document.getElementById(id);

const UNITS = {
  ms: (value) => `${value.toFixed(1)} ms`,
  bytes: (value) => `${value.toLocaleString("en")} bytes`,
};

/** A measured value in the list of figures; `unit` is `ms` or `bytes`. */
export function showFigure(id, value, unit) {
  byId(id).textContent = UNITS[unit](value);
}

/** The face {side, data} pixel by pixel, or nothing. */
export function showFace(face) {
  const canvas = byId("face");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  canvas.toggleAttribute("data-empty", !face);
  if (!face) return;
  const pixels = new ImageData(face.side, face.side);
  pixels.data.fill(255);
  for (let pixel = 0; pixel < face.side * face.side; pixel++) {
    pixels.data.set(face.data.subarray(3 * pixel, 3 * pixel + 3), 4 * pixel);
  }
  context.putImageData(pixels, 0, 0);
  byId("face-text").textContent = `What the network sees: ${face.side} × ${face.side} pixels.`;
}

/** What the server says to a vector. */
export function showAnswer({ accepted, name, distance, threshold }) {
  const element = byId("answer");
  element.dataset.mood = accepted ? "good" : "stranger";
  const said = document.createElement("strong");
  said.textContent = accepted ? name : "Nobody who is enrolled";
  const measured = () => `Distance ${distance.toFixed(3)}, accepted up to ${threshold.toFixed(3)}.`;
  element.replaceChildren(said, distance === null ? "The gallery is empty." : measured());
}

/** A request as it was sent, and its answer once it is there. The key is shown by its length alone. */
export function showExchange({ method, url, headers, body, sent, status, answer, received, milliseconds }, picture) {
  const shown = { ...headers, ...(headers.authorization && { authorization: hideKey(headers.authorization) }) };
  const head = Object.entries(shown).map(([name, value]) => `${name}: ${value}`);
  const request = byId("wire-request");
  request.hidden = false;
  request.textContent = [`${method} ${url}`, ...head, "", body ?? "(no body)"].join("\n");
  showFigure("bytes-sent", sent, "bytes");
  const response = byId("wire-response");
  response.hidden = status === undefined;
  if (status === undefined) return;
  response.textContent = `${status}\n\n${answer}`;
  showFigure("bytes-received", received, "bytes");
  showFigure("milliseconds-server", milliseconds, "ms");
  const kept = picture ? ` The picture’s ${picture.data.length.toLocaleString("en")} bytes stayed here.` : "";
  const said = `The last request, as it was sent: a body of ${sent.toLocaleString("en")} bytes.`;
  byId("wire-text").textContent = said + kept;
}

function hideKey(value) {
  return value.replace(/(?<=^Bearer ).*/, (key) => "•".repeat(key.length));
}

/** The enrolled people, each with a button that calls `remove(person)`; `more`: whether there are others besides. */
export function showPeople(people, more, remove) {
  const text = more ? `The first ${people.length}; there are more.` : "";
  byId("people-text").textContent = people.length ? text : "Nobody is enrolled.";
  const sorted = [...people].sort((one, other) => one.name.localeCompare(other.name));
  byId("people").replaceChildren(
    ...sorted.map((person) => {
      const row = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Delete";
      button.setAttribute("aria-label", `Delete ${person.name}`);
      button.addEventListener("click", () => remove(person));
      const vectors = `${person.vectors} ${person.vectors === 1 ? "vector" : "vectors"}`;
      row.append(Object.assign(document.createElement("span"), { textContent: `${person.name}, ${vectors}` }), button);
      return row;
    }),
  );
}
