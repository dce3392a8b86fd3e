// From the numbers of one place to what plotly draws. Everything that stands in a plot passes
// `plain`, because plotly takes tags in text for markup.

const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star"];
const DASHES = ["solid", "dash", "dashdot", "longdash", "longdashdot"];
const COLOURS = 7;

const AXES = {
  epochs: "epochs",
  passes: "forward and backward passes",
  updates: "parameter updates",
  seconds: "seconds of training",
};

function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function digits(value) {
  return value === null ? "–" : String(Number(value.toPrecision(5))).replace("-", "−");
}

function withDeviation(mean, deviation, percent) {
  const text = percent ? mean.toFixed(2) : digits(mean);
  if (deviation === null || deviation === undefined) return text;
  return `${text} ± ${percent ? deviation.toFixed(2) : digits(deviation)}`;
}

function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** Colour, dash and symbol of a number: together different for 35 of them, and never colour alone. */
function look(number, colour) {
  return {
    colour: colour(`--series-${number % COLOURS}`),
    dash: DASHES[Math.floor(number / COLOURS) % DASHES.length],
    symbol: SYMBOLS[(number + Math.floor(number / COLOURS)) % SYMBOLS.length],
  };
}

function transparent(colour, alpha) {
  const parts = colour.match(/[\d.]+/g);
  return `rgba(${parts.slice(0, 3).join(",")},${alpha})`;
}

function lineTrace(name, x, y, style, hover) {
  return {
    type: "scatter", mode: "lines+markers", name: plain(name), x, y,
    line: { color: style.colour, dash: style.dash, width: style.width ?? 2 },
    marker: { color: style.colour, symbol: style.symbol, size: 7, maxdisplayed: 9 },
    text: hover.map(plain), hovertemplate: "%{text}<extra></extra>", showlegend: false,
  };
}

/** Thinner from method to method, so that a line under another one still shows. */
function widthOf(index, count) {
  return 3.2 - (1.4 * index) / Math.max(count - 1, 1);
}

/** 1, 2, 5, 10, … as people write them; fewer of them over many decades, more within one. */
function logTicks(values) {
  const positive = values.filter((v) => v > 0);
  if (!positive.length) return null;
  const least = Math.min(...positive), most = Math.max(...positive);
  const room = least === most ? 10 : 1.05; // round a single value plotly shows two decades
  const low = least / room, high = most * room;
  const decades = Math.log10(high / low);
  if (decades <= 0.6) return null; // plotly's own ones are even there
  const inner = decades > 4 ? [1] : decades > 1.3 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const ticks = [];
  const step = Math.ceil(decades / 8);
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += decades > 4 ? step : 1) {
    for (const factor of inner) ticks.push(Number((factor * 10 ** power).toPrecision(3)));
  }
  return ticks.filter((v) => v >= low && v <= high);
}

function tickText(value) {
  return value >= 1e-4 && value < 1e5 ? String(value) : value.toExponential().replace("e+", "e").replace("-", "−");
}

function bandTrace(x, mean, deviation, style, positive) {
  const known = mean.map((_, i) => i).filter((i) => deviation[i] !== null && x[i] !== null);
  const low = known.map((i) => {
    const below = mean[i] - deviation[i];
    return positive ? Math.max(below, mean[i] / 20) : below;
  });
  const high = known.map((i) => mean[i] + deviation[i]);
  const there = known.map((i) => x[i]);
  return {
    type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, fill: "toself",
    x: [...there, ...there.slice().reverse()], y: [...high, ...low.reverse()],
    line: { width: 0 }, fillcolor: transparent(style.colour, style.alpha),
  };
}

function crossTrace(name, x, y, style, text) {
  return {
    type: "scatter", mode: "markers", name: plain(name), x: [x], y: [y], showlegend: false,
    marker: { color: style.colour, symbol: "x-thin", size: 11, line: { width: 3, color: style.colour } },
    text: [plain(text)], hovertemplate: "%{text}<extra></extra>",
  };
}

