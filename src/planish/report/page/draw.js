// What every page shares: the data, one state, figures that are functions of both, drawn again when the page changes.
const D = JSON.parse(document.getElementById("data").textContent);
const state = { narrow: false, width: 0, paper: 0 };
const FIGURES = {}; // element -> (data, theme, state) -> what plotly draws, or null where there is nothing to see
const LISTENERS = []; // called once, when everything is drawn
const NARROW = 640;

function draw(names = Object.keys(FIGURES)) {
  const t = theme();
  for (const name of names) {
    const at = document.getElementById(name);
    if (!at) continue;
    state.width = state.paper || at.parentElement.clientWidth;
    state.narrow = state.width < NARROW;
    const figure = FIGURES[name](D, t, state);
    at.hidden = !figure?.data.some((trace) => (trace.ids || trace.z || trace.x).length);
    if (at.hidden) continue;
    figure.layout.width = state.width;
    Plotly.react(at, figure.data, figure.layout, { displayModeBar: false, responsive: false });
    at.style.minHeight = `${figure.layout.height}px`;
  }
}

function follow() {
  let width = document.body.clientWidth;
  addEventListener("resize", () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    requestAnimationFrame(() => draw());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
}

// On paper: the light theme, and the width of a page.
function paper(on) {
  document.documentElement.dataset.theme = on ? "light" : "";
  for (const fold of document.querySelectorAll("details.onpaper")) fold.open = on || fold.open;
  state.paper = on ? 680 : 0;
  draw();
}

// From the least to the most at each place; `spread` has pairs.
function band(t, x, spread, shape = "linear") {
  const edge = { type: "scatter", mode: "lines", x, line: { width: 0, shape }, hoverinfo: "skip", showlegend: false };
  return [{ ...edge, y: spread.map((s) => s[0]) }, { ...edge, y: spread.map((s) => s[1]), fill: "tonexty", fillcolor: t.seq[1], opacity: 0.55 }];
}
