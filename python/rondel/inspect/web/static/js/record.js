// The timeline's view: have the process record for some seconds, then draw what it did.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { plural, seconds } from "./format.js";
import { Timeline } from "./timeline/view.js";

export class RecordView {
  constructor(shown) {
    this.name = "timeline";
    this.title = "Timeline";
    this.shown = shown;
    this.asked = null;
    this.length = h("select", { "aria-label": "How long" }, ["1", "2", "5", "10", "30", "60"].map((one) => h("option", { value: one, selected: one === "2" }, `${one} s`)));
    this.button = h("button", { type: "button", class: "main", disabled: true, onclick: () => this.record() }, "Record");
    this.told = h("span", { class: "far", role: "status" });
    this.meter = h("div", { class: "meter", hidden: true }, h("i", null));
    this.place = h("div", { class: "tl-place" });

    this.element = h("section", { class: "panel-view", "aria-label": "Timeline" }, h("div", { class: "bar" }, this.length, this.button, this.meter, this.told), this.place);
    this.empty();
  }

  empty() {
    fill(
      this.place,
      h(
        "div",
        { class: "card empty" },
        h("strong", null, "Nothing is recorded yet"),
        "Record for some seconds: every task is a row, with its steps, its waits and its end. ",
        "While it lasts, each step costs the process some 0.3 µs more.",
      ),
    );
  }

  badge() {
    return this.asked ? { count: 1, bad: true } : null;
  }

  state() {
    this.button.disabled = !this.shown.pid;
  }

  async refresh() {}

  async record() {
    if (this.asked) {
      this.asked.abort();
      return;
    }
    if (!this.shown.pid) return;
    const wanted = Number(this.length.value);
    const pid = this.shown.pid;
    this.asked = new AbortController();
    this.button.textContent = "Stop";
    this.meter.hidden = false;
    const began = performance.now();
    const tick = setInterval(() => {
      const past = (performance.now() - began) / 1000;
      this.meter.firstChild.style.width = `${Math.min(past / wanted, 1) * 100}%`;
      this.told.textContent = past < wanted ? `recording process ${pid}` : "taking the recording over";
    }, 100);
    try {
      const data = await ask("record", { pid, seconds: wanted }, { method: "POST", signal: this.asked.signal });
      this.draw(data);
      const joined = data.joined ? `; steps under ${seconds(data.joined / 1e6)} apart are joined` : "";
      this.told.textContent = `process ${pid}: ${plural(data.tasks.length, "task")} in ${seconds(data.seconds)}${joined}`;
    } catch (error) {
      this.told.textContent = error.name === "AbortError" ? "stopped" : error.message;
    } finally {
      clearInterval(tick);
      this.asked = null;
      this.button.textContent = "Record";
      this.meter.hidden = true;
    }
  }

  draw(data) {
    this.timeline = new Timeline(data);
    fill(this.place, this.timeline.element);
    this.timeline.focus();
  }
}