/** Methods over epochs, passes, updates or seconds. */
function curveTraces(report, state, colour) {
  const place = state.place;
  const isMetric = state.value === "metric";
  const positive = !isMetric && place.lines.every((line) => line.loss.every((v) => v > 0));
  const traces = [], keys = [], notes = [], far = [];
  for (const [index, line] of place.lines.entries()) {
    const name = report.labels[line.series];
    const style = {
      ...look(report.looks[line.series], colour), width: widthOf(index, place.lines.length),
      alpha: place.lines.length > 6 ? 0.08 : 0.14,
    };
    const x = line.x[state.axis];
    keys.push({ id: name, name, style, ended: line.ended });
    if (!x || x.length < 2) {
      notes.push(x || !line.ended ? `${name} has no ${AXES[state.axis]} to show.` : `${name} has no curve: ${line.ended}.`);
      continue;
    }
    if (state.hidden.has(name)) continue;
    const mean = line[state.value], deviation = line[`${state.value}_sd`];
    const percent = isMetric && place.percent;
    const hover = mean.map((v, i) => `${name}  ${withDeviation(v, deviation[i], percent)}`);
    if (line.seeds > 1) traces.push(bandTrace(x, mean, deviation, style, positive));
    traces.push(lineTrace(name, x, mean, style, hover));
    if (line.ended) traces.push(crossTrace(name, x.at(-1), mean.at(-1), style, `${name}  ${line.ended}`));
    else far.push({ x: x.at(-1), values: mean });
  }
  const levels = isMetric ? place.published.filter((one) => !state.hidden.has(report.labels[one.series])) : [];
  const longest = Math.max(...far.map((one) => one.x), 0);
  const drawn = new Set(place.lines.map((line) => line.series));
  for (const { series } of isMetric ? place.published : []) {
    if (drawn.has(series)) continue;
    const name = report.labels[series];
    keys.push({ id: name, name, style: look(report.looks[series], colour), ended: "published only" });
  }
  for (const one of levels) traces.push(levelTrace(report, one, longest, place, colour));
  return {
    traces, keys, notes, x: AXES[state.axis], y: isMetric ? place.metric : "train loss",
    log: positive, ticks: logTicks(place.lines.flatMap((line) => line.loss)), range: isMetric ? zoom(far.map((one) => one.values), levels, place.percent) : null,
  };
}

function levelTrace(report, level, end, place, colour) {
  const name = report.labels[level.series], style = look(report.looks[level.series], colour);
  const x = Array.from({ length: 41 }, (_, i) => (end * i) / 40); // places to hover over
  const text = plain(`${name}  published ${withDeviation(level.value, null, place.percent)}`);
  return {
    type: "scatter", mode: "lines", name: plain(name), showlegend: false,
    x, y: x.map(() => level.value), line: { color: style.colour, dash: "dot", width: 1.5 },
    text: x.map(() => text), hovertemplate: "%{text}<extra></extra>",
  };
}

/** Leaves out the steep beginning, where all curves look the same. Double-click shows all of it. */
function zoom(curves, levels, percent) {
  if (!curves.length) return null;
  const published = levels.map((one) => one.value);
  const ends = curves.map((values) => quantile(values, percent ? 0.3 : 0.7));
  const rest = curves.flatMap((values) => values.slice(Math.floor(values.length / 2)));
  const all = [...ends, ...rest, ...published].filter((v) => v !== null);
  const low = Math.min(...all), high = Math.max(...all);
  const margin = Math.max(0.06 * (high - low), percent ? 0.2 : 1e-9 + 0.002 * Math.abs(high));
  return [low - margin, percent ? Math.min(high + margin, 100.5) : high + margin];
}

/** Step sizes of one method, a line for each block: dashes and symbols tell them apart. */
function stepTraces(report, state, colour) {
  const line = state.place.lines.find((one) => report.labels[one.series] === state.method);
  const traces = [], keys = [], notes = [];
  const blocks = line ? Object.entries(line.blocks) : [];
  const x = line ? line.x[state.axis] : null;
  if (line && !x) notes.push(`${state.method} has no ${AXES[state.axis]} to show.`);
  blocks.forEach(([block, sizes], index) => {
    const marks = { dash: DASHES[index % DASHES.length], symbol: SYMBOLS[index % SYMBOLS.length] };
    const isMany = blocks.length > DASHES.length;
    const style = { ...(isMany ? shade(index, blocks.length, colour) : look(report.looks[line.series], colour)), ...marks };
    keys.push({ id: block, name: block, style });
    if (!x || state.hidden.has(block)) return;
    traces.push(lineTrace(block, x, sizes, style, sizes.map((v) => `${block}  ${digits(v)}`)));
  });
  const lines = blocks.map(([, sizes]) => known(sizes)).filter((sizes) => sizes.length);
  const least = Math.min(...lines.flat());
  // A schedule that ends at almost nothing would squeeze all else flat: four decades of each line.
  const low = Math.min(...lines.map((sizes) => Math.max(Math.min(...sizes), 1e-4 * Math.max(...sizes))));
  const high = Math.max(...lines.flat());
  const log = state.scale === "log" && least > 0;
  return {
    traces, keys, notes, x: AXES[state.axis], y: "step size", log,
    ticks: logTicks(lines.flat().map((v) => Math.max(v, low))),
    range: log && least < low ? [low, high * (high / low) ** 0.04].map(Math.log10) : null,
  };
}

