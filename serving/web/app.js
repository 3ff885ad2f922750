// The page: a pad to draw on, what the model gets of it, and what it says.

import { BlankError, normalise } from "./digit.js";
import { Model } from "./model.js";

const PEN = 22; // pixels of the pad, of 280
const KEY_STEP = 7;
const MAX_SIDE = 1000; // a larger picture is scaled down before its pixels are looked at
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const byId = (id) => document.getElementById(id);
const pad = byId("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
const model = new Model(new URLSearchParams(location.search).get("model") ?? "mnist");

let last = 0; // number of the newest question: an older answer that comes late is dropped
let pen = null; // where the pen of mouse, finger or stylus is
const cursor = { x: pad.width / 2, y: pad.height / 4, down: false }; // the keyboard's pen
let drawn = null; // the pad without the keyboard's pen on it

// What the model says.

async function ask(grey) {
  const number = ++last;
  try {
    const image = normalise(grey, model.height, model.width);
    await show(number, image);
  } catch (error) {
    if (error instanceof BlankError) reset();
    else if (number === last) fail(error);
  }
}

async function show(number, image) {
  paint(byId("input"), image);
  byId("input").setAttribute("aria-label", `The digit, ${model.width} by ${model.height} pixels`);
  const { probabilities, version, milliseconds } = await model.predict(image);
  if (number !== last) return;
  const best = probabilities.indexOf(Math.max(...probabilities));
  byId("error").hidden = true;
  byId("digit").textContent = best;
  bars(probabilities, best);
  byId("facts").textContent = `Version ${version}, answered in ${milliseconds.toFixed(1)}\u00a0ms.`;
  byId("server").textContent = `${modelName()}, version ${version}`;
}

function bars(probabilities, best) {
  byId("bars").replaceChildren(...probabilities.map((probability, digit) => {
    const share = `${(100 * probability).toFixed(1)} %`;
    const item = element("li", { className: digit === best ? "best" : "" });
    const fill = element("div", { className: "fill" });
    fill.style.width = `${100 * probability}%`;
    const track = element("div", { className: "track" });
    track.append(fill);
    item.append(element("span", { textContent: digit }), track,
      element("span", { className: "share", textContent: share }));
    return item;
  }));
}

function reset() {
  last++;
  paint(byId("input"), Array.from({ length: model.height }, () => new Array(model.width).fill(0)));
  byId("input").setAttribute("aria-label", "Nothing yet");
  byId("digit").textContent = "–";
  byId("facts").textContent = "";
  byId("error").hidden = true;
  bars(new Array(byId("bars").children.length || 10).fill(0), -1);
}

function fail(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

function modelName() {
  return decodeURIComponent(model.path.split("/").at(-1));
}

// Drawing.

function clear() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, pad.width, pad.height);
  drawn = null;
  reset();
}

function line(from, to) {
  Object.assign(ink, { strokeStyle: "#fff", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
  ink.beginPath();
  ink.moveTo(from.x, from.y);
  ink.lineTo(to.x, to.y);
  ink.stroke();
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return {
    x: (event.clientX - box.left) * pad.width / box.width,
    y: (event.clientY - box.top) * pad.height / box.height,
  };
}

pad.addEventListener("pointerdown", (event) => {
  hideCursor();
  pad.setPointerCapture(event.pointerId);
  pen = place(event);
  line(pen, pen);
});
pad.addEventListener("pointermove", (event) => {
  if (!pen) return;
  // Browsers join movements; the points between make a curve of what else were corners.
  for (const part of event.getCoalescedEvents?.() ?? [event]) {
    const to = place(part);
    line(pen, to);
    pen = to;
  }
});
for (const kind of ["pointerup", "pointercancel"]) {
  pad.addEventListener(kind, () => {
    if (pen) ask(greyOf(pad));
    pen = null;
  });
}

pad.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const direction = KEYS[event.key];
  if (direction) {
    hideCursor();
    const from = { ...cursor };
    cursor.x = Math.min(pad.width, Math.max(0, cursor.x + KEY_STEP * direction[0]));
    cursor.y = Math.min(pad.height, Math.max(0, cursor.y + KEY_STEP * direction[1]));
    if (cursor.down) line(from, cursor);
  } else if (event.key === " ") {
    hideCursor();
    cursor.down = !cursor.down;
    if (cursor.down) line(cursor, cursor);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    cursor.down = false;
    clear();
  } else {
    return;
  }
  event.preventDefault();
  ask(greyOf(pad));
  showCursor();
});
pad.addEventListener("focus", () => { if (pad.matches(":focus-visible")) showCursor(); });
pad.addEventListener("blur", hideCursor);

