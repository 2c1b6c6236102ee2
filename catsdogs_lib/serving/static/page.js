// The page: a photo goes to `predict`, its answer or its problem comes back. Class names come from the service only.

const LONG_SIDE = 1600; // pixels; the model looks at far fewer
const SHORT_SIDE = 448; // a panorama keeps this much height, twice what the model looks at
const KEPT_BYTES = 3.5e6; // a smaller file of a small picture goes as it is
const MOST_BYTES = 4.4e6; // AWS takes 6 MB with base64 counted, which is 4.5 MB of photo
const UNREAD = /avif|hei[cf]|jxl|svg/; // shown by some browsers, not read by the service: sent as JPEG
const PATIENCE = 60_000; // milliseconds
const WORTH_A_WORD = 4_000; // milliseconds; a function that nobody called for a while starts in so many
const SHOWN = 6; // bars, where there are many classes
const KEY_HEADER = "x-api-key"; // asked for where the service answers 401, kept for this tab alone
const NEWER = Symbol("a newer photo came");

const $ = (id) => document.getElementById(id);
const card = $("card");
let classes = [];
let underWay = null;
let last = null;
let looked = null; // the photo that was answered, for the map
let key = kept();

class Trouble extends Error {
  constructor(sentence, worthAnotherTry = false, needsKey = false) {
    super(sentence);
    this.worthAnotherTry = worthAnotherTry;
    this.needsKey = needsKey;
  }
}

// The key, where the service wants one

function kept() {
  try {
    return sessionStorage.getItem(KEY_HEADER) ?? "";
  } catch {
    return ""; // a browser may keep nothing; then the key lasts as long as the page
  }
}

function keep(given) {
  key = given;
  try {
    if (key) sessionStorage.setItem(KEY_HEADER, key);
    else sessionStorage.removeItem(KEY_HEADER);
  } catch {
    // see above
  }
}

// The bytes of the key as a header takes them.
const headerOf = (text) => String.fromCharCode(...new TextEncoder().encode(text));

// Words and figures

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plain = (name) => name.replaceAll("_", " ");
const listed = (names, type) => new Intl.ListFormat("en-GB", { type }).format(names.map(plain));
const sentence = (text) => capital(text.trim()).replace(/([^.!?])$/, "$1.");
const milliseconds = (ms) => (ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

function percent(p) {
  if (p > 0.999 && p < 1) return "> 99.9%";
  if (p < 0.001 && p > 0) return "< 0.1%";
  return `${(100 * p).toFixed(1)}%`;
}

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

// What the service says of itself

async function introduce() {
  try {
    const response = await fetch("./", { headers: { Accept: "application/json" }, cache: "no-store" });
    const about = await response.json();
    nameClasses(about.classes ?? []);
    nameModel(about.model_version, [about.name, about.service_version].filter(Boolean).join(" "));
  } catch {
    // The page works without: the first answer names the classes too.
  }
}

function nameClasses(names) {
  if (!names.length || names.join() === classes.join()) return;
  classes = names;
  const few = names.length <= 4;
  $("question").textContent = few ? `${capital(listed(names, "disjunction"))}?` : `Which of ${names.length}?`;
  document.title = $("question").textContent;
  const known = few ? listed(names, "conjunction") : `its ${names.length} classes`;
  $("limits").textContent =
    `The model knows only ${known}. It notices most photos of anything else, and is then not sure; it can be wrong.`;
}

function nameModel(version, service = $("service").dataset.name ?? "") {
  $("service").dataset.name = service;
  $("service").textContent = [service, version && `model ${version}`].filter(Boolean).join(", ");
}

// One photo, from the hand to the answer

async function look(file) {
  underWay?.abort(NEWER);
  const mine = new AbortController();
  underWay = mine;
  last = file;
  const tooSlow = new Trouble("The service did not answer within a minute. Try again in a moment.", true);
  let timer, slow;
  showBusy(file);
  try {
    const photo = await prepare(file);
    mine.signal.throwIfAborted();
    showPhoto(file, photo);
    // From here on it is the service that is waited for.
    timer = setTimeout(() => mine.abort(tooSlow), PATIENCE);
    slow = setTimeout(() => underWay === mine && showSlow(), WORTH_A_WORD);
    const started = performance.now();
    const answer = await ask("predict", photo, mine.signal);
    looked = { photo, signal: mine.signal };
    showAnswer(answer, performance.now() - started);
  } catch (error) {
    if (mine.signal.reason !== NEWER) showTrouble(error);
  } finally {
    clearTimeout(timer);
    clearTimeout(slow);
  }
}

// What is sent: the file itself, or a smaller JPEG of a large photo. `seen`: the browser can show it.
async function prepare(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Trouble("That cannot be read as a file; perhaps it is a folder, or was moved. Give a single photo.");
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return { blob: fits(file), name: file.name, seen: false }; // the service may know the format, or say that it does not
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, Math.max(LONG_SIDE / Math.max(width, height), SHORT_SIDE / Math.min(width, height)));
  const read = !UNREAD.test(file.type);
  if (scale === 1 && file.size <= KEPT_BYTES && read) {
    bitmap.close();
    return { blob: file, name: file.name, seen: true };
  }
  const smaller = await redraw(bitmap, Math.round(width * scale), Math.round(height * scale));
  bitmap.close();
  if (!smaller || (scale === 1 && smaller.size >= file.size && read)) return { blob: fits(file), name: file.name, seen: true };
  return { blob: fits(smaller), name: `${file.name.replace(/\.\w+$/, "")}.jpg`, seen: true };
}