function known(values) {
  return values.filter((v) => v !== null);
}

/** Whether a step size of the line changes. */
function moves(line) {
  return Object.values(line.blocks).some((sizes) => new Set(known(sizes)).size > 1);
}

/** Many blocks: from the first to the last one along a scale that is ordered by lightness. */
function shade(index, count, colour) {
  const ends = ["--series-0", "--series-4"].map((name) => colour(name).match(/[\d.]+/g).map(Number));
  const share = index / (count - 1);
  const mixed = ends[0].slice(0, 3).map((v, i) => Math.round(v + share * (ends[1][i] - v)));
  return { colour: `rgb(${mixed.join(",")})` };
}

/** The final metric over an option. */
function sensitivityTraces(report, state, colour) {
  const place = state.place;
  const traces = [], keys = [], notes = [];
  const finite = place.lines.flatMap((line) => line.y.filter((v) => v !== null));
  const low = Math.min(...finite), high = Math.max(...finite);
  const margin = 0.08 * (high - low || 1);
  for (const line of place.lines) {
    const style = look(line.look, colour);
    keys.push({ id: line.name, name: line.name, style, ended: line.trouble.some(Boolean) ? "some did not finish" : "" });
    if (state.hidden.has(line.name)) continue;
    const hover = line.y.map((v, i) => (v === null ? line.trouble[i] : withDeviation(v, line.sd[i], place.percent)))
      .map((text, i) => `${line.name}, ${place.option} ${digits(line.x[i])}:  ${text}`);
    const trace = lineTrace(line.name, line.x, line.y, style, hover);
    trace.error_y = { type: "data", array: line.sd.map((v) => v ?? 0), color: style.colour, thickness: 1.2, width: 4 };
    trace.marker.size = 8;
    trace.connectgaps = false;
    traces.push(trace);
    line.y.forEach((v, i) => {
      if (v === null) traces.push(crossTrace(line.name, line.x[i], low - margin, style, hover[i]));
    });
  }
  const log = place.lines.every((line) => line.log);
  return { traces, keys, notes, x: place.option, y: place.metric, log: false, logX: log, ticksX: logTicks(place.lines.flatMap((line) => line.x)), range: null, closest: true };
}

/** Squared distance to a known solution, and its bound, over the number of sweeps. */
function rateTraces(report, state, colour) {
  const traces = [], keys = [];
  for (const line of state.place.lines) {
    const name = report.labels[line.series], style = { ...look(report.looks[line.series], colour), alpha: 0.14 };
    keys.push({ id: name, name, style });
    if (state.hidden.has(name)) continue;
    const hover = line.y.map((v, i) => `${name}  ${withDeviation(v, line.sd[i], false)}, bound ${digits(line.limit[i])}`);
    if (line.seeds > 1) traces.push(bandTrace(line.x, line.y, line.sd, style, true));
    traces.push(lineTrace(name, line.x, line.y, style, hover));
    const limit = lineTrace(name, line.x, line.limit, style, line.limit.map((v) => `${name}  bound ${digits(v)}`));
    traces.push({ ...limit, mode: "lines", line: { color: style.colour, dash: "dot", width: 1.5 } });
  }
  const values = state.place.lines.flatMap((line) => [...line.y, ...line.limit]).filter((v) => v !== null);
  const steps = state.place.lines.flatMap((line) => line.x);
  return { traces, keys, notes: [], x: "sweeps", y: "mean of ‖w − w*‖²", log: true, ticks: logTicks(values), logX: true, ticksX: logTicks(steps), range: null, closest: true };
}

const TRACES = { curves: curveTraces, steps: stepTraces, sensitivity: sensitivityTraces, convergence: rateTraces };
