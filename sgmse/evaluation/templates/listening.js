"use strict";
// Rows of recordings: every version of a file over its spectrogram, played one at a time and switched at the same moment.
// Everything shown comes from the JSON in the page; nothing is loaded but the sounds and pictures beside it.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const MOST_COLUMNS = 6; // side by side
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

const state = { view: data.default ?? data.views[0].id, set: "all", kind: "all", snr: "all", sort: "gain", row: 0 };
Object.assign(state, { blind: false, revealed: false, loop: false, removed: Boolean(data.removed) });
let rows = []; // of the page as it is shown: {item, key, element, columns: [column]}

// ---- which rows, in which order

const view = () => data.views.find((one) => one.id === state.view);
const keyOf = (item) => [state.view, item.set, item.file].join(" ");

/** The number by which an item is ranked: of the last system of the view, less that of the one it is against. */
function gain(item) {
  const { systems, against } = view();
  const value = item.panels[systems.at(-1)]?.value ?? null;
  if (!data.rank.is_difference || !against) return value;
  const before = (item.panels[against] || item.panels.noisy)?.value ?? null;
  return value === null || before === null ? null : value - before;
}

const manySnrs = new Set((data.table?.rows || data.items).map((item) => item.snr)).size > 8;

/** The SNR as the filter shows it: itself, or of many the 5 dB it lies in. */
function snrGroup(snr) {
  if (snr === null) return "unknown";
  const low = 5 * Math.floor(snr / 5);
  return manySnrs ? `${low} to ${low + 5} dB` : `${snr} dB`;
}

function passes(item) {
  return (
    (state.set === "all" || item.set === state.set) &&
    (state.kind === "all" || (item.kind || "unknown") === state.kind) &&
    (state.snr === "all" || snrGroup(item.snr) === state.snr)
  );
}

function chosen() {
  const systems = view().systems;
  const found = data.items.filter((item) => passes(item) && item.panels[systems.at(-1)]);
  const text = (a, b) => a.localeCompare(b, "en", { numeric: true });
  const byGain = (a, b) => (gain(b) ?? -Infinity) - (gain(a) ?? -Infinity) || 0;
  const orders = {
    gain: byGain,
    loss: (a, b) => (gain(a) ?? Infinity) - (gain(b) ?? Infinity) || 0,
    kind: (a, b) => text(a.kind, b.kind) || byGain(a, b),
    snr: (a, b) => (a.snr ?? Infinity) - (b.snr ?? Infinity) || byGain(a, b),
    file: (a, b) => text(a.set, b.set) || text(a.file, b.file),
  };
  if (!state.blind) return found.sort(orders[state.sort]);
  // an order by gain would tell the listener what to expect
  const whole = found.filter((item) => systems.every((name) => item.panels[name]));
  return whole.sort((a, b) => ballot(keyOf(a)).place - ballot(keyOf(b)).place);
}

/** The columns of a row: what every view shows, then its systems, in the blind comparison shuffled and without names. */
function columnsOf(item) {
  const { systems, reference } = view();
  const length = item.panels.noisy?.seconds ?? item.seconds;
  const column = (title, panel, name, letter) => ({
    title, panel, name, letter, element: null, audio: null,
    keepsMoment: Boolean(panel) && Math.abs(panel.seconds - length) < 0.01 && name !== reference,
  });
  const fixed = ["clean", "noisy", reference].filter((name) => name && !systems.includes(name) && item.panels[name]);
  const found = fixed.map((name) => column(name, item.panels[name], name, null));
  const order = state.blind ? ballot(keyOf(item)).order : systems;
  order.forEach((name, place) => {
    const title = state.blind ? LETTERS[place] : name;
    found.push(column(title, item.panels[name] || null, name, LETTERS[place]));
    if (state.removed && !state.blind && item.panels[name]?.removed)
      found.push({ ...column(`noisy − ${name}`, item.panels[name].removed, name, null), isRemoved: true });
  });
  return found;
}

// ---- the page

