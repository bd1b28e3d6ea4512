// The map: every item a point, its picture where the pointer or the keyboard is, some classes alone.

const M = D.map;
const LAYERS = M.layers.length;
const SYMBOLS = { query: "circle", gallery: "square", training: "circle-open", proxy: "diamond" };
const ACROSS = 32, NONE = 255, FULL = 250;
const kinds = bytesOf(M.kinds), ndcg = bytesOf(M.ndcg);
const classes = new Int32Array(bytesOf(M.classes).buffer);
const views = M.views.map((view) => ({ ...view, x: new Int16Array(bytesOf(view.x).buffer), y: new Int16Array(bytesOf(view.y).buffer) }));
const box = $("points"), tip = $("tip"), status = $("status");
const state = { view: 0, colour: "class", chosen: new Set(), at: -1, drag: !matchMedia("(pointer: coarse)").matches, shown: [] };

const layerOn = () => [...document.querySelectorAll("[data-layer]")].map((input) => input.checked);

function visible() {
  const on = layerOn(), found = [];
  for (let i = 0; i < kinds.length; i++) {
    if (on[kinds[i]] && (!state.chosen.size || state.chosen.has(classes[i]))) found.push(i);
  }
  return found;
}

function pointColours(points) {
  if (state.colour === "class") {
    const known = D.classes.map((_, place) => colourOf(place, D.classes.length));
    return points.map((i) => known[classes[i]]);
  }
  const none = ink("--line");
  return points.map((i) => (ndcg[i] === NONE ? none : `hsl(${Math.round((ndcg[i] / FULL) * 215)} 75% ${isDark() ? 62 : 44}%)`));
}

function traces() {
  const { x, y } = views[state.view];
  const size = state.shown.length > 4000 ? 4 : state.shown.length > 800 ? 6 : 8;
  return M.layers.map((layer, number) => {
    const points = state.shown.filter((i) => kinds[i] === number);
    const proxy = layer.kind === "proxy";
    return {
      type: hasWebGL ? "scattergl" : "scatter", mode: "markers", name: layer.name, hoverinfo: "none", showlegend: false,
      x: points.map((i) => x[i]), y: points.map((i) => y[i]), customdata: points,
      marker: {
        symbol: SYMBOLS[layer.kind], size: proxy ? (points.length > 200 ? 7 : 11) : size, color: pointColours(points),
        opacity: proxy ? 1 : 0.8, line: { width: proxy ? (points.length > 200 ? 0.7 : 1.5) : 0, color: ink("--ink") },
      },
    };
  });
}

function draw() {
  state.shown = visible();
  hide();
  const axis = { visible: false, range: [-34000, 34000] };
  const layout = baseLayout({
    margin: { l: 0, r: 0, t: 0, b: 0 }, xaxis: { ...axis }, yaxis: { ...axis, scaleanchor: "x" },
    hovermode: "closest", dragmode: state.drag ? "pan" : false, uirevision: state.view, hoverdistance: 24,
  });
  const done = Plotly.react(box, traces(), layout, { ...PLAIN, scrollZoom: true, doubleClick: "reset" });
  say();
  return done;
}

