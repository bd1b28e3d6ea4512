"use strict";
// The figures were built in Python; here they get the reader's colours, and the map its pictures, keys and filters.

const D = JSON.parse(document.getElementById("figures").textContent), M = D.map;
const $ = (id) => document.getElementById(id);
const ACROSS = 32; // cells in a row and in a column of a sprite
const PLAIN = { displayModeBar: false, responsive: true, displaylogo: false };
const box = $("points"), tip = $("tip"), status = $("status");
const kinds = M.layers.flatMap((layer, number) => Array(layer.shown).fill(number));
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches && !document.documentElement.hasAttribute("data-print");
const state = {
  view: 0, colour: "class", chosen: new Set(), shown: [], at: -1, drag: !matchMedia("(pointer: coarse)").matches, dark: isDark(),
};

function bytesOf(base64) {
  const letters = atob(base64), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i); // two million of them: no call for each
  return bytes;
}

/** plotly.js is in the page as gzip; it runs as a script whose hash the page's policy names. */
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
    return Boolean(document.createElement("canvas").getContext("webgl"));
  } catch {
    return false; // some browsers forbid canvases by an exception
  }
})();
const look = () => D.templates[state.dark ? "dark" : "light"];

function plot(target, figure, config = {}) {
  const { data, layout } = structuredClone(figure); // plotly writes into what it is given
  for (const trace of data) if (!hasWebGL) trace.type = "scatter";
  return Plotly.react(target, data, { ...layout, template: look() }, { ...PLAIN, ...config });
}

/** Few classes have colours that colour-blind readers tell apart; many go round the circle of hues. */
function colourOf(place) {
  const few = look().layout.colorway;
  if (D.classes.length <= few.length) return few[place];
  return `hsl(${Math.round((place * 137.508) % 360)} 62% ${(state.dark ? [68, 58, 78] : [45, 35, 56])[place % 3]}%)`;
}

function colourOfNdcg(value) {
  return value === null ? look().layout.xaxis.gridcolor : `hsl(${Math.round(value * 215)} 75% ${state.dark ? 62 : 44}%)`;
}

function draw() {
  const on = [...document.querySelectorAll("[data-layer]")].map((input) => input.checked), { x, y } = M.views[state.view];
  state.shown = [...kinds.keys()].filter((i) => on[kinds[i]] && (!state.chosen.size || state.chosen.has(M.classes[i])));
  hide();
  const colour = state.colour === "class" ? (i) => colourOf(M.classes[i]) : (i) => colourOfNdcg(M.ndcg[i]);
  const size = state.shown.length > 4000 ? 4 : state.shown.length > 800 ? 6 : 8;
  const data = M.figure.data.map((trace, number) => {
    const points = state.shown.filter((i) => kinds[i] === number);
    return {
      ...trace, x: points.map((i) => x[i]), y: points.map((i) => y[i]), customdata: points,
      marker: { size, ...trace.marker, color: points.map(colour) },
    };
  });
  const layout = { ...M.figure.layout, dragmode: state.drag ? "pan" : false, uirevision: state.view };
  const done = plot(box, { data, layout }, { scrollZoom: true, doubleClick: "reset" });
  say();
  return done;
}

function drawCharts() {
  D.curves.forEach((figure, number) => plot($(`curve-${number}`), figure));
  if (D.class_figure) plot($("class-plot"), D.class_figure);
}

function drawAll() {
  state.dark = isDark();
  draw();
  drawCharts();
  chips();
}

/** The visible points in words. */
function say() {
  const counts = M.layers.map((layer, number) => [state.shown.filter((i) => kinds[i] === number).length, layer.name]);
  let words = counts.filter(([count]) => count).map(([count, name]) => `${count.toLocaleString("en")} ${name}`).join(", ") || "nothing";
  if (state.chosen.size === 1) {
    const chosen = D.classes[[...state.chosen][0]];
    if (chosen.ndcg !== undefined) {
      words += ` · nDCG@${M.k} ${chosen.ndcg.toFixed(3)}, recall@1 ${chosen.recall.toFixed(3)} over ${chosen.queries} queries`;
      if (chosen.confused.length) words += " · finds instead: " + chosen.confused.map(([name, share]) => `${name} ${(100 * share).toFixed(0)} %`).join(", ");
    } else if (chosen.queries === undefined) {
      words += " · a class that trained; its items are not among the queries";
    }
  }
  if (state.colour === "ndcg") words += ` · colour: nDCG@${M.k} from 0, red, over yellow and green to 1, blue; grey has none`;
  status.textContent = `Shown: ${words}`;
}

