"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const resolved = (value, styles) => {
    if (typeof value === "string" && value.startsWith("var:")) return styles.getPropertyValue("--" + value.slice(4)).trim();
    if (value === "inherit") return styles.fontFamily;
    if (Array.isArray(value)) return value.map((item) => resolved(item, styles));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item, styles)]));
    }
    return value;
  };
  const draw = () => {
    const styles = getComputedStyle(document.body);
    for (const [key, figure] of Object.entries(figures)) {
      const { data, layout } = resolved(figure, styles);
      Plotly.react("chart-" + key, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
