// The module tree: area by time or by weights, color by time or by precision.
function treeFigure(D, t, state) {
  const areaKey = state.area === "weights" ? "weight_bytes original" : D.timeKey;
  const nodes = D.tree.filter((n) => n.sums[areaKey] > 0);
  const layers = new Map(D.layers.map((layer) => [layer.id, layer]));
  const total = (key) => D.tree[0].sums[key] || 1;
  const leaf = (n) => layers.has(n.id) && n.count === 1;
  const largest = Math.max(...nodes.filter(leaf).map((n) => (n.sums[D.timeKey] || 0) / total(D.timeKey)), 1e-9);
  const bits = (n) => layers.get(n.id)?.v["weight_bits chosen"]?.[0];
  const share = (n) => {
    if (!leaf(n)) return 0;
    if (state.color === "time") return (n.sums[D.timeKey] || 0) / total(D.timeKey) / largest;
    return bits(n) === undefined ? 0 : bitShare(bits(n));
  };
  const fill = (n) => (!leaf(n) ? t.panel : state.color === "precision" && !bits(n) ? t.panel : shade(t.seq, share(n)));
  const percent = (n, key) => ((100 * (n.sums[key] || 0)) / total(key)).toPrecision(2) + " %";
  const hover = (n) =>
    [
      `<b>${plain(n.id || D.model)}</b>`,
      n.texts[D.timeKey] && `${n.texts[D.timeKey]} · ${percent(n, D.timeKey)} of the ${D.timeName}`,
      n.texts["node_time chosen"] && `${n.texts["node_time chosen"]} in the kept artifact`,
      n.texts["weight_bytes original"] && `${n.texts["weight_bytes original"]} of weights (fp32)`,
      leaf(n) && bits(n) && `${bits(n)} bit weights, ${layers.get(n.id).v["activation_bits chosen"]?.[0] ?? "?"} bit activations`,
    ].filter(Boolean).join("<br>");
  const caption = (n) => {
    if (!leaf(n)) return "";
    if (state.color === "precision") return bits(n) ? `${bits(n)} bit` : "";
    return n.texts[state.area === "weights" ? areaKey : D.timeKey] || "";
  };
  const chosen = (n) => state.selected !== null && n.id === state.selected;
  const key = document.getElementById("tree-key");
  key.replaceChildren();
  if (state.color === "time") {
    key.append(ramp(t, t.seq, "0 %", `${(100 * largest).toPrecision(2)} % of the ${D.timeName}`));
  } else {
    const used = [...new Set(nodes.filter(leaf).map(bits).filter(Boolean))].sort((a, b) => a - b);
    for (const b of used) key.append(swatch(t, shade(t.seq, bitShare(b)), `${b} bit weights`));
    key.append(swatch(t, t.panel, "no weights"));
  }
  return {
    data: [
      {
        type: "treemap",
        ids: nodes.map((n) => n.id || "/"),
        labels: nodes.map((n) => plain(n.label)),
        parents: nodes.map((n, i) => (i === 0 ? "" : n.parent || "/")),
        values: nodes.map((n) => n.sums[areaKey]),
        branchvalues: "total",
        level: state.level,
        customdata: nodes.map((n) => n.id),
        text: nodes.map(caption),
        texttemplate: "%{label}<br>%{text}",
        hovertext: nodes.map(hover),
        hoverinfo: "text",
        textfont: { color: nodes.map((n) => (leaf(n) ? inkOn(t, fill(n)) : t.soft)), size: 11.5 },
        marker: {
          colors: nodes.map(fill),
          line: { width: nodes.map((n) => (chosen(n) ? 3 : 1)), color: nodes.map((n) => (chosen(n) ? t.worse : t.paper)) },
          pad: { t: 19, l: 3, r: 3, b: 3 },
          cornerradius: 2,
        },
        tiling: { packing: "squarify", squarifyratio: state.narrow ? 1 : 1.6, pad: 1 },
        pathbar: { visible: false }, // the page has its own trail
        root: { color: "rgba(0,0,0,0)" },
        sort: false, // in order of execution
      },
    ],
    layout: layout(t, { margin: { l: 0, r: 0, t: 0, b: 0 }, uniformtext: { minsize: 9, mode: "hide" }, height: state.narrow ? 560 : 500 }),
  };
}