const packed = [...document.querySelectorAll("script[data-side]")], sheets = new Map();
function sheet(number) {
  if (!sheets.has(number)) {
    sheets.set(number, URL.createObjectURL(new Blob([bytesOf(packed[number].textContent)], { type: "image/webp" })));
  }
  return sheets.get(number);
}

/** The thumbnail of a point; a sprite is unpacked when its first thumbnail is shown. */
function picture(i) {
  if (!packed.length || i >= M.pictures) return null;
  const perSheet = ACROSS * ACROSS, cell = i % perSheet, number = Math.floor(i / perSheet);
  const across = Math.min(ACROSS, M.pictures - number * perSheet), side = 112;
  const thumb = document.createElement("div");
  thumb.className = "thumb";
  thumb.style.cssText = `width:${side}px;height:${side}px;background-image:url(${sheet(number)});`
    + `background-size:${across * side}px auto;background-position:${-(cell % ACROSS) * side}px ${-Math.floor(cell / ACROSS) * side}px`;
  return thumb;
}

function line(text, kind = "") {
  const p = document.createElement("p");
  p.textContent = text;
  p.className = kind;
  return p;
}

/** Where a point is in the map, in pixels. */
function place(i) {
  const { xaxis, yaxis } = box._fullLayout, { x, y } = M.views[state.view];
  return [xaxis.c2p(x[i]), yaxis.c2p(y[i])];
}

function show(i) {
  const kind = M.layers[kinds[i]].kind, own = D.classes[M.classes[i]].name, ndcg = M.ndcg[i];
  const value = kind === "query" ? (ndcg === null ? "nothing to find" : `nDCG@${M.k} ${ndcg.toFixed(2)}`) : { gallery: "gallery item", training: "training item", proxy: "" }[kind];
  tip.replaceChildren(...[picture(i), line(own), line(M.names[i], "soft"), value && line(value)].filter(Boolean));
  tip.dataset.point = state.at = i;
  tip.hidden = false;
  const [x, y] = place(i), right = x + 14 + tip.offsetWidth > box.clientWidth;
  tip.style.left = `${Math.max(4, right ? x - 14 - tip.offsetWidth : x + 14)}px`;
  tip.style.top = `${Math.min(Math.max(4, y - tip.offsetHeight / 2), box.clientHeight - tip.offsetHeight - 4)}px`;
  return `${own}, ${M.names[i]}${value ? `, ${value}` : ""}`;
}

function hide() {
  tip.hidden = true;
  state.at = -1;
}

function zoom(factor, dx = 0, dy = 0) {
  const range = (axis, step) => {
    const [low, high] = axis.range, middle = (low + high) / 2 + step * (high - low), half = ((high - low) / 2) * factor;
    return [middle - half, middle + half];
  };
  hide();
  const { xaxis, yaxis } = box._fullLayout;
  return Plotly.relayout(box, { "xaxis.range": range(xaxis, dx), "yaxis.range": range(yaxis, dy) });
}

function all() {
  hide();
  const { xaxis, yaxis } = M.figure.layout;
  return Plotly.relayout(box, { "xaxis.range": [...xaxis.range], "yaxis.range": [...yaxis.range] });
}

/** To the next visible point, from left to right. */
function step(by) {
  const { xaxis, yaxis } = box._fullLayout, { x, y } = M.views[state.view];
  const inside = (axis, value) => value >= axis.range[0] && value <= axis.range[1];
  const seen = state.shown.filter((i) => inside(xaxis, x[i]) && inside(yaxis, y[i])).sort((a, b) => x[a] - x[b] || a - b);
  if (!seen.length) return;
  const now = seen.indexOf(state.at);
  status.textContent = show(seen.at(now < 0 ? (by > 0 ? 0 : -1) : (now + by) % seen.length));
}

