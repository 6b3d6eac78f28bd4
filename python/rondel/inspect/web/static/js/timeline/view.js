// The waterfall with its rows' names, overview and detail. Works on a recording alone: on the page, and
// in a file of `rondel run --profile`.

import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { onTheme } from "../theme.js";
import { ROW, drawBars, drawOverview, drawRuler, fitted, palette } from "./draw.js";
import { Model } from "./model.js";
import { detailOf, findingsOf, tipOf } from "./words.js";

const OVER = 40;
const RULER = 24;
const FEW = 12; // tasks that need no filter
const NEAREST = 2; // microseconds in the whole width, at least

export class Timeline {
  constructor(data) {
    this.model = new Model(data);
    const pad = (this.model.to - this.model.from) * 0.01;
    this.whole = { from: this.model.from - pad, to: this.model.to + pad };
    this.view = { ...this.whole, top: 0, width: 0, height: 0, chosen: -1 };
    this.over = h("canvas", { class: "over", title: "how busy the loop was; drag to look at a part" });
    this.ruler = h("canvas", { class: "ruler" });
    this.bars = h("canvas", { class: "bars" });
    this.space = h("div", { class: "space", role: "presentation" });
    this.lanes = h("div", { class: "lanes", tabindex: "0", role: "listbox", "aria-label": "Tasks in the order of their creation" }, this.bars, this.space);
    this.tip = h("div", { class: "tip", hidden: true });
    this.chart = h("div", { class: "card timeline" }, this.over, this.ruler, this.lanes, this.foot());
    this.detail = h("aside", { class: "card detail", "aria-label": "Chosen task", tabindex: "-1", hidden: true });
    this.split = h("div", { class: "tl-split alone" }, this.chart, this.detail);
    this.search = h("input", { type: "search", placeholder: "Name, function, file", "aria-label": "Filter tasks", oninput: () => this.choose() });
    this.idle = h("button", { type: "button", "aria-pressed": "false", onclick: () => this.withIdle() }, `Idle tasks too (${count(this.model.idle)})`);
    const bar = h("div", { class: "bar" }, this.search, this.model.idle > 0 && this.idle);
    this.element = h("div", { class: "tl-whole" }, findingsOf(data), this.model.data.tasks.length > FEW && bar, this.split, this.tip);
    this.listen();
    new ResizeObserver(() => this.fit()).observe(this.lanes);
    onTheme(() => {
      this.colours = null;
      this.draw();
    });
  }

  focus() {
    this.lanes.focus({ preventScroll: true });
  }

  withIdle(on = this.idle.getAttribute("aria-pressed") === "false") {
    this.idle.setAttribute("aria-pressed", String(on));
    this.choose();
  }

  choose() {
    const { task, calls } = this.model.rows[this.view.chosen] || {};
    this.model.choose({ idle: this.idle.getAttribute("aria-pressed") === "true", words: this.search.value });
    this.view.chosen = this.model.rows.findIndex((row) => row.task === task && Boolean(row.calls) === Boolean(calls));
    this.fit();
  }

  // A task's row, also if it is not among the chosen ones.
  open(number) {
    if (this.model.rowOfTask[number] < 0) {
      this.search.value = "";
      this.withIdle(true);
    }
    this.select(this.model.rowOfTask[number]);
  }

  foot() {
    const keys = [["run", "runs"], ["ready", "could run, others do"], ["sleep", "sleeps"], ["thread", "a thread works"], ["world", "waits for the world"], ["inside", "waits for other tasks"], ["cancel", "cancel"]];
    const button = (text, label, act) => h("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    const zoom = h(
      "span",
      null,
      button("−", "Farther (−)", () => this.zoom(2)),
      button("+", "Closer (+)", () => this.zoom(0.5)),
      button("All", "All of it (0)", () => this.look(this.whole)),
    );
    zoom.style.marginLeft = "auto";
    return h("div", { class: "foot" }, keys.map(([kind, text]) => h("span", null, h("i", { class: `k-${kind}` }), text)), zoom);
  }

  // -- what is seen

  fit() {
    const names = parseFloat(getComputedStyle(this.chart).getPropertyValue("--names")) || 0;
    this.view.width = Math.max(this.lanes.clientWidth - names, 10);
    this.view.height = this.lanes.clientHeight;
    this.bars.style.marginBottom = `${-this.view.height}px`;
    this.space.style.height = `${Math.max(this.model.rows.length * ROW, this.view.height)}px`;
    this.draw();
  }

