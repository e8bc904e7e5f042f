// The roofline: each layer a dot, at its arithmetic intensity and the rate it reaches, below what the machine can do.
function rooflineFigure(D, t, state) {
  const dots = [];
  for (const layer of D.layers) {
    for (const subject of ["original", "chosen"]) {
      const time = layer.v[`node_time ${subject}`];
      const flops = layer.v[`flops ${subject}`] || (subject === "chosen" ? undefined : layer.v["flops original"]);
      const intensity = layer.v[`intensity ${subject}`];
      if (time && flops && intensity && time[0] > 0 && flops[0] > 0 && intensity[0] > 0) {
        dots.push({ layer, subject, x: intensity[0], y: flops[0] / time[0], time, flops, intensity });
      }
    }
  }
  const memory = D.peaks.find((p) => p.unit === "B/s");
  const roofs = D.peaks.filter((p) => p.unit === "FLOP/s").sort((a, b) => a.v[0] - b.v[0]);
  const log = Math.log10;
  const xs = dots.map((d) => d.x);
  const ys = dots.map((d) => d.y);
  const ridge = memory && roofs.length ? roofs.at(-1).v[0] / memory.v[0] : 1;
  const xr = [log(Math.min(...xs, ridge) / 2.2), log(Math.max(...xs, ridge) * 3)];
  const yr = [log(Math.min(...ys, ...roofs.map((r) => r.v[0])) / 3), log(Math.max(...ys, ...roofs.map((r) => r.v[0])) * 1.9)];
  const height = state.narrow ? 400 : 440;
  const margin = { l: 62, r: 8, t: 8, b: 46 };
  const taken = []; // where words stand already: center x, y, width in pixels
  const shapes = [];
  const notes = [];
  const line = (x0, y0, x1, y1) =>
    shapes.push({ type: "line", x0: 10 ** x0, y0: 10 ** y0, x1: 10 ** x1, y1: 10 ** y1, line: { color: t.faint, width: 1.3 }, layer: "below" });
  const note = (x, y, text, more) =>
    notes.push({ x, y, text, showarrow: false, font: { size: 11, color: t.soft }, ...more });
  if (memory && roofs.length) {
    const slope = log(memory.v[0]);
    const start = Math.max(xr[0], yr[0] - slope);
    line(start, start + slope, log(ridge), log(roofs.at(-1).v[0]));
    const perX = (state.width - margin.l - margin.r) / (xr[1] - xr[0]);
    const perY = (height - margin.t - margin.b) / (yr[1] - yr[0]);
    const angle = (-Math.atan(perY / perX) * 180) / Math.PI;
    const at = start + 0.3 * (log(ridge) - start);
    taken.push([(at - xr[0]) * perX, (at + slope - yr[0]) * perY, 110]);
    note(at, at + slope, `memory ${memory.v[1]}`, { textangle: angle, xshift: -9 * Math.sin((-angle * Math.PI) / 180), yshift: 9 * Math.cos((angle * Math.PI) / 180) });
  }
  let above = Infinity;
  let aside = 0;
  const perY = (height - margin.t - margin.b) / (yr[1] - yr[0]);
  for (const roof of [...roofs].reverse()) {
    const y = log(roof.v[0]);
    line(memory ? log(roof.v[0] / memory.v[0]) : xr[0], y, xr[1], y);
    aside = (above - y) * perY < 16 ? aside + 1 : 0; // roofs close together have their words side by side
    above = y;
    if (aside && state.narrow) continue; // no room; the peaks are also named below the figure
    note(xr[1], y, `${plain(roof.subject)} ${roof.v[1]}`, { xanchor: "right", yanchor: "bottom", xshift: -170 * aside, ...(aside && { bgcolor: t.paper }) });
  }
  const named = new Map();
  for (const d of dots) {
    if (d.subject !== "original") continue;
    if (!named.has(d.layer.op) || named.get(d.layer.op).time[0] < d.time[0]) named.set(d.layer.op, d);
  }
  const lowest = (d) => Math.min(...dots.filter((o) => o.layer.op === d.layer.op && Math.abs(log(o.x / d.x)) < 0.12).map((o) => o.y));
  const wide = state.width - margin.l - margin.r;
  const px = (d) => [((log(d.x) - xr[0]) / (xr[1] - xr[0])) * wide, ((log(d.y) - yr[0]) / (yr[1] - yr[0])) * (height - margin.t - margin.b)];
  // Whether a dot would stand under the word below (x, y).
  const covers = (o, x, y, size) => Math.abs(px(o)[0] - x) < size / 2 && y - px(o)[1] > 2 && y - px(o)[1] < 20;
  for (const d of [...named.values()].sort((a, b) => b.time[0] - a.time[0]).slice(0, state.narrow ? 5 : 8)) {
    const [x, y] = px({ x: d.x, y: lowest(d) });
    const text = d.layer.op === "scaled_dot_product_attention" ? "attention" : d.layer.op.replace(/_/g, " ");
    const size = 6.2 * text.length;
    if (dots.some((o) => o.layer.op !== d.layer.op && covers(o, x, y, size))) continue;
    if (taken.some(([a, b, s]) => Math.abs(x - a) < (size + s) / 2 && Math.abs(y - b) < 15)) continue;
    taken.push([x, y, size]);
    note(log(d.x), log(lowest(d)), plain(text), { yanchor: "top", yshift: -7, font: { size: 11.5, color: t.ink } });
  }
  const longest = Math.max(...dots.map((d) => d.time[0]), 1e-12);
  const hit = (d) => within(d.layer, state.selected);
  const trace = (some, color, symbol) => ({
    type: "scatter",
    mode: "markers",
    x: some.map((d) => d.x),
    y: some.map((d) => d.y),
    customdata: some.map((d) => d.layer.id),
    hovertext: some.map((d) =>
      [`<b>${plain(d.layer.id)}</b> ${plain(d.layer.op)}`, `${d.flops[1]} in ${d.time[1]}, ${d.intensity[1]}`,
        d.layer.v["roofline_time original"] && `${d.layer.v["roofline_time original"][1]} at the roof (modeled)`].filter(Boolean).join("<br>")),
    hoverinfo: "text",
    error_y: {
      type: "data", symmetric: false, width: 0, thickness: 1, color: t.faint,
      array: some.map((d) => (d.time[2] > 0 ? d.flops[0] / d.time[2] - d.y : 0)),
      arrayminus: some.map((d) => (d.time[3] > 0 ? d.y - d.flops[0] / d.time[3] : 0)),
    },
    marker: {
      color,
      symbol,
      size: some.map((d) => 5 + 13 * Math.sqrt(d.time[0] / longest)),
      opacity: some.map((d) => (state.selected === null || hit(d) ? 0.72 : 0.14)),
      line: { width: some.map((d) => (hit(d) ? 2 : 0.8)), color: some.map((d) => (hit(d) ? t.worse : t.paper)) },
    },
  });
  return {
    data: [
      trace(dots.filter((d) => d.subject === "original"), t.accent, "circle"),
      trace(dots.filter((d) => d.subject === "chosen"), t.accent, "diamond-open"),
    ],
    layout: layout(t, {
      height,
      margin,
      shapes,
      annotations: notes,
      hovermode: "closest",
      xaxis: axis(t, { type: "log", range: xr, dtick: 1, title: { text: "arithmetic intensity (FLOP/B)", font: { size: 12 } } }),
      yaxis: axis(t, { type: "log", range: yr, dtick: 1, tickformat: "~s", title: { text: "rate reached (FLOP/s)", font: { size: 12 }, standoff: 8 } }),
    }),
  };
}
