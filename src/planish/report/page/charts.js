// Numbers over epochs or rounds: lines with their intervals, or bars from zero.
for (const chart of D.charts ?? []) FIGURES[chart.id] = (_, t, state) => chartFigure(chart, t, state);

function chartFigure(chart, t, state) {
  const colors = [t.accent, t.plain, t.soft];
  const values = chart.lines.flatMap((line) => line.y);
  const all = [...new Set(chart.lines.flatMap((line) => line.x))];
  const most = Math.max(...values);
  const steep = !chart.bars && Math.min(...values) > 0 && most / Math.min(...values) > 50;
  const several = chart.lines.length > 1;
  const hover = (line) => line.x.map((x, i) => `${plain(chart.across)} ${x}<br>${plain(line.name)} <b>${plain(line.texts[i])}</b>`);
  const drawn = chart.lines.map((line, i) => ({
    ...(chart.bars ? { type: "bar", marker: { color: colors[i] } } : { type: "scatter", mode: line.x.length > 60 ? "lines" : "lines+markers", line: { color: colors[i], width: 2 }, marker: { color: colors[i], size: 6 } }),
    name: plain(line.name), x: line.x, y: line.y, customdata: line.rows, hovertext: hover(line), hoverinfo: "text",
  }));
  const bands = chart.lines.filter((line) => !chart.bars && line.spread.every(Boolean)).flatMap((line) => band(t, line.x, line.spread));
  const bytes = chart.unit === "B";
  return {
    data: [...bands, ...drawn],
    layout: layout(t, {
      height: state.narrow ? 250 : 290, margin: { l: bytes ? 62 : 56, r: 12, t: several ? 30 : 10, b: 44 }, hovermode: "closest", barmode: "group",
      bargap: 0.35, showlegend: several, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      xaxis: axis(t, { title: { text: plain(chart.across), font: { size: 12 } }, showgrid: false, ...(all.length <= 12 ? { tickvals: all } : { tickformat: "d" }), range: [all[0] - 0.5, all.at(-1) + 0.5] }),
      yaxis: axis(t, { type: steep ? "log" : "linear", ...(bytes ? { tickformat: "~s", ticksuffix: "B" } : {}), ...(chart.bars ? { range: [0, 1.08 * most] } : {}), nticks: 6 }),
    }),
  };
}
