// Figures of a search, and a trial that all of them show as selected.
const byNumber = new Map(D.trials.map((trial) => [trial.n, trial]));
const done = D.trials.filter((trial) => trial.state === "complete");
const loss = (trial, i) => D.objectives[i].sign * trial.values[i];
const first = (trials) => trials.reduce((a, b) => (a && loss(a, 0) <= loss(b, 0) ? a : b), null);
Object.assign(state, { selected: (first(done.filter((trial) => trial.front)) ?? done[0])?.n ?? null, x: D.objectives.length > 1 ? 1 : -1, y: 0, share: 0.25 });
Object.assign(FIGURES, { pareto, map, history: progress, importances, coordinates, workers });
LISTENERS.push(listen);

function named(trial) {
  return `<b>${plain(trial.id)}</b> trial ${trial.n}<br>${D.objectives.map((o, i) => `${plain(o.name)} ${plain(trial.texts[i])}`).join("<br>")}`;
}

function title(i) {
  const o = D.objectives[i];
  return { text: `${plain(o.label)}${["", "1"].includes(o.unit) ? "" : ` (${plain(o.unit)})`}, ${o.sign > 0 ? "less" : "more"} is better`, font: { size: 12 } };
}

function pareto(D, t) {
  const across = (trial) => (state.x < 0 ? trial.n : trial.values[state.x]);
  const rest = done.filter((trial) => !trial.front);
  const front = done.filter((trial) => trial.front).sort((a, b) => across(a) - across(b));
  const dots = (trials, color, size) => ({
    type: "scatter", mode: "markers", x: trials.map(across), y: trials.map((trial) => trial.values[state.y]),
    customdata: trials.map((trial) => trial.n), hovertext: trials.map(named), hoverinfo: "text",
    marker: { color, size, line: { color: t.ink, width: trials.map((trial) => (trial.n === state.selected ? 2 : 0)) } },
  });
  const line = { ...dots(front, t.accent, 10), mode: state.x < 0 || D.objectives.length > 2 ? "markers" : "lines+markers", line: { color: t.accent, width: 1.2, shape: D.objectives[0].sign * (D.objectives[1]?.sign ?? 1) < 0 ? "hv" : "vh" } };
  const was = [state.x < 0 ? null : D.original[state.x], D.original[state.y]];
  const annotations = was.includes(null) || was.includes(undefined) ? [] : [{ x: was[0], y: was[1], text: "as it was", showarrow: false, yshift: 12, font: { color: t.soft } }];
  const original = annotations.length ? [{ type: "scatter", mode: "markers", x: [was[0]], y: [was[1]], hoverinfo: "skip", marker: { symbol: "diamond", size: 9, color: t.soft } }] : [];
  return {
    data: [dots(rest.filter((trial) => trial.feasible), t.plain, 6), { ...dots(rest.filter((trial) => !trial.feasible), "rgba(0,0,0,0)", 6), marker: { symbol: "circle-open", color: t.faint, size: 6 } }, ...original, line],
    layout: layout(t, {
      height: 420, margin: { l: 64, r: 12, t: 8, b: 48 }, hovermode: "closest", annotations,
      xaxis: axis(t, { title: state.x < 0 ? { text: "trial", font: { size: 12 } } : title(state.x) }), yaxis: axis(t, { title: title(state.y) }),
    }),
  };
}

// The modules that decisions are about, each colored by its answer.
function map(D, t) {
  const trial = byNumber.get(state.selected);
  const placed = D.decisions.filter((decision) => decision.path && decision.name in (trial?.point ?? {}));
  if (!placed.length) return null;
  const nodes = new Map([["", { label: D.name, parent: null, value: 0 }]]);
  for (const decision of placed) {
    const parts = decision.path.split(".");
    parts.forEach((part, i) => {
      const id = parts.slice(0, i + 1).join(".");
      if (!nodes.has(id)) nodes.set(id, { label: part, parent: parts.slice(0, i).join("."), value: 0 });
    });
    const answer = trial.point[decision.name];
    const rank = decision.answers.findIndex((each) => each === answer);
    nodes.get(decision.path).value = 1;
    nodes.get(decision.path).answer = answer;
    nodes.get(decision.path).color = shade(t.seq, decision.answers.length < 2 ? 1 : 1 - rank / (decision.answers.length - 1));
  }
  const ids = [...nodes.keys()];
  const leaves = placed.length;
  return {
    data: [{
      type: "treemap", ids: ids.map((id) => id || "/"), labels: ids.map((id) => plain(nodes.get(id).label)),
      parents: ids.map((id) => (id ? nodes.get(id).parent || "/" : "")), values: ids.map((id) => nodes.get(id).value),
      text: ids.map((id) => (nodes.get(id).answer === undefined ? "" : plain(nodes.get(id).answer))), textinfo: "label+text", hoverinfo: "label+text",
      marker: { colors: ids.map((id) => nodes.get(id).color ?? t.panel), line: { color: t.paper, width: 1 } },
      textfont: { color: ids.map((id) => inkOn(t, nodes.get(id).color ?? t.panel)) }, pathbar: { visible: false }, tiling: { pad: 2 },
    }],
    layout: layout(t, { height: Math.min(120 + 16 * leaves, 420), margin: { l: 0, r: 0, t: 4, b: 4 } }),
  };
}

