/** The page: picture -> place of the face -> face -> vector -> server -> name and distance. */

import { alignFace } from "../shared/alignment.js";
import { cropFace, findSquare } from "../shared/preprocessing.js";
import { loadNetwork } from "./network.js";
import { closeCamera, openCamera, readFile, takeFrame } from "./picture.js";
import { fitSquare, makeMovable, place, placeEyes, resizeSquare, showSquare } from "./placing.js";
import { Server } from "./server.js";
import { showAnswer, showExchange, showFace, showFigure, showPeople } from "./view.js";

/** Of the square that a face is aligned in, before it is resized for the network: that of `ffem align`. */
const ALIGNED_SIDE = 140;

/** Of a camera's shorter side: a face at arm's length. */
const CAMERA_FRACTION = 0.6;

const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const guide = byId("guide");
const video = byId("video");
const eyeRings = [byId("left-eye"), byId("right-eye")];

const state = {
  network: undefined,
  picture: undefined, // {width, height, data}
  chosen: 0, // how many pictures were asked for: one that is read late is not shown
  square: undefined, // the frame's place
  eyes: undefined, // the eyes' places
  face: undefined, // {side, data}
};

const server = new Server(
  () => ({ address: byId("address").value.trim(), key: byId("key").value.trim() }),
  (exchange) => showExchange(exchange, state.picture),
);

// ------------------------------------------------------------------------------------ network

async function start() {
  const asked = new URLSearchParams(location.search);
  byId("address").value = asked.get("server") ?? location.origin;
  try {
    state.network = await loadNetwork(asked.get("model") ?? "model");
  } catch (error) {
    say(byId("network-status"), error.message, "bad");
    return;
  }
  const { exported, bytes, milliseconds } = state.network;
  const size = `${(bytes / 1e6).toFixed(2)} MB`;
  say(
    byId("network-status"),
    `Network ${exported.network}, ${exported.dtype}, ${size}: ready after ${milliseconds.toFixed(0)} ms. ` +
      `Model ${exported.model_id}.`,
    "good",
  );
  byId("face").width = byId("face").height = exported.crop.resolution;
  if (state.picture) placeAnew();
}

// ------------------------------------------------------------------------------------ picture

function usePicture(picture, fraction) {
  state.picture = picture;
  const canvas = byId("picture");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").putImageData(picture, 0, 0);
  canvas.hidden = false;
  showCamera(false);
  showFigure("bytes-picture", picture.data.length, "bytes");
  say(byId("answer"), "");
  placeAnew(fraction);
}

/** The frame where training would have cut, or where the camera's guide was. */
function placeAnew(fraction = state.network?.exported.crop.fraction ?? 1) {
  const { width, height } = state.picture;
  state.square = findSquare(width, height, fraction);
  state.eyes = placeEyes(state.square);
  refresh();
}

async function useFile(file) {
  if (!file) return;
  dropPicture(); // until the new one is read nobody may recognise the old one in its place
  const chosen = ++state.chosen;
  try {
    const picture = await readFile(file);
    if (chosen === state.chosen) usePicture(picture);
  } catch (error) {
    say(byId("answer"), error.message, "bad");
  }
}

function dropPicture() {
  state.picture = state.face = undefined;
  byId("picture").hidden = true;
  say(byId("answer"), "");
  refresh();
}

async function useCamera() {
  try {
    await openCamera(video);
  } catch (error) {
    say(byId("answer"), error.message, "bad");
    return;
  }
  state.chosen++;
  showCamera(true);
  dropPicture();
  byId("take-picture").focus();
}

function showCamera(live) {
  if (!live) closeCamera(video);
  video.hidden = byId("take-picture").hidden = byId("close-camera").hidden = !live;
  byId("open-camera").hidden = live;
}

// ------------------------------------------------------------------------------------- placing

function byEyes() {
  return Boolean(state.picture) && document.querySelector("input[name=placing]:checked").value === "eyes";
}

/** Show everything that follows from the picture and the place, and compute the face. */
function refresh() {
  const live = !video.hidden;
  const frame = live ? { width: video.videoWidth, height: video.videoHeight } : state.picture;
  stage.toggleAttribute("data-empty", !frame);
  byId("placing").hidden = !state.picture;
  guide.hidden = !frame || byEyes();
  for (const ring of eyeRings) ring.hidden = !byEyes();
  byId("guide-keys").hidden = byEyes();
  byId("eye-keys").hidden = !byEyes();
  byId("guide-size").disabled = byEyes();
  // A tall picture is to leave room for the rest of the page.
  stage.style.maxWidth = frame ? `${(70 * frame.width) / frame.height}vh` : "";
  if (frame) {
    const square = live ? findSquare(frame.width, frame.height, CAMERA_FRACTION) : state.square;
    showSquare(guide, square, frame);
    showSize(square, frame);
  }
  if (state.picture) eyeRings.forEach((ring, index) => showEye(ring, state.eyes[index]));
  computeFace();
}

