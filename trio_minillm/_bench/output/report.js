"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("plots").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Set();

  function themed(layout, isDark) {
    const text = isDark ? "#e8eaed" : "#1a1d21", grid = isDark ? "#363c45" : "#d8dde3";
    const found = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: grid, activecolor: text },
      font: { color: text, family: "system-ui, sans-serif", size: 12 },
    };
    for (const name of Object.keys(layout))
      if (/^[xy]axis/.test(name))
        found[name] = { ...layout[name], gridcolor: grid, zerolinecolor: grid, linecolor: grid };
    return found;
  }

  async function draw(place, isDark) {
    const spec = specs[Number(place.dataset.plot)];
    const options = { displaylogo: false, responsive: true };
    await Plotly.react(place, spec.data, themed(spec.layout, isDark), options);
    drawn.add(place);
    document.documentElement.dataset.drawn = String(drawn.size);
  }

  // A plot in a section that is closed has no size: it is drawn when the section is opened.
  function drawAll(isDark = dark.matches) {
    for (const place of document.querySelectorAll(".plot"))
      if (!place.closest("details:not([open])")) draw(place, isDark);
  }

  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", () => drawAll());
  dark.addEventListener("change", () => drawAll());
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const part of closed) part.open = true;
    drawAll(false);
  });
  addEventListener("afterprint", () => {
    for (const part of closed) part.open = false;
    drawAll();
  });
  drawAll();
})();