function progress(D, t) {
  const ended = D.trials.filter((trial) => ["complete", "stopped", "failed"].includes(trial.state));
  const best = D.best;
  const x = best.map((_, i) => i + 1);
  const data = [{ type: "scatter", mode: "lines", x, y: best, line: { color: t.accent, width: 2, shape: "hv" }, name: "best", hoverinfo: "x+y" }];
  if (D.seeds) {
    const at = D.seeds.map((_, i) => i + 1);
    data.unshift(...band(t, at, D.seeds.map(([low, , high]) => [low, high]), "hv"), { ...data[0], x: at, y: D.seeds.map((seed) => seed[1]), line: { color: t.soft, width: 1.4, dash: "dot", shape: "hv" }, name: "median of the seeds" });
  }
  const annotations = [{ x: x.at(-1), y: best.at(-1), text: "best so far", xanchor: "right", yanchor: "bottom", yshift: 2, showarrow: false, font: { color: t.accent } }];
  const more = {};
  if (D.objectives.length === 2) {
    const volume = covered(ended);
    data.push({ type: "scatter", mode: "lines", x, y: volume, yaxis: "y2", line: { color: t.soft, width: 1.4, shape: "hv" }, hoverinfo: "x+y" });
    more.yaxis2 = axis(t, { overlaying: "y", side: "right", range: [0, 1.05], tickvals: [0, 0.25, 0.5, 0.75, 1], tickformat: ".0%", showgrid: false });
    annotations.push({ x: x.at(-1), y: 0.9, yref: "y2", text: "hypervolume", xanchor: "right", yanchor: "top", showarrow: false, font: { color: t.soft } });
  }
  return { data, layout: layout(t, { height: 300, margin: { l: 64, r: 52, t: 26, b: 44 }, annotations, xaxis: axis(t, { title: { text: "trials that ended", font: { size: 12 } } }), yaxis: axis(t, { title: title(0) }), ...more }) };
}

// Share of the last front's hypervolume after each trial, up to the worst of what was seen.
function covered(trials) {
  const seen = trials.filter((trial) => trial.feasible);
  if (!seen.length) return trials.map(() => 0);
  const worst = [0, 1].map((i) => Math.max(...seen.map((trial) => loss(trial, i))));
  let points = [];
  const volumes = trials.map((trial) => {
    if (trial.feasible) points.push([loss(trial, 0), loss(trial, 1)]);
    points.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    let low = Infinity;
    points = points.filter((p) => p[1] < low && ((low = p[1]), true));
    return points.reduce((sum, p, i) => sum + ((points[i + 1]?.[0] ?? worst[0]) - p[0]) * (worst[1] - p[1]), 0);
  });
  return volumes.map((volume) => volume / (volumes.at(-1) || 1));
}

function importances(D, t) {
  const rows = D.importances.filter((row) => Math.max(...row.shares) > 0.001).slice(0, 15);
  if (!rows.length) return null;
  const colors = [t.accent, t.soft, t.plain];
  return {
    data: D.objectives.map((o, i) => ({
      type: "bar", orientation: "h", y: rows.map((row) => plain(row.name)), x: rows.map((row) => row.shares[i]), name: plain(o.label), marker: { color: colors[i % 3] }, hoverinfo: "x+name",
    })),
    layout: layout(t, { height: 60 + 26 * rows.length, showlegend: D.objectives.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, barmode: "group", margin: { l: Math.min(260, state.width / 2.4), r: 12, t: 30, b: 36 }, xaxis: axis(t, { tickformat: ".0%", range: [0, 1] }), yaxis: axis(t, { autorange: "reversed", showgrid: false }) }),
  };
}