/** What is to be seen, in words. */
function say() {
  const counts = M.layers.map((layer, number) => [state.shown.filter((i) => kinds[i] === number).length, layer.name]);
  let words = counts.filter(([count]) => count).map(([count, name]) => `${count.toLocaleString("en")} ${name}`).join(", ") || "nothing";
  if (state.chosen.size === 1) {
    const one = D.classes[[...state.chosen][0]];
    if (one.ndcg !== undefined) {
      words += ` · nDCG@${M.k} ${one.ndcg.toFixed(3)}, recall@1 ${one.recall.toFixed(3)} over ${one.queries} queries`;
      if (one.confused.length) words += " · finds instead: " + one.confused.map(([name, share]) => `${name} ${(100 * share).toFixed(0)} %`).join(", ");
    } else if (one.queries === undefined) {
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

/** The picture of a point; the sprite is unpacked when its first picture is asked for. */
function picture(i) {
  if (!packed.length || M.layers[kinds[i]].kind === "proxy") return null;
  const perSheet = ACROSS * ACROSS, cell = i % perSheet, number = Math.floor(i / perSheet);
  const last = number === packed.length - 1;
  const count = last ? M.pictures - number * perSheet : perSheet;
  const across = Math.min(ACROSS, count), side = 112;
  const thumb = document.createElement("div");
  thumb.className = "thumb";
  thumb.style.cssText = `width:${side}px;height:${side}px;background-image:url(${sheet(number)});`
    + `background-size:${across * side}px auto;background-position:${-(cell % ACROSS) * side}px ${-Math.floor(cell / ACROSS) * side}px`;
  return thumb;
}

function line(text, kind) {
  const p = document.createElement("p");
  p.textContent = text;
  if (kind) p.className = kind;
  return p;
}

/** Where a point is in the map, in pixels. */
function place(i) {
  const { xaxis, yaxis } = box._fullLayout, { x, y } = views[state.view];
  const at = (axis, value, length) => ((value - axis.range[0]) / (axis.range[1] - axis.range[0])) * length;
  return [at(xaxis, x[i], box.clientWidth), box.clientHeight - at(yaxis, y[i], box.clientHeight)];
}

function show(i) {
  const kind = M.layers[kinds[i]].kind, own = D.classes[classes[i]].name;
  const value = kind === "query" ? (ndcg[i] === NONE ? "nothing to find" : `nDCG@${M.k} ${(ndcg[i] / FULL).toFixed(2)}`) : { gallery: "gallery item", training: "training item", proxy: "" }[kind];
  tip.replaceChildren(...[picture(i), line(own), line(M.names[i], "soft"), value && line(value)].filter(Boolean));
  tip.dataset.point = i;
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
  return Plotly.relayout(box, { "xaxis.range": [-34000, 34000], "yaxis.range": [-34000, 34000] });
}

/** To the next point within what is seen, from left to right. */
function step(by) {
  const { xaxis, yaxis } = box._fullLayout, { x, y } = views[state.view];
  const inside = (axis, value) => value >= axis.range[0] && value <= axis.range[1];
  const seen = state.shown.filter((i) => inside(xaxis, x[i]) && inside(yaxis, y[i])).sort((a, b) => x[a] - x[b] || a - b);
  if (!seen.length) return;
  const now = seen.indexOf(state.at), next = seen[(now < 0 ? (by > 0 ? 0 : -1) : now + by + seen.length) % seen.length] ?? seen.at(-1);
  status.textContent = show(next);
  state.at = next;
}

function choose(places, scroll = true) {
  state.chosen = new Set(places);
  // a training class has no queries: its own items are what there is to see
  places.forEach((one) => {
    if (D.classes[one].queries === undefined) document.querySelectorAll('[data-kind="training"], [data-kind="proxy"]').forEach((input) => { input.checked = true; });
  });
  chips();
  draw();
  if (scroll) $("map").scrollIntoView();
}

function drawAll() {
  draw();
  drawCurves();
  drawClasses(choose);
  chips();
}

function chips() {
  $("chips").replaceChildren(...[...state.chosen].map((place) => {
    const button = document.createElement("button"), dot = document.createElement("i");
    button.type = "button";
    dot.style.background = colourOf(place, D.classes.length);
    button.append(dot, `${D.classes[place].name} ×`);
    button.setAttribute("aria-label", `Show no longer ${D.classes[place].name}`);
    button.onclick = () => { state.chosen.delete(place); chips(); draw(); $("class").focus(); };
    return button;
  }));
}

const ACTIONS = {
  in: () => zoom(0.6), out: () => zoom(1 / 0.6), reset: all, next: () => step(1), previous: () => step(-1),
  drag: () => { state.drag = !state.drag; pressed(); Plotly.relayout(box, { dragmode: state.drag ? "pan" : false }); },
};
const KEYS = {
  "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: all, n: () => step(1), p: () => step(-1), Escape: hide,
  ArrowLeft: () => zoom(1, -0.15), ArrowRight: () => zoom(1, 0.15), ArrowUp: () => zoom(1, 0, 0.15), ArrowDown: () => zoom(1, 0, -0.15),
};
const pressed = () => document.querySelector('[data-do="drag"]').setAttribute("aria-pressed", state.drag);

function listen() {
  box.on("plotly_hover", (event) => { state.at = event.points[0].customdata; show(state.at); });
  box.on("plotly_click", (event) => { state.at = event.points[0].customdata; show(state.at); box.focus({ preventScroll: true }); });
  box.on("plotly_unhover", hide);
  box.on("plotly_relayouting", hide);
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
  $("view").onchange = (event) => { state.view = Number(event.target.value); $("map-view").textContent = views[state.view].about; draw(); };
  $("colour").onchange = (event) => { state.colour = event.target.value; draw(); };
  $("class").onchange = (event) => {
    const asked = event.target.value.trim(), found = D.classes.findIndex((one) => one.name === asked);
    if (found < 0) { if (asked) status.textContent = `No class is called ${asked}`; return; }
    event.target.value = "";
    choose([...state.chosen, found], false);
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
    listen();
    drawCurves();
    drawClasses(choose);
    document.documentElement.dataset.ready = Math.round(performance.now());
  } catch (error) {
    $("trouble").textContent = `Map and curves could not be drawn (${error.message}). They need a browser of 2023 or later; all tables and galleries are here.`;
    $("trouble").hidden = false;
  }
})();
