// The blind comparison: the systems of a view in an order of their own for every file, votes, and what they add up to.

const ballots = remember(); // key of a row → {order: systems as shown, place: of the row, vote: "A", "B", … or "x"}

function remember() {
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

function ballot(key) {
  if (!ballots[key]) {
    const order = [...view().systems];
    for (let last = order.length - 1; last > 0; last--) {
      const other = Math.floor(Math.random() * (last + 1));
      [order[last], order[other]] = [order[other], order[last]];
    }
    ballots[key] = { order, place: Math.random(), vote: null };
    save();
  }
  return ballots[key];
}

function voteButtons(row) {
  const made = element("span", "votes");
  const { order, vote } = ballot(row.key);
  const words = order.length > 2 ? "best" : "is better";
  const choices = [...order.map((_, place) => [LETTERS[place], `${LETTERS[place]} ${words}`]), ["x", "no difference"]];
  for (const [letter, text] of choices) {
    const button = element("button", vote === letter ? "on" : "", text);
    button.dataset.vote = letter;
    button.onclick = () => cast(row, letter);
    made.append(button);
  }
  return made;
}

function cast(row, vote) {
  ballot(row.key).vote = vote;
  save();
  row.element.querySelectorAll(".votes button").forEach((one) => one.classList.toggle("on", one.dataset.vote === vote));
  count();
}

/** Ballots of the chosen view that hold a vote, each with the system that was preferred, null for none. */
function votes() {
  const found = data.items.map((item) => ({ item, ...ballots[keyOf(item)] })).filter((one) => one.vote);
  return found.map((one) => ({ ...one, preferred: one.vote === "x" ? null : one.order[LETTERS.indexOf(one.vote)] }));
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
  const number = (name) => found.filter((one) => one.preferred === name).length;
  const { systems } = view();
  const counts = systems.map((name) => `${name} ${number(name)}`);
  const decided = systems.length === 2 && number(systems[0]) + number(systems[1]);
  const p = decided ? ` (two-sided sign test: p = ${signTest(...systems.map(number)).toFixed(3)})` : "";
  const text = `Votes: ${counts.join(", ")}, no difference ${number(null)}${p}.`;
  const download = element("button", "", "Download as CSV");
  download.id = "download";
  download.onclick = () => offer(ballotsAsCsv(found), "votes.csv");
  const again = element("button", "", "Forget these votes");
  again.onclick = () => {
    found.forEach((one) => delete ballots[keyOf(one.item)]);
    save();
    state.revealed = false;
    render();
  };
  const bar = element("div", "bar");
  bar.append(download, again);
  byId("revealed").replaceChildren(element("p", "", text), bar);
  Object.assign(state, { blind: false, revealed: true });
  render();
  byId("revealed").scrollIntoView({ block: "nearest" });
}

function ballotsAsCsv(found) {
  const { label, systems } = view();
  const header = ["comparison", "set", "file", "snr_db", "noise", ...systems.map((_, place) => LETTERS[place]), "vote", "preferred"];
  const lines = found.map(({ item, order, vote, preferred }) =>
    [label, item.set, item.file, item.snr ?? "", item.kind, ...order, vote, preferred ?? "no difference"]
  );
  return asCsv([header, ...lines]);
}

function asCsv(lines) {
  const quoted = (value) => `"${String(value).replaceAll('"', '""')}"`;
  return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function offer(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