function coordinates(D, t) {
  const fit = done.filter((trial) => trial.feasible).sort((a, b) => loss(a, 0) - loss(b, 0));
  const shown = fit.slice(0, Math.max(Math.ceil(fit.length * state.share), 1));
  const varied = D.decisions.filter((decision) => decision.answers.length > 1).slice(0, 12);
  if (!shown.length || !varied.length) return null;
  const columns = [
    ...varied.map((decision) => ({ label: decision.path || decision.name, ticks: decision.answers.map(String), of: (trial) => decision.answers.indexOf(trial.point[decision.name]) / (decision.answers.length - 1) })),
    ...D.objectives.map((o, i) => {
      const values = shown.map((trial) => trial.values[i]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return { label: o.label, ticks: [low, high].map((value) => Number(value.toPrecision(3))), of: (trial) => (high > low ? (trial.values[i] - low) / (high - low) : 0.5) };
    }),
  ];
  const rank = new Map(shown.map((trial, place) => [trial, place / Math.max(shown.length - 1, 1)]));
  const spread = (trial) => ((trial.n * 0.618) % 1 - 0.5) * 0.05; // lines on top of each other can be told apart
  return {
    data: shown.slice(0, 120).reverse().map((trial) => ({
      type: "scatter", mode: "lines", x: columns.map((_, i) => i), y: columns.map((column) => { const at = column.of(trial); return at < 0 ? null : at + spread(trial); }),
      line: { color: trial.n === state.selected ? t.ink : shade(t.seq, 1 - 0.8 * rank.get(trial)), width: trial.n === state.selected ? 2.4 : 1.2 }, opacity: 0.8,
      hovertext: named(trial), hoverinfo: "text", connectgaps: true, customdata: columns.map(() => trial.n),
    })),
    layout: layout(t, {
      height: 340, margin: { l: 30, r: 40, t: 12, b: 84 }, hovermode: "closest",
      xaxis: axis(t, { tickvals: columns.map((_, i) => i), ticktext: columns.map((column) => plain(column.label)), tickangle: columns.length > 8 ? -40 : 0 }),
      yaxis: axis(t, { range: [-0.08, 1.08], showticklabels: false, showgrid: false }),
      annotations: columns.flatMap((column, i) => column.ticks.map((text, k) => ({ x: i, y: k / Math.max(column.ticks.length - 1, 1), text: plain(text), showarrow: false, xanchor: "left", xshift: 3, font: { size: 10, color: t.soft }, bgcolor: t.paper, borderpad: 0 }))),
    }),
  };
}

function workers(D, t) {
  const names = [...new Set(D.trials.map((trial) => trial.worker).filter(Boolean))];
  if (!names.length) return null;
  const color = { complete: t.accent, stopped: t.plain, failed: t.worse };
  return {
    data: ["complete", "stopped", "failed"].map((kind) => {
      const trials = D.trials.filter((trial) => trial.state === kind && trial.worker);
      return { type: "bar", orientation: "h", base: trials.map((trial) => trial.at[0]), x: trials.map((trial) => trial.at[1]), y: trials.map((trial) => names.indexOf(trial.worker)), width: 0.6, marker: { color: color[kind], line: { color: t.paper, width: 0.5 } }, hovertext: trials.map((trial) => `${named(trial)}<br>${kind}, ${trial.at[1].toPrecision(3)} s`), hoverinfo: "text" };
    }),
    layout: layout(t, { height: 70 + 34 * names.length, barmode: "overlay", margin: { l: 70, r: 12, t: 4, b: 40 }, xaxis: axis(t, { title: { text: "seconds since the first trial", font: { size: 12 } } }), yaxis: axis(t, { tickvals: names.map((_, i) => i), ticktext: names.map((_, i) => `worker ${i + 1}`), showgrid: false }) }),
  };
}

function describe() {
  const trial = byNumber.get(state.selected);
  const rows = document.querySelector("#point tbody");
  const cell = (kind, text) => Object.assign(document.createElement(kind), { textContent: text });
  document.getElementById("point-name").textContent = trial ? `${trial.id}, trial ${trial.n}: ${D.objectives.map((o, i) => `${o.name} ${trial.texts[i]}`).join(", ")}` : "No trial is selected.";
  rows.replaceChildren(
    ...Object.entries(trial?.point ?? {}).map(([name, answer]) => {
      const row = document.createElement("tr");
      row.append(cell("th", name), cell("td", answer));
      return row;
    })
  );
  document.getElementById("again").textContent = !trial ? "" : trial.front ? `planish compress MODEL --recipe front/${trial.id}.toml` : `space.fill(${JSON.stringify(trial.point)})`;
  for (const row of document.querySelectorAll("tr[data-trial]")) row.classList.toggle("selected", Number(row.dataset.trial) === state.selected);
}

function select(number) {
  state.selected = number;
  draw(["pareto", "map", "coordinates"]);
  describe();
}

function listen() {
  describe();
  for (const name of ["pareto", "coordinates"]) document.getElementById(name).on("plotly_click", (event) => select(event.points[0].customdata));
  for (const row of document.querySelectorAll("tr[data-trial]")) {
    row.addEventListener("click", () => select(Number(row.dataset.trial)));
    row.addEventListener("keydown", (event) => event.key === "Enter" && select(Number(row.dataset.trial)));
  }
  for (const field of document.querySelectorAll("[data-axis], [data-top]")) {
    field.addEventListener("click", (event) => {
      if (event.target.tagName !== "BUTTON") return;
      state[field.dataset.axis ?? field.dataset.top] = Number(event.target.value);
      for (const button of field.querySelectorAll("button")) button.setAttribute("aria-pressed", button === event.target);
      draw([field.dataset.axis ? "pareto" : "coordinates"]);
    });
  }
}