function element(tag, classes, text) {
  const made = document.createElement(tag);
  made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

function render() {
  silence();
  rows = chosen().map(buildRow);
  byId("rows").replaceChildren(...rows.map((row) => row.element));
  if (!rows.length) byId("rows").append(element("p", "", "No recording on this page fits this choice."));
  for (const name of ["blind", "loop", "removed"]) {
    byId(name).classList.toggle("on", state[name]);
    byId(name).setAttribute("aria-pressed", state[name]);
  }
  byId("sort").disabled = byId("removed").disabled = state.blind;
  byId("reveal").hidden = !state.blind;
  byId("revealed").hidden = !state.revealed;
  focusRow(0, false);
  count();
  renderTable();
}

function buildRow(item) {
  const made = element("article", "row");
  const row = { item, key: keyOf(item), element: made, columns: columnsOf(item) };
  const header = element("header", "");
  header.append(element("b", "", item.file));
  const facts = [item.set, item.kind.replaceAll("_", " "), item.snr === null ? "" : `${item.snr} dB SNR`, item.excerpt];
  facts.filter(Boolean).forEach((fact) => header.append(element("span", "", fact)));
  header.append(state.blind ? voteButtons(row) : gainText(item));
  const grid = element("div", "panels");
  const upper = row.columns.filter((column) => !column.isRemoved).length;
  grid.style.setProperty("--columns", upper <= MOST_COLUMNS ? upper : Math.ceil(row.columns.length / 2));
  const longest = Math.max(...row.columns.map((column) => column.panel?.seconds ?? 0));
  let place = 0; // of the column above what was removed
  row.columns.forEach((column, at) => {
    grid.append(buildPanel(row, column, at, longest, item.khz));
    place += column.isRemoved ? 0 : 1;
    if (!column.isRemoved || upper > MOST_COLUMNS) return;
    column.element.classList.add("below");
    column.element.style.setProperty("--place", place);
  });
  made.append(header, grid);
  made.onclick = () => focusRow(rows.indexOf(row), false);
  return row;
}

const plain = (value, decimals) => value.toFixed(decimals).replace("-", "−");

function signed(value, decimals) {
  const text = Math.abs(value).toFixed(decimals);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

function gainText(item) {
  const value = gain(item);
  const { title, decimals, is_difference: isDifference } = data.rank;
  const { systems, against } = view();
  if (value === null) return element("span", "gain", `${title} not defined`);
  if (!isDifference || !against) return element("span", "gain", `${systems.at(-1)}: ${plain(value, decimals)} ${title}`);
  const way = Number(value.toFixed(decimals)) === 0 ? "" : (value < 0) === data.rank.higher_is_better ? "down" : "up";
  const before = item.panels[against] ? against : "noisy";
  return element("span", `gain ${way}`, `${systems.at(-1)}: ${signed(value, decimals)} ${title} over ${before}`);
}

function buildPanel(row, column, at, longest, khz) {
  const { title, panel, name } = column;
  const made = element("div", "panel");
  column.element = made;
  const head = element("div", "name");
  if (!panel) {
    head.append(element("span", "", title));
    made.append(head, element("div", "scores", "none"));
    return made;
  }
  const button = element("button", "play", "▶");
  const keys = [at < 9 ? at + 1 : "", column.letter?.toLowerCase()].filter(Boolean);
  button.title = `play or pause (key ${keys.join(" or ")})`;
  button.setAttribute("aria-label", `play ${title}`);
  button.onclick = () => toggle(column);
  const label = element("span", "title");
  for (const part of title.split(/(?<=[_./-])/)) label.append(part, document.createElement("wbr"));
  head.append(button, label, element("kbd", "", keys.at(-1)));
  const isHidden = state.blind && column.letter !== null;
  if (!isHidden) {
    if (data.colours?.[name] && column.letter) label.style.borderBottom = `3px solid ${data.colours[name]}`;
    const link = element("a", "save", "↓");
    link.href = panel.sound;
    link.download = `${row.item.file}_${title}.${panel.sound.split(".").pop()}`.replaceAll(/[^\w.−-]+/g, "_");
    link.title = "download this excerpt";
    head.append(link);
  }
  const scores = element("div", "scores");
  if (!isHidden) (panel.scores || []).forEach((words) => scores.append(element("span", "", words)));
  made.append(head, scores, buildTrack(column, isHidden, longest, khz));
  return made;
}

function buildTrack(column, isHidden, longest, khz) {
  const { panel, title } = column;
  const axes = element("div", "axes");
  const scale = element("div", "khz");
  const ticks = [khz, khz / 2].map((value) => `${Number(value.toFixed(1))}`);
  [...ticks, "0 kHz"].forEach((text) => scale.append(element("span", "", text)));
  const track = element("div", "track");
  const player = element("div", isHidden ? "player veiled" : "player");
  player.style.width = `${(100 * panel.seconds) / longest}%`;
  if (!isHidden) {
    const picture = element("img", "");
    Object.assign(picture, { src: panel.picture, loading: "lazy", alt: `Spectrogram, ${title}`, draggable: false });
    player.append(picture);
  }
  player.append(element("div", "cursor"));
  player.onclick = (event) => {
    const box = player.getBoundingClientRect();
    play(column, (panel.seconds * (event.clientX - box.left)) / box.width);
  };
  track.append(player);
  const times = element("div", "times");
  times.append(element("span", "", "0"), element("span", "", `${(longest / 2).toFixed(1)}`), element("span", "", `${longest.toFixed(1)} s`));
  axes.append(scale, track, times);
  return axes;
}

function focusRow(place, scroll = true) {
  if (!rows.length) return;
  const before = rows[state.row];
  state.row = Math.max(0, Math.min(rows.length - 1, place));
  const row = rows[state.row];
  if (before && before !== row && !before.columns.includes(playing)) before.columns.forEach((column) => (column.audio = null));
  rows.forEach((one) => one.element.classList.toggle("current", one === row));
  if (scroll) row.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// ---- controls

function fill(select, options) {
  select.replaceChildren(...options.map(([name, text]) => new Option(text, name, false, name === state[select.id])));
  select.closest("label").hidden = options.length < 2 || (options[0][0] === "all" && options.length === 2);
}

function fillControls() {
  const all = data.table?.rows || data.items;
  const kinds = [...new Set(all.map((item) => item.kind || "unknown"))].sort();
  const snrs = [...new Set(all.map((item) => item.snr))].sort((a, b) => (a ?? Infinity) - (b ?? Infinity));
  const sets = [...new Set(data.items.map((item) => item.set))];
  const withAll = (names) => [["all", "all"], ...[...new Set(names)].map((name) => [name, name.replaceAll("_", " ")])];
  const what = data.rank.is_difference ? `${data.rank.title} gain` : data.rank.title;
  const orders = [["gain", `largest ${what} first`], ["loss", `smallest ${what} first`], ["kind", "noise class"]];
  fill(byId("view"), data.views.map((one) => [one.id, one.label]));
  fill(byId("set"), withAll(sets));
  fill(byId("kind"), withAll(kinds));
  fill(byId("snr"), withAll(snrs.map(snrGroup)));
  fill(byId("sort"), [...orders, ["snr", "SNR, lowest first"], ["file", "name of the file"]]);
  const hasRemoved = data.items.some((item) => Object.values(item.panels).some((panel) => panel.removed));
  document.querySelectorAll("[data-show=removed]").forEach((one) => (one.hidden = !hasRemoved));
}

function flip(name) {
  state[name] = !state[name];
  if (name === "loop") {
    if (playing) playing.audio.loop = state.loop;
    byId("loop").classList.toggle("on", state.loop);
    return;
  }
  if (name === "blind") state.revealed = false;
  render();
}

function start() {
  fillControls();
  for (const name of ["view", "set", "kind", "snr", "sort"]) {
    byId(name).onchange = (event) => {
      state[name] = event.target.value;
      if (name === "view") state.revealed = false;
      event.target.blur();
      render();
    };
  }
  for (const name of ["blind", "loop", "removed"]) byId(name).onclick = () => flip(name);
  byId("reveal").onclick = reveal;
  byId("flac").hidden = data.opus;
  byId("opus").hidden = !data.opus || Boolean(new Audio().canPlayType('audio/ogg; codecs="opus"'));
  document.addEventListener("keydown", pressed);
  // what was clicked with the mouse must not take the next space for itself
  document.addEventListener("click", (event) => event.detail && document.activeElement.blur());
  startTable();
  render();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, button, a") || !rows.length) return;
  const row = rows[state.row];
  const key = event.key.toLowerCase();
  const lettered = row.columns.find((column) => column.letter?.toLowerCase() === key);
  const move = { arrowdown: 1, arrowup: -1 }[key];
  if (key === " ") toggle(row.columns.includes(playing) ? playing : row.columns.find((column) => column.letter));
  else if (/^[1-9]$/.test(key)) play(row.columns[Number(key) - 1]);
  else if (lettered) play(lettered);
  else if (move) focusRow(state.row + move);
  else if (key === "l") flip("loop");
  else if (key === "r" && !state.blind && !byId("removed").hidden) flip("removed");
  else if (state.blind && key === "enter" && row.columns.includes(playing) && playing.letter) cast(row, playing.letter);
  else if (state.blind && key === "x") cast(row, "x");
  else return;
  event.preventDefault();
}
