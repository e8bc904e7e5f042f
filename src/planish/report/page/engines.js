// Latency of every engine that was measured: a bar, its whisker, and its words above it.
function enginesFigure(D, t, state) {
  const engines = D.engines;
  const color = (e) => ({ chosen: t.accent, baseline: t.soft })[e.role] || t.plain;
  const role = (e) => ({ chosen: "kept", baseline: "best fp32", eager: state.narrow ? "" : "where it started" })[e.role];
  const words = (e) => {
    const [, ratio, low, high] = e.ratio || [];
    const factor = e.ratio ? ` · ${ratio}${low === null || state.narrow ? "" : ` (${low.toFixed(2)} to ${high.toFixed(2)})`}` : "";
    return `<b>${plain(e.label)}</b>${role(e) ? ` ${role(e)}` : ""}  ${e.latency[1]}${factor}`;
  };
  const at = engines.map((_, i) => i);
  const most = Math.max(...engines.map((e) => e.latency[3] ?? e.latency[0]), 1e-9);
  const [scale, unit] = most < 1e-3 ? [1e6, "µs"] : most < 1 ? [1e3, "ms"] : [1, "s"];
  const ticks = steps(most * scale, state.narrow ? 3 : 6);
  return {
    data: [
      {
        type: "bar",
        orientation: "h",
        x: engines.map((e) => e.latency[0]),
        y: at,
        width: 0.3,
        customdata: engines.map((e) => e.label),
        marker: { color: engines.map(color) },
        hovertext: engines.map((e) => `<b>${plain(e.label)}</b><br>${e.latency[0]} s`),
        hoverinfo: "text",
        error_x: {
          type: "data",
          symmetric: false,
          array: engines.map((e) => (e.latency[3] === null ? 0 : e.latency[3] - e.latency[0])),
          arrayminus: engines.map((e) => (e.latency[2] === null ? 0 : e.latency[0] - e.latency[2])),
          color: t.ink,
          thickness: 1.2,
          width: 4,
        },
      },
    ],
    layout: layout(t, {
      height: 52 * engines.length + 56,
      margin: { l: 2, r: 8, t: 4, b: 44 },
      hovermode: "closest",
      xaxis: axis(t, { range: [0, 1.03 * most], tickvals: ticks.map((x) => x / scale), ticktext: ticks.map(String), title: { text: `median latency of a call (${unit})`, font: { size: 12 } } }),
      yaxis: axis(t, { range: [engines.length - 0.6, -0.75], showticklabels: false, showgrid: false }),
      annotations: engines.map((e, i) => ({
        x: 0, xref: "x", xanchor: "left", y: i, yanchor: "bottom", yshift: 7, showarrow: false, align: "left",
        text: words(e), font: { size: 12.5, color: e.role === "chosen" ? t.accent : t.ink },
      })),
    }),
  };
}

// Round numbers from 0 to `most`, about `count` of them.
function steps(most, count) {
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((x) => x * power >= rough);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}
