// One figure: its selects, switches, keys (the legend, as real buttons) and its plot.

const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;

/** A colour of the style sheet, as the theme has it now. */
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function logarithmic(ticks) {
  return ticks ? { type: "log", tickvals: ticks, ticktext: ticks.map(tickText) } : { type: "log", tickmode: "auto", nticks: 6 };
}

/** Pixels from a gap between two points to the next one, so that no line answers for another place. */
function reach(drawn, width) {
  const lines = drawn.traces.map((trace) => trace.x).filter((x) => x.length > 1);
  const end = Math.max(...lines.map((x) => x.at(-1)));
  const gaps = drawn.traces.filter((trace) => trace.mode === "lines+markers")
    .map(({ x }) => (x.at(-1) - x[0]) / (x.length - 1) / end);
  return Math.max(20, Math.ceil((width * Math.max(0, ...gaps)) / 2) + 2);
}

function layoutOf(drawn, width) {
  const isUnified = !drawn.closest && width >= 560;
  const ink = colour("--ink"), quiet = colour("--quiet"), paper = colour("--paper");
  const axis = {
    gridcolor: colour("--grid"), linecolor: quiet, tickcolor: quiet, zeroline: false, ticks: "outside",
    ticklen: 4, automargin: true, title: { standoff: 10 }, minor: { ticks: "" },
  };
  const longest = Math.max(0, ...drawn.traces.map((trace) => trace.x.at(-1) ?? 0));
  const counts = drawn.x !== AXES.seconds && longest <= 12 && !drawn.logX ? { dtick: longest > 6 ? 2 : 1 } : {};
  return {
    autosize: true, paper_bgcolor: paper, plot_bgcolor: paper,
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink },
    margin: { l: 12, r: 12, t: 12, b: 12 }, showlegend: false, separators: ". ", 
    // A finger that scrolls the page must not zoom a plot.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    hovermode: isUnified ? "x unified" : "closest", hoverdistance: isUnified ? reach(drawn, width) : 40,
    hoverlabel: { bgcolor: paper, bordercolor: quiet, font: { color: ink, size: 12 }, namelength: -1 },
    xaxis: {
      ...axis, title: { text: plain(drawn.x), standoff: 10 }, showgrid: false, rangemode: "tozero", ...counts,
      spikecolor: quiet, spikethickness: 1, unifiedhovertitle: { text: `%{x} ${plain(drawn.x)}` },
      ...(drawn.logX ? { ...logarithmic(drawn.ticksX), rangemode: "normal" } : {}),
    },
    yaxis: {
      ...axis, title: { text: plain(drawn.y), standoff: 10 },
      ...(drawn.log ? logarithmic(drawn.ticks) : {}),
      ...(drawn.range ? { range: drawn.range } : { autorange: true }),
    },
  };
}

const CONFIG = {
  displaylogo: false, responsive: true, showTips: false, showLink: false, plotlyServerURL: "",
  modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d"],
  toImageButtonOptions: { format: "svg" },
};

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const SWATCH_DASHES = { solid: "", dash: "6 3", dashdot: "6 2 1 2", longdash: "9 3", longdashdot: "9 2 1 2" };
const SWATCH_SHAPES = {
  circle: "M16 3a4 4 0 1 0 .01 0z", square: "M12.5 3.5h7v7h-7z", diamond: "M16 2l5 5-5 5-5-5z",
  "triangle-up": "M16 2l5 9h-10z", "triangle-down": "M16 12l5-9h-10z",
  pentagon: "M16 2l5 3.8-1.9 5.7h-6.2L11 5.800z", star: "M16 1l1.7 4.200 4.400.300-3.400 2.900 1.100 4.400L16 10.400l-3.800 2.400 1.100-4.400L9.900 5.500l4.400-.300z",
};

function swatch(style) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 32 14");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(ns, "path");
  line.setAttribute("d", "M0 7h32");
  line.setAttribute("stroke", style.colour);
  line.setAttribute("stroke-width", "2");
  line.setAttribute("stroke-dasharray", SWATCH_DASHES[style.dash]);
  const shape = document.createElementNS(ns, "path");
  shape.setAttribute("d", SWATCH_SHAPES[style.symbol]);
  shape.setAttribute("fill", style.colour);
  svg.append(line, shape);
  return svg;
}

const reports = new Map();

/** The numbers of an experiment, which several figures share. */
function reportOf(id) {
  if (!reports.has(id)) reports.set(id, JSON.parse(document.getElementById(id).textContent));
  return reports.get(id);
}

