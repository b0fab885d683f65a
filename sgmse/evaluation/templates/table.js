// Every file's scores in a table that is sorted by a click on its header and filtered as the recordings are.

const order = { column: "file", isFalling: false };

function startTable() {
  if (!data.table) return;
  byId("all").hidden = false;
  state.metric = Object.keys(data.table.metrics)[0];
  fill(byId("metric"), Object.entries(data.table.metrics).map(([name, metric]) => [name, metric.title]));
  byId("metric").onchange = (event) => {
    state.metric = event.target.value;
    renderTable();
  };
  byId("table-csv").onclick = () => offer(asCsv(tableLines()), `${state.metric}.csv`);
}

const headings = () => ["file", "noise", "SNR dB", ...data.table.systems];

function cells(row) {
  return [row.file, row.kind, row.snr, ...row.values[state.metric]];
}

function sortedRows() {
  const place = Math.max(0, headings().indexOf(order.column));
  const sign = order.isFalling ? -1 : 1;
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  return data.table.rows.filter(passes).sort((a, b) => compare(cells(a)[place], cells(b)[place]));
}

const tableLines = () => [headings(), ...sortedRows().map((row) => cells(row).map((value) => value ?? ""))];

function renderTable() {
  if (!data.table) return;
  byId("all").hidden = state.blind; // scores beside names would tell
  const shown = sortedRows();
  const head = element("tr", "");
  for (const name of headings()) {
    const cell = element("th", "");
    const button = element("button", "sort", name);
    const isSorted = name === order.column;
    if (isSorted) button.textContent += order.isFalling ? " ↓" : " ↑";
    cell.setAttribute("aria-sort", isSorted ? (order.isFalling ? "descending" : "ascending") : "none");
    button.onclick = () => {
      Object.assign(order, { column: name, isFalling: isSorted ? !order.isFalling : data.table.systems.includes(name) });
      renderTable();
    };
    cell.append(button);
    head.append(cell);
  }
  const { decimals } = data.table.metrics[state.metric];
  const text = (value) => (value === null ? "–" : typeof value === "number" ? plain(value, decimals) : value);
  const body = shown.map((row) => {
    const line = element("tr", "");
    const [file, kind, snr, ...values] = cells(row);
    const first = element("td", "");
    const place = rows.findIndex((one) => one.item.file === file);
    if (place < 0) first.textContent = file;
    else {
      const link = element("a", "", `▶ ${file}`);
      link.href = "#listen";
      link.onclick = (event) => {
        event.preventDefault();
        focusRow(place);
      };
      first.append(link);
    }
    line.append(first, element("td", "", kind.replaceAll("_", " ")), element("td", "number", snr === null ? "–" : `${snr}`));
    values.forEach((value) => line.append(element("td", "number", text(value))));
    return line;
  });
  byId("table").replaceChildren(head, ...body);
  byId("shown").textContent = `${shown.length} of ${data.table.rows.length} files`;
}