  // Once a frame, however often it is asked for.
  draw() {
    if (this.due || !this.view.width) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.colours ||= palette();
      const { view, model, colours } = this;
      view.top = this.lanes.scrollTop;
      drawBars(fitted(this.bars, view.width, view.height), model, view, colours);
      drawRuler(fitted(this.ruler, view.width, RULER), view, model.from, colours);
      drawOverview(fitted(this.over, view.width, OVER), model, this.whole, view, OVER, colours);
      this.names();
    });
  }

  names() {
    const { top, height, chosen } = this.view;
    const first = Math.floor(top / ROW);
    const last = Math.min(Math.ceil((top + height) / ROW), this.model.rows.length);
    const made = [];
    for (let i = first; i < last; i++) {
      const { label, depth } = this.model.rows[i];
      const text = h("div", { class: "label", title: `${label.name} ${label.more}`, onclick: () => this.select(i) }, label.name, label.more && h("small", null, ` ${label.more}`));
      text.style.paddingLeft = `${12 + Math.min(depth, 8) * 12}px`;
      const row = h("div", { class: "row", role: "option", id: `lane-${i}`, "aria-selected": String(i === chosen), "aria-setsize": this.model.rows.length, "aria-posinset": i + 1 }, text);
      row.style.top = `${i * ROW}px`;
      made.push(row);
    }
    this.space.replaceChildren(...made);
    if (chosen >= first && chosen < last) this.lanes.setAttribute("aria-activedescendant", `lane-${chosen}`);
    else this.lanes.removeAttribute("aria-activedescendant");
  }

  // From when to when, kept within the recording.
  look({ from, to }) {
    const span = Math.min(Math.max(to - from, NEAREST), this.whole.to - this.whole.from);
    const start = Math.min(Math.max(from, this.whole.from), this.whole.to - span);
    this.view.from = start;
    this.view.to = start + span;
    this.draw();
  }

  zoom(times, around = (this.view.from + this.view.to) / 2) {
    const { from, to } = this.view;
    this.look({ from: around - (around - from) * times, to: around + (to - around) * times });
  }

  pan(share) {
    const by = (this.view.to - this.view.from) * share;
    this.look({ from: this.view.from + by, to: this.view.to + by });
  }

  select(index) {
    const row = this.model.rows[Math.min(Math.max(index, 0), this.model.rows.length - 1)];
    if (!row) return;
    this.view.chosen = this.model.rows.indexOf(row);
    const top = this.view.chosen * ROW;
    if (top < this.lanes.scrollTop) this.lanes.scrollTop = top;
    else if (top + ROW > this.lanes.scrollTop + this.view.height) this.lanes.scrollTop = top + ROW - this.view.height;
    this.detail.hidden = false;
    this.split.classList.remove("alone");
    fill(this.detail, detailOf(this.model, row, (number) => this.open(number)));
    this.draw();
  }

  // -- hands

  time(event) {
    const box = this.bars.getBoundingClientRect();
    return this.view.from + ((event.clientX - box.left) / this.view.width) * (this.view.to - this.view.from);
  }

  listen() {
    this.lanes.addEventListener("scroll", () => this.draw());
    this.lanes.addEventListener("keydown", (event) => this.key(event));
    this.detail.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.focus();
    });
    this.bars.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.bars.addEventListener("pointermove", (event) => this.point(event));
    this.bars.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.bars.addEventListener("dblclick", (event) => this.zoom(0.4, this.time(event)));
    this.drag(this.bars, (start, event) => {
      const by = ((start.x - event.clientX) / this.view.width) * (start.to - start.from);
      this.look({ from: start.from + by, to: start.to + by });
    });
    this.bars.addEventListener("click", (event) => {
      if (!this.dragged) this.select(this.rowAt(event));
    });
    this.drag(this.over, (start, event) => {
      const box = this.over.getBoundingClientRect();
      const at = (x) => this.whole.from + ((x - box.left) / this.view.width) * (this.whole.to - this.whole.from);
      const ends = [at(start.x), at(event.clientX)].sort((a, b) => a - b);
      this.look({ from: ends[0], to: ends[1] });
    });
  }

  drag(canvas, move) {
    let start = null;
    canvas.addEventListener("pointerdown", (event) => {
      start = { x: event.clientX, from: this.view.from, to: this.view.to };
      this.dragged = false;
      canvas.setPointerCapture(event.pointerId);
      canvas.classList.add("held");
    });
    canvas.addEventListener("pointermove", (event) => {
      if (start === null || (!this.dragged && Math.abs(event.clientX - start.x) < 4)) return;
      this.dragged = true;
      move(start, event);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        start = null;
        canvas.classList.remove("held");
      });
    }
  }

  wheel(event) {
    if (event.ctrlKey || event.metaKey) this.zoom(1.0015 ** event.deltaY, this.time(event));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.pan((event.shiftKey ? event.deltaY : event.deltaX) / this.view.width);
    } else return; // the rows scroll
    event.preventDefault();
  }

  rowAt(event) {
    return Math.floor((event.clientY - this.bars.getBoundingClientRect().top + this.view.top) / ROW);
  }

  point(event) {
    const row = this.model.rows[this.rowAt(event)];
    const slack = ((this.view.to - this.view.from) / this.view.width) * 2;
    const found = row && this.model.at(row, this.time(event), slack);
    this.tip.hidden = !found || this.dragged;
    if (!found) return;
    fill(this.tip, tipOf(this.model, row, found));
    const { width, height } = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
    this.tip.style.top = `${Math.min(event.clientY + 16, innerHeight - height - 8)}px`;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(Math.floor(this.view.height / ROW) - 1, 1);
    const rows = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    const acts = {
      ArrowLeft: () => this.pan(-0.15),
      ArrowRight: () => this.pan(0.15),
      "+": () => this.zoom(0.5),
      "=": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.look(this.whole),
      Home: () => this.select(0),
      End: () => this.select(this.model.rows.length - 1),
      Enter: () => this.detail.focus(),
    };
    if (event.key in rows) this.select(this.view.chosen < 0 ? 0 : this.view.chosen + rows[event.key]);
    else if (event.key in acts) acts[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

