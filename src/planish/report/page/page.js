// Four figures, and a selection that all of them share.
Object.assign(state, { selected: null, area: "time", color: "time", level: undefined });
Object.assign(FIGURES, { tree: treeFigure, roofline: rooflineFigure, maps: mapsFigure, engines: enginesFigure });
LISTENERS.push(listen);

// Whether a layer is selected, itself or by a module above it.
function within(layer, selected) {
  return selected !== null && (selected === "" || layer.id === selected || layer.path === selected || layer.id.startsWith(selected + "."));
}

function select(id) {
  state.selected = id === state.selected ? null : id;
  draw(["tree", "roofline", "maps"]);
  for (const row of document.querySelectorAll("tr[data-layer]")) {
    const layer = D.layers.find((l) => l.id === row.dataset.layer);
    row.classList.toggle("selected", within(layer, state.selected));
  }
  describe();
}

// Shows the tree below one module, and selects that module; undefined is the whole model.
function enter(id) {
  state.level = id;
  state.selected = null;
  select(id ?? null);
  const nodes = new Map(D.tree.map((n) => [n.id, n]));
  const above = [];
  for (let n = nodes.get(id); n && n.id !== ""; n = nodes.get(n.parent)) above.unshift(n);
  const trail = document.getElementById("trail");
  trail.hidden = id === undefined;
  trail.replaceChildren(
    ...[D.tree[0], ...above].flatMap((n, i) => {
      const last = i === above.length;
      const step = document.createElement(last ? "span" : "button");
      step.textContent = n.label;
      step.addEventListener("click", () => last || enter(n.id || undefined));
      return i ? [" / ", step] : [step];
    })
  );
}

// The panel at the foot: what is known about the selected layer, or about the layers of the selected module.
function describe() {
  const panel = document.getElementById("selection");
  panel.hidden = state.selected === null;
  if (panel.hidden) return;
  const layer = D.layers.find((l) => l.id === state.selected);
  const module = D.tree.find((n) => n.id === state.selected);
  const name = document.createElement("b");
  name.textContent = state.selected || D.model;
  const facts = document.createElement("div");
  facts.className = "facts";
  const fact = (label, value) => {
    if (!value) return;
    const span = document.createElement("span");
    const number = document.createElement("em");
    number.textContent = value;
    span.append(label + " ", number);
    facts.append(span);
  };
  if (layer) {
    const text = (key) => layer.v[key]?.[1];
    fact("", layer.op);
    fact("time", [text("node_time original"), text("node_time chosen")].filter(Boolean).join(" → "));
    fact("roofline", text("roofline_time original"));
    fact("", text("macs original"));
    fact("weights", layer.v["weight_bytes original"]?.[0] ? text("weight_bytes original") : "");
    fact("weights at", text("weight_bits chosen"));
    fact("activations at", text("activation_bits chosen"));
    for (const format of D.formats) fact(format, text(`sensitivity ${format}`));
  } else if (module) {
    fact("", `${module.count} layers`);
    fact("time", module.texts["node_time original"]);
    fact("of which kept artifact measured", module.texts["node_time chosen"]);
    fact("weights", module.texts["weight_bytes original"]);
    fact("", module.texts["macs original"]);
  }
  document.getElementById("selected").replaceChildren(name, facts);
}

function listen() {
  const at = (name) => document.getElementById(name);
  at("tree")?.on?.("plotly_treemapclick", (event) => {
    const point = event.points[0];
    const layer = D.layers.some((l) => l.id === point.customdata);
    if (layer) select(point.customdata);
    else enter(event.nextLevel === "/" ? undefined : event.nextLevel);
    return false; // the figure is a function of the state: plotly must not keep a level of its own
  });
  at("roofline")?.on?.("plotly_click", (event) => select(event.points[0].customdata));
  at("maps")?.on?.("plotly_click", (event) => select([event.points[0].customdata].flat()[0]));
  at("clear").addEventListener("click", () => select(null));
  document.addEventListener("keydown", (event) => event.key === "Escape" && state.selected !== null && select(null));
  for (const row of document.querySelectorAll("tr[data-layer]")) {
    row.addEventListener("click", () => select(row.dataset.layer));
    row.addEventListener("keydown", (event) => event.key === "Enter" && select(row.dataset.layer));
  }
  for (const field of document.querySelectorAll("fieldset[data-state]")) {
    field.addEventListener("click", (event) => {
      if (event.target.tagName !== "BUTTON") return;
      state[field.dataset.state] = event.target.value;
      for (const button of field.querySelectorAll("button")) button.setAttribute("aria-pressed", button === event.target);
      draw(["tree"]);
    });
  }
}
