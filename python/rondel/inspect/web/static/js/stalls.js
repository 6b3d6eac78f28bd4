// What kept loops from running, with the stack during it, the last one first.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { seconds } from "./format.js";
import { frames } from "./stack.js";

export class StallsView {
  constructor(shown) {
    this.name = "stalls";
    this.title = "Stalls";
    this.shown = shown;
    this.count = 0;
    this.key = "";
    this.list = h("div", null);
    this.element = h("section", { class: "panel-view scrolls", "aria-label": "Stalls" }, this.list);
    this.beats = 0;
  }

  badge() {
    return this.count ? { count: this.count, bad: true } : null;
  }

  // They are told of in the tab as well.
  state() {
    if (!this.element.isConnected && this.beats++ % 5 === 0) this.refresh().catch(() => {});
  }

  async refresh() {
    const answer = await ask("stalls");
    const stalls = answer.processes.flatMap((one) => (one.stalls || []).map((stall) => ({ ...stall, pid: one.pid })));
    stalls.sort((a, b) => b.at - a.at);
    this.count = stalls.length;
    const key = JSON.stringify(stalls);
    if (key === this.key) return;
    this.key = key;
    const many = answer.processes.length > 1;
    if (stalls.length) fill(this.list, stalls.map((stall) => this.card(stall, many)));
    else {
      const words = "A step that keeps a loop for more than 100 ms is shown here, with its stack.";
      fill(this.list, h("div", { class: "card empty" }, h("strong", null, "No loop has stalled"), words));
    }
  }

  card(stall, many) {
    const who = stall.name === null || stall.name === undefined ? "a callback" : `task ${stall.name}`;
    const task = stall.task && h("button", { type: "button", class: "link", onclick: () => this.shown.openTask(stall.pid, stall.task) }, who);
    return h(
      "article",
      { class: "card stall" },
      h(
        "h2",
        null,
        h("span", { class: "long" }, seconds(stall.seconds)),
        h("span", null, stall.over ? "in one step of " : "so far in one step of ", task || who),
        stall.coro && h("code", { class: "soft" }, stall.coro),
        stall.native && h("span", { class: "tag" }, "the GIL is held by native code"),
        stall.count > 1 && h("span", { class: "soft" }, `the longest of ${stall.count}`),
      ),
      h("p", { class: "soft" }, `${new Date(stall.at * 1000).toLocaleString()}${many ? `, process ${stall.pid}` : ""}${this.request(stall)}`),
      frames(stall.stack),
    );
  }

  request(stall) {
    const request = stall.request;
    if (!request || typeof request !== "object") return "";
    return `, request ${request.method || ""} ${request.path || ""}${request.view ? ` (${request.view})` : ""}`;
  }
}
