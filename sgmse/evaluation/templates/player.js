// Sound: one version is heard at a time, and another one of its file goes on at the same moment.

let playing = null; // the column that is heard or paused

const rowOf = (column) => rows.find((row) => row.columns.includes(column));
const playButton = (column) => column.element.querySelector("button.play");

function silence() {
  if (!playing) return;
  playing.audio.pause();
  rowOf(playing)?.columns.forEach((column) => column.element.classList.remove("active", "shown"));
  playButton(playing).textContent = "▶";
  playing = null;
}

/** The sound of a column. Those of its row are loaded with it, so that a switch needs no waiting. */
function load(column) {
  for (const one of rowOf(column).columns) {
    if (!one.panel || one.audio) continue;
    one.audio = new Audio(one.panel.sound);
    one.audio.preload = "auto";
    one.audio.onended = one.audio.onpause = () => (playButton(one).textContent = "▶");
    one.audio.onplay = () => (playButton(one).textContent = "❚❚");
  }
  return column.audio;
}

/** Play a column from `seconds` on; without, from the moment at which another version of the file stands. */
function play(column, seconds) {
  if (!column?.panel) return;
  const row = rowOf(column);
  if (seconds === undefined) {
    const isSame = playing && row.columns.includes(playing) && playing.keepsMoment && column.keepsMoment;
    seconds = isSame && !playing.audio.ended ? playing.audio.currentTime : 0;
  }
  if (playing !== column) silence();
  playing = column;
  const audio = load(column);
  audio.loop = state.loop;
  audio.currentTime = seconds;
  column.element.classList.add("active");
  row.columns.forEach((one) => one.element.classList.toggle("shown", one === column || (one.keepsMoment && column.keepsMoment)));
  focusRow(rows.indexOf(row), false);
  audio.play().catch(() => {}); // a sound that another one cuts short rejects its promise
  requestAnimationFrame(moveCursors);
}

function toggle(column) {
  if (playing !== column) play(column);
  else if (playing.audio.paused) play(column, playing.audio.ended ? 0 : playing.audio.currentTime);
  else playing.audio.pause();
}

function moveCursors() {
  if (!playing) return;
  const { audio } = playing;
  for (const column of rowOf(playing).columns) {
    const cursor = column.element.querySelector(".cursor");
    if (cursor) cursor.style.left = `${Math.min(100, (100 * audio.currentTime) / column.panel.seconds)}%`;
  }
  if (!audio.paused) requestAnimationFrame(moveCursors);
}