function redraw(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context) return null;
  context.fillStyle = "#fff"; // as the service does below transparency
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
}

function fits(blob) {
  if (blob.size <= MOST_BYTES) return blob;
  throw new Trouble(
    `The file has ${size(blob.size)}, more than the ${size(MOST_BYTES)} that can be sent, and this browser cannot scale it ` +
      "down. Save the photo as a smaller JPEG and give that.",
  );
}

async function ask(route, photo, signal) {
  const form = new FormData();
  form.append("file", photo.blob, photo.name || "photo");
  let response, text;
  try {
    const headers = { Accept: "application/json, application/problem+json" };
    if (key) headers[KEY_HEADER] = headerOf(key);
    response = await fetch(route, { method: "POST", body: form, headers, signal });
    text = await response.text();
  } catch {
    signal.throwIfAborted();
    throw new Trouble(
      navigator.onLine
        ? "The service cannot be reached. Check your connection and try again."
        : "You are offline. Connect to a network and try again.",
      true,
    );
  }
  const answer = parsed(text);
  if (response.ok && answer?.probabilities) return answer;
  if (answer?.type === "/problems/key-needed") throw locked();
  throw new Trouble(...explained(response.status, answer));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // what stands in front of the service answers in HTML or plain text
  }
}

function locked() {
  const wrong = key !== "";
  keep("");
  return new Trouble(
    wrong
      ? "That is not the key of this service. Ask whoever runs it, then try again."
      : "This service answers only to its key. Enter it here and the photo is sent again.",
    false,
    true,
  );
}

// The sentence for a refusal, and whether the same photo is worth another try.
function explained(status, problem) {
  const later = status === 408 || status === 429 || status >= 500;
  if (typeof problem?.detail === "string" && problem.detail.trim()) return [sentence(problem.detail), later];
  if (status === 413) return ["The photo is larger than the service takes. Give a smaller one.", false];
  if (status === 429) return ["The service has too much to do just now. Wait a moment and try again.", true];
  if (status === 403)
    return ["The service does not let this request in (403). Ask whoever runs it for access, then try again.", true];
  if (later) return [`The service failed to answer (${status}). Try again in a moment.`, true];
  return [`The service gave an answer that this page cannot read (${status}). Reload the page and try again.`, true];
}

// What is seen and heard

function show(state, verdict, text, heard = "", alarm = "") {
  card.dataset.state = state;
  card.setAttribute("aria-busy", String(state === "busy"));
  $("verdict").textContent = verdict;
  $("sentence").textContent = text;
  $("said").textContent = heard;
  $("alarm").textContent = alarm;
  $("choose").textContent = "Choose another photo";
  $("photograph").textContent = "Take another";
  showMap(false);
  $("why").hidden = $("again").hidden = $("unlock").hidden = $("badge").hidden = $("facts").hidden = $("more").hidden = true;
}

function notice(text) {
  $("notice").textContent = text;
}

function showBusy(file) {
  notice("");
  show("busy", "Looking…", "", `Looking at ${file.name || "the photo"}.`);
  drawBars(classes.map((name) => [name, null]));
  URL.revokeObjectURL($("preview").src);
  $("preview").removeAttribute("src");
  $("preview").hidden = $("blind").hidden = true;
  $("name").textContent = file.name || "Photo";
  $("bytes").textContent = size(file.size);
}

function showSlow() {
  $("sentence").textContent = $("said").textContent = "Still looking. The service may just be waking up.";
}

function showPhoto(file, photo) {
  $("preview").hidden = !photo.seen;
  $("blind").hidden = photo.seen;
  if (photo.seen) $("preview").src = URL.createObjectURL(photo.blob);
  $("preview").alt = `Your photo ${file.name || ""}`.trim();
  if (photo.blob !== file) $("bytes").textContent = `${size(file.size)}, sent as ${size(photo.blob.size)}`;
}

function showAnswer(answer, elapsed) {
  const ranked = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a);
  nameClasses(Object.keys(answer.probabilities));
  nameModel(answer.model_version);
  const why = answer.confident ? "" : sentence(answer.reason || "the model is not sure");
  const heard = `${capital(plain(answer.prediction))}, ${percent(answer.confidence)}. ${answer.confident ? "Confident." : `Not sure. ${why}`}`;
  show("answer", plain(answer.prediction), why, heard);
  $("badge").hidden = $("facts").hidden = $("why").hidden = false;
  $("map").removeAttribute("src");
  $("badge").textContent = answer.confident ? "Confident" : "Not sure";
  $("badge").classList.toggle("doubt", !answer.confident);
  drawBars(ranked);
  $("latency").textContent = milliseconds(1000 * answer.latency_seconds);
  $("round-trip").textContent = milliseconds(elapsed);
  $("version").textContent = answer.model_version;
}