function showSize({ side }, { width, height }) {
  const share = Math.round((100 * side) / Math.min(width, height));
  byId("guide-size").value = share;
  byId("guide-size-text").value = `${share} %, ${side} pixels`;
  guide.setAttribute("aria-label", `Frame around the face, ${side} pixels a side`);
}

function showEye(ring, [x, y]) {
  place(ring, x / state.picture.width, y / state.picture.height);
}

function moveSquare(left, top) {
  state.square = fitSquare({ ...state.square, left, top }, state.picture);
  state.eyes = placeEyes(state.square);
  refresh();
}

function resize(side) {
  state.square = resizeSquare(state.square, side, state.picture);
  state.eyes = placeEyes(state.square);
  refresh();
}

function moveEye(index, x, y) {
  const { width, height } = state.picture;
  state.eyes[index] = [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
  refresh();
}

function computeFace() {
  state.face = undefined;
  const ready = Boolean(state.picture && state.network);
  if (ready) {
    const start = performance.now();
    try {
      state.face = cutFace();
    } catch (error) {
      say(byId("answer"), error.message, "bad");
    }
    showFigure("milliseconds-crop", performance.now() - start, "ms");
  }
  showFace(state.face);
  byId("recognise").disabled = byId("enrol").disabled = !state.face;
}

function cutFace() {
  const { resolution } = state.network.exported.crop;
  if (!byEyes()) return cropFace(state.picture, state.square, resolution);
  const aligned = alignFace(state.picture, state.eyes, ALIGNED_SIDE);
  return cropFace(aligned, { left: 0, top: 0, side: ALIGNED_SIDE }, resolution);
}

// -------------------------------------------------------------------------------------- server

/** Run `work`, which may ask the server, with the buttons off; what goes wrong is said. */
async function attempt(work) {
  const buttons = [byId("recognise"), byId("enrol"), byId("list")];
  const before = buttons.map((button) => button.disabled);
  for (const button of buttons) button.disabled = true;
  say(byId("answer"), "One moment…");
  try {
    await work();
  } catch (error) {
    say(byId("answer"), error.message, "bad");
  } finally {
    buttons.forEach((button, index) => (button.disabled = before[index]));
  }
}

async function computeVector() {
  const { vector, milliseconds } = await state.network.embed(state.face);
  showFigure("milliseconds-network", milliseconds, "ms");
  return vector;
}

async function recognise() {
  const vector = await computeVector();
  showAnswer(await server.recognise(state.network.exported.model_id, vector));
}

async function enrol() {
  const name = byId("name").value.trim();
  if (!name) {
    byId("name").focus();
    throw new Error("give a name to enrol.");
  }
  const vector = await computeVector();
  const enrolled = await server.enrol(state.network.exported.model_id, vector, name);
  byId("name").value = "";
  await listPeople();
  say(byId("answer"), `Enrolled ${enrolled.name}.`, "good");
}

async function listPeople() {
  const { people, next } = await server.list();
  showPeople(people, next !== null, (person) => attempt(() => removePerson(person)));
}

async function removePerson(person) {
  await server.remove(person.person_id);
  await listPeople();
  say(byId("answer"), `Deleted ${person.name} and all of their vectors.`, "good");
  byId("list").focus();
}

function say(element, text, mood = "") {
  element.textContent = text.charAt(0).toUpperCase() + text.slice(1);
  element.dataset.mood = mood;
}

// -------------------------------------------------------------------------------------- events

const getScale = () => state.picture.width / stage.clientWidth;
makeMovable(guide, {
  getScale,
  get: () => [state.square.left, state.square.top],
  set: (left, top) => state.picture && moveSquare(left, top),
  grow: (steps) => state.picture && resize(state.square.side * 1.05 ** steps + steps),
});
eyeRings.forEach((ring, index) => {
  makeMovable(ring, { getScale, get: () => state.eyes[index], set: (x, y) => moveEye(index, x, y) });
});
byId("guide-size").addEventListener("input", (event) => {
  const { width, height } = state.picture;
  resize((Math.min(width, height) * event.target.valueAsNumber) / 100);
});
for (const radio of document.querySelectorAll("input[name=placing]")) radio.addEventListener("change", refresh);

byId("file").addEventListener("change", (event) => {
  useFile(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
stage.addEventListener("dragover", (event) => event.preventDefault());
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  useFile(event.dataTransfer.files[0]);
});
byId("open-camera").addEventListener("click", useCamera);
byId("take-picture").addEventListener("click", () => usePicture(takeFrame(video), CAMERA_FRACTION));
byId("close-camera").addEventListener("click", () => {
  showCamera(false);
  refresh();
});
byId("recognise").addEventListener("click", () => attempt(recognise));
byId("person").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!byId("enrol").disabled) attempt(enrol);
});
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("list").addEventListener("click", () => attempt(async () => {
  await listPeople();
  say(byId("answer"), "");
}));

start();
