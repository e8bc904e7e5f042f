// What each layer loses in each format, and the bits it was given: one column a layer (one row, on a narrow screen).
function mapsFigure(D, t, state) {
  const layers = D.layers.filter((l) => l.v["weight_bits chosen"] || D.formats.some((f) => l.v[`sensitivity ${f}`]));
  const lossRow = (f) => layers.map((l) => l.v[`sensitivity ${f}`]?.[0] ?? null);
  const bitRow = (kind) => layers.map((l) => l.v[`${kind}_bits chosen`]?.[0] ?? null);
  const losses = D.formats.map(lossRow);
  const bitRows = ["weight", "activation"].map(bitRow).filter((row) => row.some((b) => b !== null));
  const bitNames = ["weights", "activations"].slice(0, bitRows.length);
  const all = losses.flat().filter((v) => v !== null);
  const [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  const n = layers.length;
  const at = layers.map((_, i) => i);
  const cell = state.narrow ? 17 : Math.max(3, (state.width - 130) / Math.max(n, 1));
  const digits = state.narrow || cell >= 15;
  const turn = (rows) => (state.narrow ? at.map((i) => rows.map((row) => row[i])) : rows);
  const hover = (l, head, value) => `<b>${plain(l.id)}</b><br>${plain(head)}: ${value ? value[1] : "not measured"}`;
  // The digits of one ink: a heatmap has one text color, and dark cells need the other.
  const words = (rows, scale, zmax, colors, ink) => ({
    text: turn(rows.map((row) => row.map((v) => (v !== null && digits && inkOn(t, shade(colors, scale(v) / zmax)) === ink ? v.toFixed(0) : "")))),
    texttemplate: "%{text}",
    textfont: { size: 10, color: ink },
  });
  const heat = (rows, names, texts, scale, zmax, first) => {
    const heads = names.map((_, i) => i);
    const [across, down] = state.narrow ? [heads, at] : [at, heads];
    return {
      type: "heatmap",
      name: first ? "sensitivity" : "bits",
      x: across, y: down,
      z: turn(rows.map((row) => row.map((v) => (v === null ? null : scale(v))))),
      customdata: turn(names.map((_, k) => layers.map((l, i) => [l.id, rows[k][i]]))),
      hovertext: turn(texts),
      hoverinfo: "text",
      ...words(rows, scale, zmax, first ? t.loss : t.seq, t.ink),
      colorscale: stops(first ? t.loss : t.seq),
      zmin: 0, zmax, showscale: false, xgap: cell > 6 ? 1 : 0, ygap: 1,
      ...(state.narrow ? { xaxis: first ? "x" : "x2", yaxis: "y" } : { xaxis: "x", yaxis: first ? "y" : "y2" }),
    };
  };
  const lossTexts = D.formats.map((f) => layers.map((l) => hover(l, `only this layer in ${f}`, l.v[`sensitivity ${f}`])));
  const bitTexts = ["weight", "activation"].slice(0, bitRows.length).map((k, i) =>
    layers.map((l) => hover(l, `${bitNames[i]}`, l.v[`${k}_bits chosen`]) + (l.formats[`${k}_bits chosen`] ? `, ${plain(l.formats[`${k}_bits chosen`])}` : "")));
  const data = [];
  const push = (rows, names, texts, scale, zmax, first) => {
    const base = heat(rows, names, texts, scale, zmax, first);
    const clear = [[0, "rgba(0,0,0,0)"], [1, "rgba(0,0,0,0)"]];
    data.push(base, { ...base, name: "digits", colorscale: clear, hoverinfo: "skip", ...words(rows, scale, zmax, first ? t.loss : t.seq, t["on-dark"]) });
  };
  if (losses.length) push(losses, D.formats, lossTexts, (v) => high - v, high - low || 1, true);
  if (bitRows.length) push(bitRows, bitNames, bitTexts, bitShare, 1, false);

  const groups = [];
  layers.forEach((l, i) => (groups.at(-1)?.name === l.group ? (groups.at(-1).to = i) : groups.push({ name: l.group, from: i, to: i })));
  const shapes = groups.slice(1).map((g) =>
    state.narrow
      ? { type: "line", xref: "paper", x0: 0, x1: 1, yref: "y", y0: g.from - 0.5, y1: g.from - 0.5, line: { color: t.faint, width: 1 } }
      : { type: "line", yref: "paper", y0: 0, y1: 1, xref: "x", x0: g.from - 0.5, x1: g.from - 0.5, line: { color: t.faint, width: 1 } });
  layers.forEach((l, i) => {
    if (!within(l, state.selected)) return;
    const band = { type: "rect", line: { color: t.worse, width: 2 }, fillcolor: "rgba(0,0,0,0)" };
    shapes.push(state.narrow
      ? { ...band, xref: "paper", x0: 0, x1: 1, yref: "y", y0: i - 0.5, y1: i + 0.5 }
      : { ...band, yref: "paper", y0: 0, y1: 1, xref: "x", x0: i - 0.5, x1: i + 0.5 });
  });
  const key = document.getElementById("maps-key");
  key.replaceChildren();
  if (losses.length) key.append(ramp(t, [...t.loss].reverse(), `${low.toFixed(0)} dB, loses most`, `${high.toFixed(0)} dB, loses least`));
  for (const b of [...new Set(bitRows.flat().filter((v) => v !== null))].sort((a, c) => a - c)) key.append(swatch(t, shade(t.seq, bitShare(b)), `${b} bit`));

  const split = losses.length && bitRows.length ? losses.length / (losses.length + bitRows.length) : losses.length ? 1 : 0;
  const labels = layers.map((l) => plain(shorten(l.label, 24)));
  const none = { showgrid: false, ticks: "", showline: false };
  const heads = (names) => ({ tickvals: names.map((_, i) => i), ticktext: names.map((name) => plain(shorten(name, 15))) });
  if (state.narrow) {
    return {
      data,
      layout: layout(t, {
        height: 106 + 17 * n, margin: { l: 168, r: 2, t: 102, b: 4 }, shapes,
        xaxis: axis(t, { ...none, ...heads(D.formats), domain: [0, Math.max(0.01, split - 0.02)], side: "top", tickangle: -90 }),
        xaxis2: axis(t, { ...none, ...heads(bitNames), domain: [Math.min(0.99, split + 0.02), 1], side: "top", tickangle: -90, anchor: "y" }),
        yaxis: axis(t, { ...none, range: [n - 0.5, -0.5], tickvals: at, ticktext: layers.map((l) => plain(shorten(/\d$/.test(l.group) ? `${l.group.split(".").at(-1)} ${l.label}` : l.label, 27))), tickfont: { size: 10 } }),
      }),
    };
  }
  const rows = losses.length + bitRows.length;
  return {
    data,
    layout: layout(t, {
      height: 26 * rows + 12 + 26 + (cell >= 9 ? 150 : 12), margin: { l: 122, r: 4, t: 24, b: cell >= 9 ? 150 : 12 }, shapes,
      annotations: groups.map((g) => ({ yref: "paper", y: 1, yanchor: "bottom", x: (g.from + g.to) / 2, text: plain(fitting(g.name, ((g.to - g.from + 1) * cell) / 6.4)), showarrow: false, font: { size: 11, color: t.soft } })),
      xaxis: axis(t, { ...none, range: [-0.5, n - 0.5], tickvals: at, ticktext: labels, tickangle: -90, tickfont: { size: 10.5 }, showticklabels: cell >= 9, anchor: bitRows.length ? "y2" : "y" }),
      yaxis: axis(t, { ...none, ...heads(D.formats), range: [losses.length - 0.5, -0.5], domain: [Math.min(0.99, 1 - split + 0.015), 1] }),
      yaxis2: axis(t, { ...none, ...heads(bitNames), range: [bitRows.length - 0.5, -0.5], domain: [0, Math.max(0.01, 1 - split - 0.015)], anchor: "x" }),
    }),
  };
}

// As much of a group's name as fits above its columns: "layer 3", "3" or nothing.
function fitting(group, most) {
  return [groupName(group), group.split(".").at(-1)].find((name) => name.length <= most) ?? "";
}

// "encoder.layer.3" is read as "layer 3".
function groupName(group) {
  const parts = group.split(".");
  return /^\d+$/.test(parts.at(-1)) && parts.length > 1 ? `${parts.at(-2)} ${parts.at(-1)}` : group;
}
