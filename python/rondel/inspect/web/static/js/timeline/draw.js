// The waterfall on a canvas: only what is seen, and spans that share a pixel once.

import { colour } from "../dom.js";
import { KINDS, below } from "./model.js";

export const ROW = 24;

export function palette() {
  const names = ["run", "ready", "sleep", "thread", "world", "inside", "cancel", "line", "line-strong", "text", "soft", "panel", "hover", "chosen", "accent", "bad"];
  return Object.fromEntries(names.map((name) => [name, colour(name)]));
}

// A canvas's context in CSS pixels, its size fitted to the screen's.
export function fitted(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// `view`: from, to (microseconds), top (pixels scrolled), width, height, chosen (row).
export function drawBars(context, model, view, colours) {
  const scale = view.width / (view.to - view.from);
  const x = (time) => (time - view.from) * scale;
  const first = Math.floor(view.top / ROW);
  const last = Math.min(Math.ceil((view.top + view.height) / ROW), model.rows.length);
  context.strokeStyle = colours.line;
  for (const tick of ticks(view.from, view.to, view.width).at) {
    line(context, Math.round(x(tick)) + 0.5, 0, view.height);
  }
  for (let i = first; i < last; i++) {
    const y = i * ROW - view.top;
    if (i === view.chosen) {
      context.fillStyle = colours.chosen;
      context.globalAlpha = 0.6;
      context.fillRect(0, y, view.width, ROW);
      context.globalAlpha = 1;
    }
    const row = model.rows[i];
    if (row.calls) drawCalls(context, model, row, y, x, view, colours);
    else drawTask(context, model, row, y, x, view, colours);
  }
  drawParents(context, model, first, last, x, view, colours);
}

function line(context, x, from, to) {
  context.beginPath();
  context.moveTo(x, from);
  context.lineTo(x, to);
  context.stroke();
}

function drawCalls(context, model, { calls }, y, x, view, colours) {
  for (const call of calls) {
    const end = x(call.ended ?? model.end);
    if (end < 0 || x(call.made) > view.width) continue;
    bar(context, x(call.made), x(call.begun), y + ROW / 2 - 1, 2, colours.ready, view);
    bar(context, x(call.begun), end, y + 6, ROW - 12, colours.thread, view);
  }
}

function drawTask(context, model, { task }, y, x, view, colours) {
  const waits = task.waits;
  for (let i = Math.max(below(waits, 6, view.from) - 1, 0), last = -1; i * 6 < waits.length; i++) {
    const begin = x(waits[i * 6]);
    if (begin > view.width) break;
    const end = x(waits[i * 6 + 1]);
    if (end < 0 || Math.floor(end) === last) continue;
    last = Math.floor(end);
    const kind = KINDS[waits[i * 6 + 2]];
    if (kind === "inside") dotted(context, begin, end, y + ROW / 2, colours.inside, view);
    else bar(context, begin, end, y + ROW / 2 - 3, 6, colours[kind], view);
  }
  const steps = task.steps;
  for (let i = Math.max(below(steps, 2, view.from) - 1, 0), last = -1; i * 2 < steps.length; i++) {
    const begin = x(steps[i * 2]);
    if (begin > view.width) break;
    const end = x(steps[i * 2 + 1]);
    if (end < 0 || (Math.floor(end) === last && end - begin < 1)) continue;
    last = Math.floor(end);
    bar(context, begin, Math.max(end, begin + 2), y + 5, ROW - 10, colours.run, view, 2);
  }
  marks(context, task, y, x, view, colours);
}

function marks(context, task, y, x, view, colours) {
  for (const [at] of task.cancels) {
    const where = x(at);
    if (where < -5 || where > view.width + 5) continue;
    context.fillStyle = colours.cancel;
    context.beginPath();
    context.moveTo(where - 5, y + 1);
    context.lineTo(where + 5, y + 1);
    context.lineTo(where, y + 9);
    context.fill();
  }
  if (task.ended === null || task.outcome === "result") return;
  const where = x(task.ended);
  if (where < -5 || where > view.width + 40) return;
  const at = Math.min(where, view.width - 3);
  context.fillStyle = colours.bad;
  context.fillRect(at - 1, y + 4, 3, ROW - 8);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const word = task.outcome === "cancelled" ? "cancelled" : "failed";
  const room = view.width - at > 70;
  context.textAlign = room ? "left" : "right";
  const x0 = room ? at + 6 : at - 6;
  const width = context.measureText(word).width;
  context.fillStyle = colours.panel;
  context.globalAlpha = 0.85;
  context.fillRect(room ? x0 - 2 : x0 - width - 2, y + 5, width + 4, ROW - 10);
  context.globalAlpha = 1;
  context.fillStyle = colours.bad;
  context.fillText(word, x0, y + ROW / 2 + 0.5);
}

function bar(context, begin, end, y, height, fill, view, radius = 0) {
  const left = Math.max(begin, -4);
  const width = Math.max(Math.min(end, view.width + 4) - left, 1);
  context.fillStyle = fill;
  if (radius && width > 4) {
    context.beginPath();
    context.roundRect(left, y, width, height, radius);
    context.fill();
  } else {
    context.fillRect(left, y, width, height);
  }
}

function dotted(context, begin, end, y, stroke, view) {
  context.strokeStyle = stroke;
  context.lineWidth = 1.5;
  context.setLineDash([3, 3]);
  context.beginPath();
  context.moveTo(Math.max(begin, 0), y + 0.5);
  context.lineTo(Math.min(end, view.width), y + 0.5);
  context.stroke();
  context.setLineDash([]);
  context.lineWidth = 1;
}

// From a creator's row down to where its child begins.
function drawParents(context, model, first, last, x, view, colours) {
  context.strokeStyle = colours["line-strong"];
  for (let i = first; i < last; i++) {
    const { task, calls } = model.rows[i];
    if (calls || task.parent < 0) continue;
    const at = Math.round(x(task.created)) + 0.5;
    if (at < 0 || at > view.width) continue;
    // Parents of rows are rows.
    const from = model.rowOfTask[task.parent] * ROW - view.top + ROW - 5;
    const to = i * ROW - view.top + 5;
    line(context, at, Math.max(from, 0), to);
  }
}

// Times of a ruler: 1, 2 or 5 times a power of ten apart, some 90 pixels or more.
export function ticks(from, to, width) {
  const rough = (to - from) / Math.max(width / 90, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough * 0.999);
  const at = [];
  for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) at.push(tick);
  return { step, at };
}

