// The page: a pad to draw on or to drop a photo on, what the network gets of it, and what the model says. How a
// picture comes to the model's size is the model's business: its graph does it.

import { Model } from "./model.js";

const PEN = 22; // pixels of the pad, of 280
const KEY_STEP = 7;
const MOST_BARS = 10; // of more classes, the likeliest are shown
const BLANK = /blank: no digit/; // what the graph says of a pad that nothing is drawn on
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const byId = (id) => document.getElementById(id);
const pad = byId("pad");
const ink = pad.getContext("2d", { willReadFrequently: true });
const model = new Model(new URLSearchParams(location.search).get("model") ?? "mnist");

let last = 0; // number of the newest question: an older answer that comes late is dropped
let pen = null; // where the pen of mouse, finger or stylus is
const cursor = { x: pad.width / 2, y: pad.height / 4, down: false }; // the keyboard's pen
let drawn = null; // the pad without the keyboard's pen on it
let digits = true; // whether the model reads digits, which can be drawn

// What the model says.

/** @param {Blob} file a picture */
async function ask(file, number = ++last) {
  if (number !== last) return;
  try {
    const { image, names } = await model.decode(file);
    if (number === last) await show(number, image, names);
  } catch (error) {
    if (number !== last) return;
    if (BLANK.test(error.message)) reset();
    else fail(error);
  }
}

/** Ask for what is on a canvas now. Browsers encode side by side: files may come in another order. */
function askCanvas(canvas) {
  const number = ++last;
  canvas.toBlob((file) => ask(file, number));
}

async function show(number, image, names) {
  paint(byId("input"), image);
  byId("input").setAttribute("aria-label", `What the network gets, ${model.width} by ${model.height} pixels`);
  const { probabilities, version, milliseconds } = await model.predict(image);
  if (number !== last) return;
  const best = probabilities.indexOf(Math.max(...probabilities));
  byId("error").hidden = true;
  byId("digit").textContent = names[best];
  bars(probabilities, names);
  byId("facts").textContent = `Version ${version}, answered in ${milliseconds.toFixed(1)}\u00a0ms.`;
  byId("server").textContent = `${modelName()}, version ${version}`;
}

function bars(probabilities, names) {
  const order = probabilities.map((_, at) => at);
  if (order.length > MOST_BARS || !digits) order.sort((a, b) => probabilities[b] - probabilities[a]);
  const best = probabilities.indexOf(Math.max(...probabilities));
  byId("bars").classList.toggle("named", names.some((name) => name.length > 2));
  byId("bars").replaceChildren(...order.slice(0, MOST_BARS).map((at) => {
    const share = `${(100 * probabilities[at]).toFixed(1)} %`;
    const item = element("li", { className: at === best && probabilities[at] ? "best" : "" });
    const fill = element("div", { className: "fill" });
    fill.style.width = `${100 * probabilities[at]}%`;
    const track = element("div", { className: "track" });
    track.append(fill);
    item.append(element("span", { textContent: names[at], title: names[at] }), track,
      element("span", { className: "share", textContent: share }));
    return item;
  }));
}

function reset() {
  last++;
  const blank = model.channels === 1 ? 0 : [0, 0, 0];
  paint(byId("input"), Array.from({ length: model.height }, () => new Array(model.width).fill(blank)));
  byId("input").setAttribute("aria-label", "Nothing yet");
  byId("digit").textContent = "–";
  byId("facts").textContent = "";
  byId("error").hidden = true;
  if (digits) bars(new Array(10).fill(0), Array.from({ length: 10 }, (_, digit) => String(digit)));
  else byId("bars").replaceChildren();
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
  if (!digits) return;
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
    if (pen) askCanvas(pad);
    pen = null;
  });
}

pad.addEventListener("keydown", (event) => {
  if (!digits || event.ctrlKey || event.metaKey || event.altKey) return;
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
  askCanvas(pad);
  showCursor();
});
pad.addEventListener("focus", () => { if (digits && pad.matches(":focus-visible")) showCursor(); });
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
  clear();
  const fit = Math.min(pad.width / picture.width, pad.height / picture.height);
  const [width, height] = [picture.width * fit, picture.height * fit];
  ink.drawImage(picture, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
  await ask(file);
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
  const { height, width, channels, digits: drawn, samples } = await response.json();
  if (height !== model.height || width !== model.width || channels !== model.channels) return;
  digits = drawn;
  document.documentElement.classList.toggle("photos", !digits);
  if (!digits) document.title = byId("title").textContent = "Show a picture";
  reset();
  byId("sample-list").replaceChildren(...samples.map(({ name, pixels }, at) => {
    const values = Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
    const image = Array.from({ length: height }, (_, y) => Array.from({ length: width }, (_, x) => {
      const place = (y * width + x) * channels;
      return channels === 1 ? values[place] : [...values.subarray(place, place + channels)];
    }));
    const button = element("button", { type: "button", title: `Sample ${at + 1}: ${name}` });
    const canvas = element("canvas", { width, height });
    paint(canvas, image);
    button.append(canvas);
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => {
      clear();
      ink.imageSmoothingEnabled = false;
      ink.drawImage(canvas, 0, 0, pad.width, pad.height);
      askCanvas(canvas);
    });
    return button;
  }));
  byId("samples").hidden = !samples.length;
}

// Small things.

function paint(canvas, image) {
  canvas.height = image.length;
  canvas.width = image[0].length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  image.flat().forEach((value, at) => pixels.data.set([...(value.length ? value : [value, value, value]), 255], 4 * at));
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
