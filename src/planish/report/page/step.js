// A training step by module: what waits for the backward pass, of it what could be saved, and both passes' arithmetic.
state.saves = "";
Object.assign(FIGURES, { kept: keptFigure, passes: passesFigure });
LISTENERS.push(() => {
  const field = document.querySelector("fieldset[data-saves]");
  field?.addEventListener("click", (event) => {
    if (event.target.tagName !== "BUTTON") return;
    state.saves = event.target.value;
    for (const button of field.querySelectorAll("button")) button.setAttribute("aria-pressed", button === event.target);
    draw(["kept"]);
  });
});

// As many of a path's last components as there is room for.
function ending(label, room) {
  const parts = label.split(".");
  while (parts.length > 1 && parts.join(".").length > room) parts.shift();
  return shorten(parts.join("."), room);
}

// Bars by module, one upon the other: `series` is [name, color, value of a module, its text].
function byModule(modules, t, state, title, unit, series) {
  const at = modules.map((_, i) => i);
  const room = state.narrow ? 20 : 30;
  return {
    data: series.map(([name, color, value, text]) => ({
      type: "bar", orientation: "h", name, x: modules.map(value), y: at, customdata: modules.map((m) => m.path), marker: { color },
      hovertext: modules.map((m) => `<b>${plain(m.path || "the model")}</b><br>${text(m)}`), hoverinfo: "text",
    })),
    layout: layout(t, {
      height: 74 + 21 * modules.length, margin: { l: Math.min(7.2 * Math.max(...modules.map((m) => Math.min(m.label.length, room))) + 12, state.width / 2), r: 14, t: series.length > 1 ? 30 : 6, b: 42 },
      barmode: "stack", bargap: 0.3, hovermode: "closest", showlegend: series.length > 1, legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom", traceorder: "normal" },
      xaxis: axis(t, { rangemode: "tozero", tickformat: "~s", ticksuffix: unit, nticks: state.narrow ? 4 : 6, title: { text: title, font: { size: 12 } } }),
      yaxis: axis(t, { tickvals: at, ticktext: modules.map((m) => plain(ending(m.label, room))), range: [modules.length - 0.4, -0.6], showgrid: false, tickfont: { size: 11 } }),
    }),
  };
}

function keptFigure(D, t, state) {
  const how = state.saves;
  const saved = (m) => (how ? m.saved[how] ?? 0 : 0);
  const text = (m) => [`keeps ${m.texts.kept}`, m.texts.recompute && `${m.texts.recompute} fewer if computed again`, m.texts.bf16 && `${m.texts.bf16} fewer in bf16`, m.texts.fp8 && `${m.texts.fp8} fewer in fp8`].filter(Boolean).join("<br>");
  const stays = ["stays", t.accent, (m) => m.kept - saved(m), text];
  const modules = D.step.filter((m) => m.kept);
  return byModule(modules, t, state, "kept for the backward pass", "B", how ? [stays, ["saved", t.seq[1], saved, text]] : [stays]);
}

function passesFigure(D, t, state) {
  const text = (m) => `forward ${m.texts.forward}<br>backward ${m.texts.backward}`;
  const modules = D.step.filter((m) => m.forward || m.backward);
  return byModule(modules, t, state, "arithmetic", "FLOP", [
    ["forward", t.accent, (m) => m.forward, text],
    ["backward", t.seq[1], (m) => m.backward, text],
  ]);
}
