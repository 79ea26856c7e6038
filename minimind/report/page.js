"use strict";
// Reads a value off the curves under the pointer; the page is whole without it.
function shorten(value, percent) {
  if (percent) return (100 * value).toPrecision(3) + "%";
  const size = Math.abs(value);
  if (size >= 1e6) return (value / 1e6).toPrecision(4) + "M";
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size && size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}
function points(path) {
  return [...path.getAttribute("d").matchAll(/[ML]([-\d.]+) ([-\d.]+)/g)].map((m) => [+m[1], +m[2]]);
}
function readValues(plot) {
  const svg = plot.querySelector("svg");
  const box = svg.viewBox.baseVal;
  const [x0, x1] = plot.dataset.x.split(" ").map(Number);
  const [y0, y1] = plot.dataset.y.split(" ").map(Number);
  const log = plot.dataset.log === "1";
  const toY = (place) => {
    const share = 1 - place / box.height;
    return log ? y0 * (y1 / y0) ** share : y0 + (y1 - y0) * share;
  };
  let curves = null;
  let rule = null;
  let tip = null;
  const leave = () => { if (rule) { rule.remove(); tip.remove(); rule = tip = null; } };
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("pointermove", (event) => {
    curves ??= [...svg.querySelectorAll(".curve:not(.faint)")].map((path) => [path, points(path)]);
    const frame = svg.getBoundingClientRect();
    const at = ((event.clientX - frame.left) / frame.width) * box.width;
    if (at < -10 || at > box.width + 10 || !curves.length) return leave();
    const near = curves.map(([path, list]) => [path, list.reduce((best, p) =>
      Math.abs(p[0] - at) < Math.abs(best[0] - at) ? p : best, [Infinity, 0])]);
    const x = near.reduce((best, [, p]) => Math.abs(p[0] - at) < Math.abs(best - at) ? p[0] : best, Infinity);
    if (!Number.isFinite(x)) return leave();
    if (!rule) {
      rule = document.createElement("div");
      rule.className = "rule";
      tip = document.createElement("div");
      tip.className = "tip";
      plot.append(rule, tip);
    }
    const pixel = frame.left - plot.getBoundingClientRect().left + (x / box.width) * frame.width;
    rule.style.left = pixel + "px";
    tip.replaceChildren();
    const head = document.createElement("div");
    head.textContent = plot.dataset.axis + " " + Math.round(x0 + ((x1 - x0) * x) / box.width).toLocaleString("en");
    head.className = "soft";
    tip.append(head);
    for (const [path, p] of near) {
      if (Math.abs(p[0] - x) > box.width / 50) continue;
      const row = document.createElement("div");
      const swatch = document.createElement("span");
      swatch.className = "swatch " + path.getAttribute("class").replace("curve", "");
      row.append(swatch, path.dataset.label + " ");
      const value = document.createElement("b");
      value.textContent = shorten(toY(p[1]), plot.dataset.percent === "1");
      row.append(value);
      tip.append(row);
    }
    const onRight = pixel > plot.clientWidth / 2;
    tip.style.left = onRight ? "" : pixel + 10 + "px";
    tip.style.right = onRight ? plot.clientWidth - pixel + 10 + "px" : "";
  });
}
document.querySelectorAll(".plot").forEach(readValues);
