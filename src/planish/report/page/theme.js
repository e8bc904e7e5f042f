// Colors and type of the figures: read from the style sheet, so that page and figures cannot disagree.
function theme() {
  const css = getComputedStyle(document.documentElement);
  const color = (name) => css.getPropertyValue("--" + name).trim();
  const names = ["paper", "panel", "ink", "soft", "faint", "line", "accent", "worse", "plain", "on-dark"];
  const t = Object.fromEntries(names.map((name) => [name, color(name)]));
  for (const scale of ["seq", "loss"]) t[scale] = [0, 1, 2, 3, 4].map((i) => color(`${scale}-${i}`));
  t.font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: t.soft };
  return t;
}

// A plotly color scale of five stops.
function stops(colors) {
  return colors.map((color, i) => [i / (colors.length - 1), color]);
}

// The color at `share` (0 to 1) of a five-stop scale.
function shade(colors, share) {
  const at = Math.max(0, Math.min(1, share)) * (colors.length - 1);
  const low = Math.min(Math.floor(at), colors.length - 2);
  const [a, b] = [rgb(colors[low]), rgb(colors[low + 1])];
  return `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * (at - low))).join(",")})`;
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// The ink that contrasts more with a color (`rgb(…)` or `#rrggbb`).
function inkOn(t, color) {
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const at = luminance(color);
  return ratio(luminance(t.ink), at) >= ratio(luminance(t["on-dark"]), at) ? t.ink : t["on-dark"];
}

function luminance(color) {
  const parts = color.startsWith("#") ? rgb(color) : color.match(/\d+/g).map(Number);
  const [r, g, b] = parts.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// Fewer bits, stronger color; 32 bits stay plain.
function bitShare(bits) {
  return bits >= 32 ? 0 : bits >= 16 ? 0.3 : bits >= 8 ? 0.8 : bits > 4 ? 0.9 : 1;
}

function layout(t, more) {
  return Object.assign(
    {
      font: t.font,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      hoverlabel: { bgcolor: t.paper, bordercolor: t.line, font: { ...t.font, color: t.ink }, align: "left" },
      dragmode: false,
    },
    more
  );
}

function axis(t, more) {
  return Object.assign(
    { gridcolor: t.line, linecolor: t.line, zeroline: false, tickcolor: t.line, fixedrange: true, automargin: false },
    more
  );
}

// plotly reads a little HTML in its texts; names come from the user's model.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function swatch(t, color, text) {
  const span = document.createElement("span");
  const box = document.createElement("b");
  box.style.background = color;
  span.append(box, text);
  return span;
}

function ramp(t, colors, from, to) {
  const span = document.createElement("span");
  const box = document.createElement("b");
  box.className = "ramp";
  box.style.background = `linear-gradient(to right, ${colors.join(",")})`;
  span.append(from, box, to);
  return span;
}

function shorten(text, most) {
  return text.length <= most ? text : "…" + text.slice(text.length - Math.max(0, Math.floor(most) - 1));
}
