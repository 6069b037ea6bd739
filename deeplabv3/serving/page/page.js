// One picture at a time: its file goes to the service, a PNG of label ids comes back, and all else is drawn here.
"use strict";

const MAX_SIDE = 2048; // of the mask that is drawn again at every change; downloads have the full size
const TRIES = 5;

const element = (id) => document.getElementById(id);
const [stage, photo, plain, mask, tip, cross] = ["stage", "photo", "plain", "mask", "tip", "cross"].map(element);
const state = { classes: null, file: null, picture: null, ids: null, labels: null, hidden: new Set(), cursor: null, request: null };

for (const input of document.querySelectorAll('input[type="file"]')) {
  input.addEventListener("change", () => {
    if (input.files.length) open(input.files[0]);
    input.value = "";
  });
}
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((item) => item.type.startsWith("image/"));
  if (file) open(file);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});

async function open(file) {
  state.request?.abort();
  const request = (state.request = new AbortController());
  fail("");
  say("Segmenting…");
  document.body.classList.add("busy");
  let shown = null;
  try {
    const start = performance.now();
    state.classes ??= await (await ask("/classes", {}, request)).json();
    shown = show(file, request).then(() => file, () => null);
    const answer = await ask("/segment", { method: "POST", body: file }, request);
    const ids = await answer.blob();
    const picture = (await shown) ?? (await pictureOf(file, request));
    if (picture !== file) await show(picture, request);
    await read(ids, request);
    Object.assign(state, { file, picture, ids });
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    say(`${state.size.join(" × ")} pixels in ${seconds} s`);
  } catch (error) {
    if (request.signal.aborted) return;
    fail(error.message);
    say("");
    if (await shown) await goBack(request);
  } finally {
    if (state.request === request) document.body.classList.remove("busy");
  }
}

async function ask(path, options, request, tries = TRIES) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (options.body) headers["Content-Type"] = "application/octet-stream";
  const answer = await fetch(path, { ...options, headers, signal: request.signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The service cannot be reached. Is it still running?");
  });
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askForToken();
    return ask(path, options, request, tries);
  }
  if (answer.status === 503 && tries > 1) {
    say("The service is busy; trying again…");
    await new Promise((done) => setTimeout(done, 1000 * (answer.headers.get("Retry-After") ?? 1)));
    return ask(path, options, request, tries - 1);
  }
  const told = await answer.json().catch(() => ({}));
  const text = told.error ?? `The service answered ${answer.status}.`;
  throw new Error(text[0].toUpperCase() + text.slice(1));
}

function askForToken() {
  const dialog = element("ask");
  element("token").value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.onclose = () => {
      sessionStorage.setItem("token", element("token").value.trim());
      done();
    };
  });
}

// The last picture again, where the next one was shown and then not segmented.
async function goBack(request) {
  if (!state.file) return reveal(false);
  await show(state.picture, request);
  await read(state.ids, request);
}

async function show(source, request) {
  const address = URL.createObjectURL(source);
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  request.signal.throwIfAborted();
  URL.revokeObjectURL(photo.src);
  photo.src = plain.src = address;
  clear();
  const ratio = picture.naturalWidth / picture.naturalHeight;
  element("views").style.setProperty("--ratio", ratio);
  element("views").classList.toggle("small", picture.naturalWidth < 480);
  reveal(true);
}

// What this browser does not show, such as TIFF, the service does.
async function pictureOf(file, request) {
  const path = "/segment?output=overlay&opacity=0&legend=false";
  return (await ask(path, { method: "POST", body: file }, request)).blob();
}

function clear() {
  mask.width = mask.height = 1;
  state.labels = null;
  state.cursor = null;
  tip.hidden = cross.hidden = true;
  element("legend").replaceChildren();
  for (const button of document.querySelectorAll(".save button")) button.disabled = true;
}

function reveal(isResult) {
  element("start").hidden = isResult;
  element("result").hidden = element("another").hidden = !isResult;
}

// The label ids as numbers, at the size at which they are drawn.
async function read(blob, request) {
  const picture = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  request.signal.throwIfAborted();
  const scale = Math.min(1, MAX_SIDE / Math.max(picture.width, picture.height));
  state.size = [picture.width, picture.height];
  const pixels = pixelsOf(picture, Math.max(1, Math.round(picture.width * scale)), Math.max(1, Math.round(picture.height * scale)));
  mask.width = pixels.width;
  mask.height = pixels.height;
  state.labels = pixels.data.filter((_, place) => place % 4 === 0);
  list();
  draw();
  for (const button of document.querySelectorAll(".save button")) button.disabled = false;
}