// The square that the model saw, coloured where it spoke for the answer, in place of the photo.
function showMap(shown) {
  $("why").setAttribute("aria-pressed", String(shown));
  $("why").textContent = shown ? "Show the photo" : "Where did it look?";
  $("map").hidden = !shown;
  if (shown) $("blind").hidden = true;
  $("preview").hidden = shown || !$("preview").hasAttribute("src");
}

async function toggleMap() {
  if (!$("map").hidden) {
    showMap(false);
    $("blind").hidden = looked.photo.seen;
    return;
  }
  if ($("map").hasAttribute("src")) return showMap(true);
  const { photo, signal } = looked;
  $("why").disabled = true;
  try {
    const found = await ask("explain", photo, signal);
    if (signal.aborted) return;
    $("map").src = found.overlay;
    $("map").alt = `Where the model looked for ${plain(found.prediction)}: bright places spoke for it`;
    showMap(true);
    $("said").textContent = $("map").alt;
  } catch (error) {
    if (!signal.aborted) notice(error instanceof Trouble ? error.message : "The map cannot be had. Try again.");
  } finally {
    $("why").disabled = false;
    $("why").focus();
  }
}

function showTrouble(error) {
  const known = error instanceof Trouble;
  if (!known) console.error(error);
  const text = known ? error.message : "This page made a mistake. Reload it and try again.";
  const heading = known && error.needsKey ? "A key is needed" : "No answer";
  show("error", heading, text, "", `${heading}. ${text}`);
  if (known && error.needsKey) {
    $("unlock").hidden = false;
    $("key").focus();
  }
  $("again").hidden = !(known && error.worthAnotherTry);
  drawBars([]);
}

// One bar for each class; from the seventh on, where there are many, behind a click.
function drawBars(entries) {
  const rows = entries.map(([name, p], index) => row(name, p, index));
  const few = rows.length <= SHOWN + 2 ? rows.length : SHOWN;
  $("bars").replaceChildren(...rows.slice(0, few));
  $("more").hidden = few === rows.length;
  $("more").querySelector("ul").replaceChildren(...rows.slice(few));
  $("more").querySelector("summary").textContent = `${rows.length - few} more`;
}

function row(name, p, index) {
  const item = document.createElement("li");
  const label = item.appendChild(document.createElement("span"));
  const figure = item.appendChild(document.createElement("span"));
  const bar = item.appendChild(document.createElement("div"));
  const fill = bar.appendChild(document.createElement("i"));
  label.className = "class";
  label.id = `class-${index}`;
  label.textContent = plain(name);
  figure.className = "percent";
  bar.className = "bar";
  if (p === null) return item;
  item.classList.toggle("best", index === 0);
  figure.textContent = percent(p);
  label.ariaHidden = figure.ariaHidden = "true"; // the meter says both
  bar.setAttribute("role", "meter");
  bar.setAttribute("aria-labelledby", label.id);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "1");
  bar.setAttribute("aria-valuenow", String(p));
  bar.setAttribute("aria-valuetext", percent(p));
  requestAnimationFrame(() => requestAnimationFrame(() => (fill.style.width = `${100 * p}%`)));
  return item;
}

// The ways in: a drop anywhere on the page, a paste, the two buttons

function take(files, otherwise) {
  if (!files?.length) return notice(otherwise);
  look(files[0]);
  if (files.length > 1) notice(`One photo at a time: this is the first of ${files.length}.`);
}

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

addEventListener("dragover", (event) => {
  event.preventDefault(); // or the browser would leave the page and open the file
  event.dataTransfer.dropEffect = carriesFiles(event) ? "copy" : "none";
  document.body.classList.toggle("dragging", carriesFiles(event));
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files, "That was no file. Drop a photo from your device.");
});
addEventListener("paste", (event) => {
  if (event.target === $("key") && !event.clipboardData?.files.length) return; // the key itself
  take(event.clipboardData?.files, "There is no photo in the clipboard. Copy one and paste again.");
});

for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
  $(button).addEventListener("click", () => $(input).click());
  $(input).addEventListener("change", () => {
    if ($(input).files.length) look($(input).files[0]);
    $(input).value = ""; // so that the same photo can be chosen again
  });
}
$("why").addEventListener("click", toggleMap);
$("again").addEventListener("click", () => {
  $("choose").focus(); // this button is about to go
  look(last);
});

$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  keep($("key").value.trim());
  $("key").value = "";
  $("choose").focus(); // the field is about to go
  look(last);
});

introduce();