function choose(places, scroll = true) {
  state.chosen = new Set(places);
  // a training class has no queries: its own items are what there is to see
  if (places.some((place) => D.classes[place].queries === undefined)) {
    document.querySelectorAll('[data-kind="training"], [data-kind="proxy"]').forEach((input) => { input.checked = true; });
  }
  chips();
  draw();
  if (scroll) $("map").scrollIntoView();
}

function chips() {
  $("chips").replaceChildren(...[...state.chosen].map((place) => {
    const button = document.createElement("button"), dot = document.createElement("i");
    button.type = "button";
    dot.style.background = colourOf(place);
    button.append(dot, `${D.classes[place].name} ×`);
    button.setAttribute("aria-label", `Show no longer ${D.classes[place].name}`);
    button.onclick = () => { state.chosen.delete(place); chips(); draw(); $("class").focus(); };
    return button;
  }));
}

const pressed = () => document.querySelector('[data-do="drag"]').setAttribute("aria-pressed", state.drag);
const ACTIONS = {
  in: () => zoom(0.6), out: () => zoom(1 / 0.6), reset: all, next: () => step(1), previous: () => step(-1),
  drag: () => { state.drag = !state.drag; pressed(); Plotly.relayout(box, { dragmode: state.drag ? "pan" : false }); },
};
const KEYS = {
  "+": ACTIONS.in, "=": ACTIONS.in, "-": ACTIONS.out, 0: all, n: ACTIONS.next, p: ACTIONS.previous, Escape: hide,
  ArrowLeft: () => zoom(1, -0.15), ArrowRight: () => zoom(1, 0.15), ArrowUp: () => zoom(1, 0, 0.15), ArrowDown: () => zoom(1, 0, -0.15),
};

function listen() {
  box.on("plotly_hover", (event) => show(event.points[0].customdata));
  box.on("plotly_click", (event) => { show(event.points[0].customdata); box.focus({ preventScroll: true }); });
  box.on("plotly_unhover", hide);
  box.on("plotly_relayouting", hide);
  if (D.class_figure) $("class-plot").on("plotly_click", (event) => choose([event.points[0].customdata]));
  box.addEventListener("pointerdown", () => box.focus({ preventScroll: true }));
  // a page that is scrolled through must not stop at the map: it zooms once it was clicked
  box.addEventListener("wheel", (event) => { if (document.activeElement !== box && !event.ctrlKey) event.stopPropagation(); }, { capture: true });
  box.addEventListener("keydown", (event) => {
    const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  document.querySelectorAll("[data-do]").forEach((button) => { button.onclick = ACTIONS[button.dataset.do]; });
  document.querySelectorAll("[data-layer]").forEach((input) => { input.onchange = draw; });
  $("view").onchange = (event) => { state.view = Number(event.target.value); $("map-view").textContent = M.views[state.view].about; draw(); };
  $("colour").onchange = (event) => { state.colour = event.target.value; draw(); };
  $("class").onchange = (event) => {
    const name = event.target.value.trim(), position = D.classes.findIndex((row) => row.name === name);
    if (position < 0) { if (name) status.textContent = `No class is called ${name}`; return; }
    event.target.value = "";
    choose([...state.chosen, position], false);
  };
  document.querySelectorAll("[data-classes]").forEach((button) => { button.onclick = () => choose(JSON.parse(button.dataset.classes)); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const printing = (now) => () => { document.documentElement.toggleAttribute("data-print", now); if (matchMedia("(prefers-color-scheme: dark)").matches) drawAll(); };
  addEventListener("beforeprint", printing(true)); // on paper the colours are the light ones
  addEventListener("afterprint", printing(false));
}

(async () => {
  try {
    await loadPlotly();
    pressed();
    await draw();
    drawCharts();
    listen();
    document.documentElement.dataset.ready = Math.round(performance.now());
  } catch (error) {
    $("trouble").textContent = `Map and curves could not be drawn (${error.message}). They need a browser of 2023 or later; all tables and galleries are here.`;
    $("trouble").hidden = false;
  }
})();
