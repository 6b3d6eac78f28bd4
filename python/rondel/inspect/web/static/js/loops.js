// Every loop of every process: its numbers now, and charts of the last five minutes.

import { fill, h } from "./dom.js";
import { Chart, colourOf } from "./charts.js";
import { bytes, count, percent, plural, seconds } from "./format.js";
import { LoopHistory } from "./history.js";

const SHOWN = 8; // loops in the charts

export class LoopsView {
  constructor() {
    this.name = "loops";
    this.title = "Loops";
    this.loops = new Map();
    this.pools = new Map();
    this.charts = [
      new Chart({ title: "Busy", note: "share of the time awake", name: "busy", format: (value) => `${value} %`, top: 100 }),
      new Chart({ title: "Lag", note: "99 % of the timers late by less", name: "most", format: seconds, least: 1e-3 }),
      new Chart({ title: "Ready queue", note: "callbacks that wait for their turn", name: "ready", format: count, least: 10, whole: true }),
      new Chart({ title: "Tasks", note: "not done", name: "tasks", format: count, least: 10, whole: true }),
    ];
    this.cards = h("div", { class: "loops" });
    this.element = h(
      "section",
      { class: "panel-view scrolls", "aria-label": "Loops" },
      this.cards,
      h("div", { class: "charts" }, this.charts.map((chart) => chart.element)),
    );
  }

  badge() {
    return this.loops.size > 1 ? { count: this.loops.size } : null;
  }

  // Always, also while another view is shown: there is no history but this.
  state(answer) {
    const now = Date.now() / 1000;
    const seen = new Set();
    for (const one of answer.processes) {
      for (const loop of one.loops || []) {
        const key = `${one.pid}/${loop.id}`;
        seen.add(key);
        if (!this.loops.has(key)) this.loops.set(key, new LoopHistory(one.pid, loop));
        const kept = this.loops.get(key);
        kept.program = one.program;
        kept.process = one;
        kept.add(now, loop);
      }
      const before = this.pools.get(one.pid);
      this.pools.set(one.pid, { now, one, before: before && { now: before.now, one: before.one } });
    }
    for (const key of this.loops.keys()) {
      if (!seen.has(key)) this.loops.delete(key);
    }
    if (this.element.isConnected) this.draw();
  }

  async refresh() {
    this.draw();
  }

  draw() {
    const loops = [...this.loops.values()];
    if (!loops.length) {
      fill(this.cards, h("div", { class: "empty card" }, h("strong", null, "No loop runs"), "It is shown as soon as the program runs one."));
    } else {
      fill(this.cards, loops.map((one, number) => this.card(one, number)));
    }
    for (const chart of this.charts) chart.draw(loops.slice(0, SHOWN));
  }

  card(one, number) {
    const loop = one.loop;
    const busy = one.now("busy");
    const tile = (name, value, more) => h("div", { class: "tile" }, h("dt", null, name), h("dd", null, value, more && h("small", null, ` ${more}`)));
    const stuck = loop.phase === "awake" && loop.in_phase > 0.1;
    return h(
      "article",
      { class: "card" },
      h(
        "div",
        { class: "loop-head" },
        h("span", { class: "key", style: { background: number < SHOWN ? colourOf(number) : "transparent" } }),
        h("h2", null, `Process ${one.pid}, loop ${one.id}`),
        stuck && h("span", { class: "tag" }, `in one turn for ${seconds(loop.in_phase)}`),
        h("span", { class: "soft far" }, `for ${seconds(loop.age)}`),
        h("code", { title: one.program }, one.program),
      ),
      h(
        "dl",
        { class: "tiles" },
        tile("Busy", busy === null ? "–" : percent(busy / 100)),
        tile("Lag", seconds(one.now("half")), `99 %: ${seconds(one.now("most"))}`),
        tile("Tasks", count(loop.tasks)),
        tile("Ready", count(loop.ready)),
        tile("Timers", count(loop.timers)),
        tile("Steps", one.now("steps") === null ? "–" : count(one.now("steps")), "/s"),
        this.more(one, tile),
      ),
    );
  }

  // Of the process: its threads, processor and memory, where it tells them.
  more(one, tile) {
    const { now, before } = this.pools.get(one.pid) || {};
    const { pool, process } = one.process;
    const tiles = [];
    if (pool) tiles.push(tile("Threads", `${pool.busy} of ${pool.threads}`, pool.queued ? `${plural(pool.queued, "call")} wait` : "busy"));
    if (process) {
      const earlier = before && before.one.process;
      const share = earlier ? (process.cpu - earlier.cpu) / Math.max(now - before.now, 0.05) : null;
      tiles.push(tile("Processor", share === null ? "–" : percent(Math.max(share, 0))));
      tiles.push(tile("Memory", bytes(process.rss)));
    }
    return tiles;
  }
}