export function drawRuler(context, view, origin, colours) {
  const scale = view.width / (view.to - view.from);
  const { step, at } = ticks(view.from - origin, view.to - origin, view.width);
  context.fillStyle = colours.soft;
  context.strokeStyle = colours["line-strong"];
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const tick of at) {
    const x = Math.round((tick + origin - view.from) * scale) + 0.5;
    line(context, x, 16, 24);
    const word = timeWord(tick, step);
    const width = context.measureText(word).width;
    context.textAlign = "left";
    if (x + 4 + width < view.width) context.fillText(word, x + 4, 12);
  }
}

function timeWord(tick, step) {
  const [size, unit] = step >= 1e5 ? [1e6, "s"] : step >= 100 ? [1e3, "ms"] : [1, "µs"];
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  return `${(tick / size).toFixed(digits)} ${unit}`;
}

// How busy the loop was over the whole time, and which part of it is looked at.
export function drawOverview(context, model, whole, view, height, colours) {
  const cells = Math.max(Math.floor(view.width / 2), 1);
  if (!model.dense || model.dense.length !== cells) model.dense = model.density(cells, whole);
  context.fillStyle = colours.run;
  model.dense.forEach((share, cell) => {
    const tall = share > 0 ? Math.max(Math.min(share, 1) * (height - 8), 1.5) : 0;
    context.fillRect(cell * 2, height - 3 - tall, 2, tall);
  });
  const scale = view.width / (whole.to - whole.from);
  const left = (view.from - whole.from) * scale;
  const right = (view.to - whole.from) * scale;
  if (right - left > view.width - 1) return;
  context.fillStyle = colours.accent;
  context.globalAlpha = 0.14;
  context.fillRect(left, 0, Math.max(right - left, 2), height);
  context.globalAlpha = 1;
  context.fillRect(left, 0, 1.5, height);
  context.fillRect(right - 1.5, 0, 1.5, height);
}