function pixelsOf(picture, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

function list() {
  const counts = new Uint32Array(256);
  for (const id of state.labels) counts[id] += 1;
  const seen = state.classes.filter((row) => counts[row.id]).sort((one, other) => counts[other.id] - counts[one.id]);
  element("legend").replaceChildren(...seen.map((row) => entry(row, counts[row.id] / state.labels.length)));
}

function entry(row, share) {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const [swatch, name, amount, bar] = ["i", "span", "b", "span"].map((tag) => document.createElement(tag));
  input.type = "checkbox";
  input.checked = !state.hidden.has(row.id);
  input.dataset.id = row.id;
  input.addEventListener("change", () => toggle([row.id], input.checked));
  swatch.className = "swatch";
  bar.className = "bar";
  name.textContent = row.name;
  amount.textContent = share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
  label.style.setProperty("--c", `rgb(${row.color.join(" ")})`);
  label.style.setProperty("--tick", isLight(row.color) ? "#14181f" : "#ffffff");
  label.style.setProperty("--share", `${100 * share}%`);
  label.append(input, swatch, name, amount, bar);
  item.append(label);
  return item;
}

function isLight([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 150;
}

function toggle(ids, isShown) {
  for (const id of ids) state.hidden[isShown ? "delete" : "add"](id);
  for (const input of element("legend").querySelectorAll("input")) input.checked = !state.hidden.has(Number(input.dataset.id));
  draw();
}

function toggleAll(isShown) {
  if (state.classes) toggle(state.classes.map((row) => row.id), isShown);
}

function draw() {
  if (state.labels) mask.getContext("2d", { willReadFrequently: true }).putImageData(colored(state.labels, mask.width, mask.height, state.hidden), 0, 0);
}

function colored(ids, width, height, hidden) {
  const table = new Uint32Array(256);
  const bytes = new Uint8Array(table.buffer);
  for (const row of state.classes) bytes.set([...row.color, hidden.has(row.id) ? 0 : 255], 4 * row.id);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let place = 0; place < pixels.length; place += 1) pixels[place] = table[ids[place]];
  return image;
}

// A place in the picture, by pointer or by keys, and what is there.
function point(x, y, isSpoken) {
  if (!state.labels) return;
  const column = Math.min(mask.width - 1, Math.max(0, Math.floor(x * mask.width)));
  const row = Math.min(mask.height - 1, Math.max(0, Math.floor(y * mask.height)));
  const found = state.classes.find((item) => item.id === state.labels[row * mask.width + column]);
  tip.hidden = false;
  tip.lastElementChild.textContent = found?.name ?? "unlabelled";
  tip.style.setProperty("--c", found ? `rgb(${found.color.join(" ")})` : "transparent");
  const left = x * stage.clientWidth + 16;
  const top = y * stage.clientHeight - 44;
  tip.style.left = `${Math.max(4, Math.min(left, stage.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${top < 4 ? Math.min(y * stage.clientHeight + 16, stage.clientHeight - 36) : top}px`;
  for (const input of element("legend").querySelectorAll("input")) {
    input.parentElement.classList.toggle("here", Number(input.dataset.id) === found?.id);
  }
  if (isSpoken) element("spoken").textContent = `${found?.name ?? "unlabelled"}, column ${Math.round(x * 100)} %, row ${Math.round(y * 100)} %`;
}

function leave() {
  tip.hidden = cross.hidden = true;
  for (const label of element("legend").querySelectorAll(".here")) label.classList.remove("here");
}

for (const kind of ["pointermove", "pointerdown"]) {
  stage.addEventListener(kind, (event) => {
    const box = stage.getBoundingClientRect();
    cross.hidden = true;
    point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, false);
  });
}
stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
stage.addEventListener("blur", leave);
stage.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (!move || !state.labels) return;
  event.preventDefault();
  const step = event.shiftKey ? 0.1 : 0.02;
  const [x, y] = state.cursor ?? [0.5, 0.5];
  state.cursor = [x + step * move[0], y + step * move[1]].map((value) => Math.min(1, Math.max(0, value)));
  cross.hidden = false;
  cross.style.left = `${100 * state.cursor[0]}%`;
  cross.style.top = `${100 * state.cursor[1]}%`;
  point(...state.cursor, true);
});

element("opacity").addEventListener("input", setOpacity);
function setOpacity() {
  mask.style.opacity = element("opacity").value / 100;
  element("percent").textContent = `${element("opacity").value} %`;
}
setOpacity();
element("side").addEventListener("change", (event) => {
  element("original").hidden = !event.target.checked;
  element("views").classList.toggle("pair", event.target.checked);
});
element("all").addEventListener("click", () => toggleAll(true));
element("none").addEventListener("click", () => toggleAll(false));

element("save-ids").addEventListener("click", () => save(state.ids, "labelIds"));
element("save-color").addEventListener("click", () => saveDrawn("color", 0, 1));
element("save-overlay").addEventListener("click", () => saveDrawn("overlay", 1, element("opacity").value / 100));

// A picture of the full size: the photo where it is wanted, and the classes that are shown over it.
async function saveDrawn(kind, photoOpacity, maskOpacity) {
  const [width, height] = state.size;
  const ids = pixelsOf(await createImageBitmap(state.ids, { colorSpaceConversion: "none" }), width, height);
  const colors = new OffscreenCanvas(width, height);
  colors.getContext("2d").putImageData(colored(ids.data.filter((_, place) => place % 4 === 0), width, height, state.hidden), 0, 0);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.globalAlpha = photoOpacity;
  context.drawImage(photo, 0, 0, width, height);
  context.globalAlpha = maskOpacity;
  context.drawImage(colors, 0, 0);
  save(await canvas.convertToBlob({ type: "image/png" }), kind);
}

function save(blob, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${(state.file.name || "picture").replace(/\.\w+$/, "")}_${kind}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function say(text) {
  element("status").textContent = text;
}

function fail(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}