function showCursor() {
  drawn = ink.getImageData(0, 0, pad.width, pad.height);
  ink.beginPath();
  ink.arc(cursor.x, cursor.y, PEN / 2, 0, 2 * Math.PI);
  Object.assign(ink, { strokeStyle: cursor.down ? "#78aeed" : "#888", lineWidth: 3 });
  ink.stroke();
}

function hideCursor() {
  if (drawn) ink.putImageData(drawn, 0, 0);
  drawn = null;
}

byId("clear").addEventListener("click", clear);

// Pictures.

async function take(file) {
  if (!file) return;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    fail(new Error(`${file.name} is no picture that this browser can read.`));
    return;
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(picture.width, picture.height));
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(picture.width * scale)),
    height: Math.max(1, Math.round(picture.height * scale)),
  });
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  clear();
  const fit = Math.min(pad.width / canvas.width, pad.height / canvas.height);
  const [width, height] = [canvas.width * fit, canvas.height * fit];
  ink.drawImage(canvas, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
  await ask(greyOf(canvas));
}

/** Grey levels as Pillow makes them of colours; what is transparent, on what it stands out from. */
function greyOf(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let mass = 0, opaque = 0;
  const levels = new Float64Array(width * height);
  for (let at = 0; at < levels.length; at++) {
    const [red, green, blue, alpha] = data.subarray(4 * at, 4 * at + 4);
    levels[at] = Math.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536);
    mass += levels[at] * alpha;
    opaque += alpha;
  }
  const ground = mass / Math.max(opaque, 1) < 127.5 ? 255 : 0;
  return Array.from({ length: height }, (_, y) => Array.from({ length: width }, (_, x) => {
    const alpha = data[4 * (y * width + x) + 3] / 255;
    return Math.round(levels[y * width + x] * alpha + ground * (1 - alpha));
  }));
}

byId("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    pad.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}

// Samples.

async function showSamples() {
  const response = await fetch("samples.json").catch(() => null);
  if (!response?.ok) return; // the model brings no samples along
  const { height, width, samples } = await response.json();
  if (height !== model.height || width !== model.width) return;
  byId("sample-list").replaceChildren(...samples.map(({ label, pixels }, at) => {
    const values = Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
    const image = Array.from({ length: height }, (_, y) => [...values.subarray(y * width, (y + 1) * width)]);
    const button = element("button", { type: "button", title: `Sample ${at + 1}, a ${label}` });
    const canvas = element("canvas", { width, height });
    paint(canvas, image);
    button.append(canvas);
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => {
      clear();
      ink.imageSmoothingEnabled = false;
      ink.drawImage(canvas, 0, 0, pad.width, pad.height);
      const number = ++last;
      show(number, image).catch((error) => { if (number === last) fail(error); });
    });
    return button;
  }));
  byId("samples").hidden = false;
}

// Small things.

function paint(canvas, image) {
  canvas.height = image.length;
  canvas.width = image[0].length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  image.flat().forEach((value, at) => pixels.data.set([value, value, value, 255], 4 * at));
  context.putImageData(pixels, 0, 0);
}

function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

async function start() {
  try {
    await model.refresh();
  } catch (error) {
    byId("server").textContent = "No model to ask.";
    fail(error);
    setTimeout(start, 2000); // it may still be loading
    return;
  }
  byId("server").textContent = `${modelName()}, version ${model.version}`;
  clear();
  await showSamples();
  document.documentElement.dataset.ready = "";
}

start();
