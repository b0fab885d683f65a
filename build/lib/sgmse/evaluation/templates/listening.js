"use strict";
// Rows of utterances with players over spectrograms, and a blind comparison of baseline and experiment.
// Everything shown comes from the JSON in the page; nothing is loaded but the sounds and pictures beside it.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SWITCHED = ["noisy", "clean"]; // with the two systems: the same words, so that the moment is kept

const state = { experiment: data.default, set: "all", sort: "gain", blind: false, revealed: false, row: 0 };
let rows = []; // of the page as it is shown: {item, key, element, panels: [{title, panel, element, keepsMoment}]}
let playing = null; // {audio, panel}: the one sound that is heard or paused
const ballots = load(); // key of a row → {first: "baseline" | "experiment" is A, place: of the row, vote: "A" | "B" | "x"}

// ---- what is remembered between visits

function load() {
  try {
    return JSON.parse(localStorage.getItem(data.page)) || {};
  } catch {
    return {}; // storage may be switched off
  }
}

function save() {
  try {
    localStorage.setItem(data.page, JSON.stringify(ballots));
  } catch {
    // the votes of this visit still count
  }
}

// ---- which rows, in which order

const experiment = () => data.experiments.find((one) => one.id === state.experiment);
const keyOf = (item) => [state.experiment, item.set, item.file].join(" ");

function gain(item) {
  const { id, baseline } = experiment();
  const before = item.panels[baseline] || item.panels.noisy;
  return item.panels[id].pesq === null || before.pesq === null ? null : item.panels[id].pesq - before.pesq;
}

function ballot(key) {
  if (!ballots[key]) {
    ballots[key] = { first: Math.random() < 0.5 ? "baseline" : "experiment", place: Math.random(), vote: null };
    save();
  }
  return ballots[key];
}

function chosen() {
  const { id, baseline } = experiment();
  const found = data.items.filter(
    (item) => item.panels[id] && (state.set === "all" || item.set === state.set) && (!state.blind || item.panels[baseline])
  );
  const text = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const byGain = (a, b) => (gain(b) ?? -Infinity) - (gain(a) ?? -Infinity) || 0;
  const orders = {
    gain: byGain,
    failure: (a, b) => (gain(a) ?? Infinity) - (gain(b) ?? Infinity) || 0,
    kind: (a, b) => text(a.kind, b.kind) || byGain(a, b),
    snr: (a, b) => (a.snr ?? Infinity) - (b.snr ?? Infinity) || byGain(a, b),
  };
  // an order by gain would tell the listener what to expect
  const blindly = (a, b) => ballot(keyOf(a)).place - ballot(keyOf(b)).place;
  return found.sort(state.blind ? blindly : orders[state.sort]);
}

/** Titles and panels of the five columns; a column without sound holds null. */
function columns(item) {
  const { id, baseline, reference } = experiment();
  const systems = { baseline: [baseline, item.panels[baseline]], experiment: [id, item.panels[id]] };
  let last = [systems.baseline, systems.experiment];
  if (state.blind) {
    const first = ballot(keyOf(item)).first;
    const second = first === "baseline" ? "experiment" : "baseline";
    last = [["A", systems[first][1]], ["B", systems[second][1]]];
  }
  return [["clean", item.panels.clean], ["noisy", item.panels.noisy], ["reference", item.panels[reference]], ...last];
}

// ---- the page