class PlotFigure {
  constructor(root) {
    this.root = root;
    this.kind = root.dataset.plot;
    this.report = reportOf(root.dataset.source);
    this.places = { sensitivity: this.report.dependences, convergence: this.report.rates }[this.kind] ?? this.report.places;
    if (this.kind === "steps") this.places = this.places.filter((place) => this.methods(place).length);
    this.state = { hidden: new Set(), axis: "epochs", value: "metric", scale: "log" };
    this.canvas = root.querySelector(".canvas");
    this.selects = Object.fromEntries([...root.querySelectorAll("select")].map((one) => [one.dataset.control, one]));
    this.wire();
    this.fill("where", [...new Set(this.places.map((place) => this.where(place)))]);
    this.chooseWhere();
  }

  where(place) {
    const network = `${place.data}, ${place.model}`;
    return this.kind === "sensitivity" ? `${place.option}: ${network}` : network;
  }

  /** With step sizes; those that move come first. */
  methods(place) {
    const lines = place.lines.filter((line) => Object.keys(line.blocks).length && line.x.epochs);
    return [...lines.filter(moves), ...lines.filter((line) => !moves(line))].map((line) => this.report.labels[line.series]);
  }

  wire() {
    this.selects.where.addEventListener("change", () => this.chooseWhere());
    this.selects.width.addEventListener("change", () => this.choosePlace());
    this.selects.method?.addEventListener("change", () => this.choose("method", this.selects.method.value));
    for (const group of this.root.querySelectorAll(".switch")) {
      group.addEventListener("click", (event) => {
        const button = event.target.closest("button");
        if (!button) return;
        press(group, button);
        this.choose(group.dataset.control, button.dataset.value);
      });
    }
  }

  fill(name, values) {
    const select = this.selects[name], before = select.value;
    select.replaceChildren(...values.map((value) => element("option", { value }, value || "–")));
    if (values.includes(before)) select.value = before;
    select.parentElement.hidden = values.length < 2 && name === "width" && values[0] === "";
  }

  chooseWhere() {
    const here = this.places.filter((place) => this.where(place) === this.selects.where.value);
    this.fill("width", here.map((place) => place.width));
    this.choosePlace();
  }

  choosePlace() {
    this.state.place = this.places.find(
      (place) => this.where(place) === this.selects.where.value && place.width === this.selects.width.value,
    );
    if (this.selects.method) {
      this.fill("method", this.methods(this.state.place));
      this.state.method = this.selects.method.value;
    }
    this.draw();
  }

  choose(name, value) {
    this.state[name] = value;
    this.draw();
  }

  toggle(ids, isHidden) {
    for (const id of ids) (isHidden ? this.state.hidden.add(id) : this.state.hidden.delete(id));
    this.draw();
  }

  draw() {
    const drawn = TRACES[this.kind](this.report, this.state, colour);
    this.drawKeys(drawn.keys);
    this.root.querySelector(".notes").textContent = drawn.notes.join(" ");
    const shown = drawn.keys.filter((key) => !this.state.hidden.has(key.id)).map((key) => key.name);
    const parts = [this.selects.where.value, this.state.place.width && `width ${this.state.place.width}`, this.state.method];
    const where = parts.filter(Boolean).join(", ");
    this.root.querySelector(".where").textContent = where;
    this.canvas.setAttribute("aria-label", `Plot of ${drawn.y} over ${drawn.x}, ${where}: ${shown.join("; ")}`);
    this.drawn = Plotly.react(this.canvas, drawn.traces, layoutOf(drawn, this.canvas.clientWidth), CONFIG);
    return this.drawn;
  }

  drawKeys(keys) {
    const box = this.root.querySelector(".keys");
    const focused = [...box.children].findIndex((child) => child === document.activeElement);
    const buttons = keys.map((key) => {
      const isShown = !this.state.hidden.has(key.id);
      const button = element("button", { type: "button", "aria-pressed": String(isShown) }, swatch(key.style), key.name);
      if (key.ended) button.append(element("span", { class: "ended" }, `(${key.ended})`));
      button.addEventListener("click", () => this.toggle([key.id], isShown));
      return button;
    });
    if (keys.length > 3) {
      const isAny = keys.some((key) => !this.state.hidden.has(key.id));
      const all = element("button", { type: "button", class: "all" }, isAny ? "hide all" : "show all");
      all.addEventListener("click", () => this.toggle(keys.map((key) => key.id), isAny));
      buttons.push(all);
    }
    box.replaceChildren(...buttons);
    if (focused >= 0) box.children[Math.min(focused, buttons.length - 1)]?.focus();
  }
}

function press(group, chosen) {
  for (const button of group.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button === chosen));
}
