"use strict";
// What all figures share: the data of the page, the library, and colours that follow the page's.

const D = JSON.parse(document.getElementById("figures").textContent);
const $ = (id) => document.getElementById(id);

function bytesOf(base64) {
  const letters = atob(base64), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i); // two million of them: no call for each
  return bytes;
}

/** plotly.js lies in the page as gzip; it runs as a script whose hash the page's policy names. */
async function loadPlotly() {
  const packed = new Blob([bytesOf($("plotly").textContent)]);
  const source = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  $("plotly").remove();
  if (!window.Plotly) throw new Error("plotly.js did not start");
}

const hasWebGL = (() => {
  try {
    return Boolean(document.createElement("canvas").getContext("webgl", { failIfMajorPerformanceCaveat: false }));
  } catch {
    return false;
  }
})();

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches && !document.documentElement.hasAttribute("data-print");
const LIGHT = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8200", "#7f7f7f"];
const DARK = ["#4ea3e0", "#f2b134", "#2fc29a", "#e394c3", "#9bd5f7", "#f28044", "#cbc43c", "#b4b4b4"];
const palette = () => (isDark() ? DARK : LIGHT);

/** Few classes have colours that are told apart by colour-blind people too; many go round the circle of hues. */
function colourOf(place, count) {
  if (count <= LIGHT.length) return palette()[place];
  const light = isDark() ? [68, 58, 78] : [45, 35, 56];
  return `hsl(${Math.round((place * 137.508) % 360)} 62% ${light[place % 3]}%)`;
}

function baseLayout(more) {
  const axis = { gridcolor: ink("--line"), zeroline: false, linecolor: ink("--line"), tickfont: { size: 12 }, automargin: true };
  const { xaxis, yaxis, ...rest } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink("--soft") },
    margin: { l: 52, r: 12, t: 12, b: 40 },
    hoverlabel: { bgcolor: ink("--panel"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

const PLAIN = { displayModeBar: false, responsive: true, displaylogo: false };

function drawCurves() {
  D.curves.forEach((figure, place) => {
    const epochs = figure.lines[0].values.map((_, epoch) => epoch + 1);
    const traces = figure.lines.map((line, number) => ({
      x: epochs, y: line.values, name: line.name, type: "scatter", mode: epochs.length < 40 ? "lines+markers" : "lines",
      line: { color: palette()[number], width: 2 }, marker: { size: 6 },
    }));
    const kept = D.chosen ? [{ type: "line", xref: "x", yref: "paper", x0: D.chosen, x1: D.chosen, y0: 0, y1: 1,
      line: { color: ink("--soft"), width: 1, dash: "dot" } }] : [];
    const layout = baseLayout({
      shapes: kept, showlegend: figure.lines.length > 1, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      margin: { l: 52, r: 12, t: figure.lines.length > 1 ? 34 : 12, b: 44 }, hovermode: "x unified",
      xaxis: { title: { text: "epoch" }, dtick: epochs.length <= 12 ? 1 : undefined },
      yaxis: { title: { text: figure.y }, rangemode: "tozero" },
    });
    Plotly.react($(`curve-${place}`), traces, layout, PLAIN);
  });
}

function drawClasses(choose) {
  const known = D.classes.map((one, place) => ({ ...one, place })).filter((one) => one.ndcg !== undefined);
  known.sort((a, b) => a.ndcg - b.ndcg);
  const box = $("class-plot");
  if (!known.length) return;
  const fits = known.length <= 25;
  const trace = {
    x: known.map((_, rank) => rank + 1), y: known.map((one) => one.ndcg), text: known.map((one) => one.name),
    customdata: known.map((one) => one.place), type: known.length > 1500 && hasWebGL ? "scattergl" : "scatter", mode: "markers",
    marker: { size: known.length > 300 ? 4 : 8, color: ink("--accent") },
    hovertemplate: `%{text}<br>nDCG@${D.map.k} %{y:.3f}<extra></extra>`,
  };
  const names = fits ? { tickvals: trace.x, ticktext: trace.text.map((name) => name.length > 22 ? `${name.slice(0, 21)}…` : name) } : { title: { text: "class, by rank" } };
  Plotly.react(box, [trace], baseLayout({
    xaxis: { ...names, showgrid: false, range: [0.4, known.length + 0.6] },
    yaxis: { title: { text: `nDCG@${D.map.k}` }, range: [-0.03, 1.03] }, hovermode: "closest",
  }), PLAIN);
  box.removeAllListeners("plotly_click");
  box.on("plotly_click", (event) => choose([event.points[0].customdata]));
}