function element(tag, classes, text) {
  const made = document.createElement(tag);
  made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

function render() {
  stop();
  rows = chosen().map((item, place) => buildRow(item, place));
  byId("rows").replaceChildren(...rows.map((row) => row.element));
  if (!rows.length) byId("rows").append(element("p", "", "No utterance of this set was kept for this experiment."));
  byId("sort").disabled = state.blind;
  byId("blind").classList.toggle("on", state.blind);
  byId("reveal").hidden = !state.blind;
  byId("revealed").hidden = !state.revealed;
  state.row = 0;
  focusRow(0, false);
  count();
}

function buildRow(item, place) {
  const made = element("article", "row");
  const row = { item, key: keyOf(item), element: made, panels: [] };
  const header = element("header", "");
  header.append(element("b", "", item.file), element("span", "", `${item.set} · ${item.kind}`));
  if (item.snr !== null) header.append(element("span", "", `${item.snr} dB SNR`));
  header.append(state.blind ? voteButtons(row) : gainText(item));
  const grid = element("div", "panels");
  const longest = Math.max(...columns(item).map(([, panel]) => (panel ? panel.seconds : 0)));
  columns(item).forEach(([title, panel], column) => grid.append(buildPanel(row, column, title, panel, longest, place)));
  made.append(header, grid);
  return row;
}

function gainText(item) {
  const value = gain(item);
  if (value === null) return element("span", "gain", "PESQ not defined");
  const sign = value < 0 ? "−" : "+";
  const way = Math.abs(value) < 0.005 ? "" : value < 0 ? "down" : "up";
  return element("span", `gain ${way}`, `${sign}${Math.abs(value).toFixed(2)} PESQ`);
}

function voteButtons(row) {
  const made = element("span", "votes");
  for (const [vote, text] of [["A", "A is better"], ["B", "B is better"], ["x", "no difference"]]) {
    const button = element("button", ballot(row.key).vote === vote ? "on" : "", text);
    button.dataset.vote = vote;
    button.onclick = () => cast(row, vote);
    made.append(button);
  }
  return made;
}

function buildPanel(row, column, title, panel, longest, place) {
  const made = element("div", "panel");
  const name = element("div", "name");
  const entry = { title, panel, element: made, keepsMoment: SWITCHED.includes(title) || column > 2 };
  row.panels.push(entry);
  if (!panel) {
    name.append(element("span", "", title || "baseline"));
    made.append(name, element("div", "scores", "none"));
    return made;
  }
  const button = element("button", "play", "▶");
  button.title = `play or pause (${column + 1})`;
  button.onclick = () => toggle(place, column);
  name.append(button, element("span", "", title));
  const track = element("div", "track");
  const player = element("div", "player");
  player.style.width = `${(100 * panel.seconds) / longest}%`;
  const picture = element("img", "");
  Object.assign(picture, { src: panel.picture, loading: "lazy", alt: `Spectrogram, ${title}`, draggable: false });
  player.append(picture, element("div", "cursor"));
  player.onclick = (event) => {
    const box = player.getBoundingClientRect();
    play(place, column, (panel.seconds * (event.clientX - box.left)) / box.width);
  };
  track.append(player);
  const times = element("div", "times");
  times.append(element("span", "", "0"), element("span", "", `${longest.toFixed(2)} s`));
  made.append(name, element("div", "scores", state.blind && column > 2 ? "" : panel.scores), track, times);
  return made;
}

function focusRow(place, scroll = true) {
  if (!rows.length) return;
  state.row = Math.max(0, Math.min(rows.length - 1, place));
  rows.forEach((row, index) => row.element.classList.toggle("current", index === state.row));
  if (scroll) rows[state.row].element.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// ---- sound

function stop() {
  if (!playing) return;
  playing.audio.pause();
  playing.panel.element.classList.remove("active");
  button(playing.panel).textContent = "▶";
  playing = null;
}

const button = (panel) => panel.element.querySelector("button.play");

/** Play a panel from `seconds` on; without, from the moment at which another version of the row stands. */
function play(place, column, seconds) {
  const panel = rows[place].panels[column];
  if (!panel || !panel.panel) return;
  if (seconds === undefined) {
    const same = playing && rows[place].panels.includes(playing.panel) && playing.panel.keepsMoment && panel.keepsMoment;
    seconds = same ? playing.audio.currentTime : 0;
    if (same && playing.audio.ended) seconds = 0;
  }
  if (playing && playing.panel === panel) {
    playing.audio.currentTime = seconds;
  } else {
    stop();
    playing = { audio: new Audio(panel.panel.sound), panel };
    const audio = playing.audio;
    audio.currentTime = seconds;
    audio.onended = audio.onpause = () => (button(panel).textContent = "▶");
    audio.onplay = () => (button(panel).textContent = "❚❚");
  }
  panel.element.classList.add("active");
  focusRow(place, false);
  playing.audio.play().catch(() => {}); // a sound that another one cuts short rejects its promise
  requestAnimationFrame(moveCursor);
}

function toggle(place, column) {
  const panel = rows[place].panels[column];
  if (!playing || playing.panel !== panel) play(place, column);
  else if (playing.audio.paused) play(place, column, playing.audio.ended ? 0 : playing.audio.currentTime);
  else playing.audio.pause();
}

function moveCursor() {
  if (!playing) return;
  const { audio, panel } = playing;
  const cursor = panel.element.querySelector(".cursor");
  cursor.style.left = `${Math.min(100, (100 * audio.currentTime) / panel.panel.seconds)}%`;
  if (!audio.paused) requestAnimationFrame(moveCursor);
}

// ---- the blind comparison

function cast(row, vote) {
  ballot(row.key).vote = vote;
  save();
  row.element.querySelectorAll(".votes button").forEach((one) => one.classList.toggle("on", one.dataset.vote === vote));
  count();
}

/** Ballots of the chosen experiment that hold a vote, each with what was preferred. */
function votes() {
  const found = data.items.map((item) => ({ item, ...ballots[keyOf(item)] })).filter((one) => one.vote);
  for (const one of found) {
    const other = one.first === "baseline" ? "experiment" : "baseline";
    one.preferred = { A: one.first, B: other, x: "none" }[one.vote];
  }
  return found;
}

function count() {
  const number = votes().length;
  byId("count").textContent = state.blind ? `${number} of ${rows.length} voted` : "";
  byId("reveal").disabled = !number;
}

/** Two-sided sign test: the probability of a split at least as uneven as `a` to `b` when nobody hears a difference. */
function signTest(a, b) {
  let term = 2 ** -(a + b);
  let total = 0;
  for (let k = 0; k <= Math.min(a, b); k++) {
    total += term;
    term *= (a + b - k) / (k + 1);
  }
  return Math.min(1, 2 * total);
}

function reveal() {
  const found = votes();
  const number = (what) => found.filter((one) => one.preferred === what).length;
  const [baseline, experimental, none] = [number("baseline"), number("experiment"), number("none")];
  const { id, baseline: name } = experiment();
  const p = signTest(baseline, experimental);
  const text =
    `Votes: ${id} ${experimental}, ${name} ${baseline}, no difference ${none}` +
    (baseline + experimental ? ` (two-sided sign test: p = ${p.toFixed(3)}).` : ".");
  const download = element("button", "", "Download as CSV");
  download.id = "download";
  download.onclick = () => offer(csv(found));
  const again = element("button", "", "Forget these votes");
  again.onclick = () => {
    found.forEach((one) => delete ballots[keyOf(one.item)]);
    save();
    Object.assign(state, { revealed: false });
    render();
  };
  const bar = element("div", "bar");
  bar.append(download, again);
  byId("revealed").replaceChildren(element("p", "", text), bar);
  Object.assign(state, { blind: false, revealed: true });
  render();
  byId("revealed").scrollIntoView({ block: "nearest" });
}

function csv(found) {
  const { id, baseline } = experiment();
  const name = { baseline, experiment: id, none: "no difference" };
  const lines = found.map((one) => {
    const second = one.first === "baseline" ? "experiment" : "baseline";
    return [id, baseline, data.seed, one.item.set, one.item.file, name[one.first], name[second], one.vote, name[one.preferred]];
  });
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const header = ["experiment", "baseline", "seed", "set", "file", "A", "B", "vote", "preferred"];
  return [header, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function offer(text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `votes_${state.experiment}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---- controls

function fill(select, options, value) {
  select.replaceChildren(...options.map(([name, text]) => new Option(text, name, false, name === value)));
}

function start() {
  const sets = [...new Set(data.items.map((item) => item.set))];
  fill(byId("experiment"), data.experiments.map((one) => [one.id, one.label]), state.experiment);
  fill(byId("set"), [["all", "all"], ...sets.map((name) => [name, name])], "all");
  for (const name of ["experiment", "set", "sort"]) {
    byId(name).onchange = (event) => {
      state[name] = event.target.value;
      if (name === "experiment") state.revealed = false;
      event.target.blur();
      render();
    };
  }
  byId("blind").onclick = () => {
    Object.assign(state, { blind: !state.blind, revealed: false });
    render();
  };
  byId("reveal").onclick = reveal;
  document.addEventListener("keydown", pressed);
  // what was clicked with the mouse must not take the next space for itself
  document.addEventListener("click", (event) => event.detail && document.activeElement.blur());
  render();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, button") || !rows.length) return;
  const row = rows[state.row];
  const active = playing ? row.panels.indexOf(playing.panel) : -1;
  if (event.key === " ") toggle(state.row, active >= 0 ? active : 1);
  else if (/^[1-5]$/.test(event.key)) play(state.row, Number(event.key) - 1);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") focusRow(state.row + (event.key === "ArrowDown" ? 1 : -1));
  else if (state.blind && /^[abx]$/i.test(event.key)) cast(row, { a: "A", b: "B", x: "x" }[event.key.toLowerCase()]);
  else return;
  event.preventDefault();
}

start();
