// The tree of tasks. Tasks that wait at the same place are one row; a row is folded and unfolded.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { Detail } from "./detail.js";
import { count, place, plural, seconds } from "./format.js";
import { Rows } from "./rows.js";

const STATES = ["running", "ready", "created", "sleeping", "waiting"];
const AGES = [["", "any age"], ["1", "older than 1 s"], ["10", "older than 10 s"], ["60", "older than 1 min"], ["600", "older than 10 min"], ["3600", "older than 1 h"]];

export class TasksView {
  constructor(shown) {
    this.name = "tasks";
    this.title = "Tasks";
    this.shown = shown;
    this.rows = [];
    this.seen = [];
    this.folded = new Set();
    this.chosen = null;
    this.search = h("input", {
      type: "search",
      placeholder: "Name, function, file, wait",
      "aria-label": "Filter tasks",
      oninput: () => this.changed(),
      onkeydown: (event) => {
        if (event.key === "Escape" || event.key === "Enter") this.list.element.focus();
      },
    });
    this.state_ = this.select("State", [["", "any state"], ...STATES.map((one) => [one, one])]);
    this.older = this.select("Age", AGES);
    this.sum = h("span", { class: "far number", role: "status" });
    this.list = new Rows({
      role: "tree",
      label: "Tasks",
      height: 48,
      make: (index) => this.row(this.seen[index]),
      choose: (index) => this.choose(this.seen[index]),
      keys: (event) => this.key(event),
    });
    this.list.element.classList.add("card");
    this.detail = new Detail(shown, () => this.query(), () => this.list.element.focus());
    this.element = h(
      "section",
      { class: "panel-view", "aria-label": "Tasks" },
      h("div", { class: "bar" }, this.search, this.state_, this.older, this.sum),
      h("div", { class: "split" }, this.list.element, this.detail.element),
    );
    this.total = 0;
  }

  select(label, options) {
    const made = options.map(([value, text]) => h("option", { value }, text));
    return h("select", { "aria-label": label, onchange: () => this.changed() }, made);
  }

  query() {
    return { pid: this.shown.pid, words: this.search.value.trim(), state: this.state_.value, older: this.older.value };
  }

  changed() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.shown.again(), 150);
  }

  moved() {
    this.folded.clear();
    this.chosen = null;
    this.rows = [];
    this.detail.clear();
    this.draw();
  }

  state(answer) {
    const mine = answer.processes.find((one) => one.pid === this.shown.pid);
    this.total = mine && mine.loops ? mine.loops.reduce((sum, loop) => sum + loop.tasks, 0) : 0;
  }

  badge() {
    return this.total ? { count: this.total } : null;
  }

  async refresh() {
    if (!this.shown.pid) return 0;
    const asked = this.query();
    const answer = await ask("tasks", asked);
    if (asked.pid !== this.shown.pid) return 0;
    this.rows = answer.rows;
    const filtered = answer.shown !== answer.total ? `${count(answer.shown)} of ` : "";
    const more = answer.more ? `, ${plural(answer.more, "more row")} not shown` : "";
    this.sum.textContent = `${filtered}${plural(answer.total, "task")}${more}`;
    this.draw();
    await this.detail.refresh(this.rows);
    return answer.took;
  }

  draw() {
    const seen = [];
    let hidden = Infinity;
    for (const row of this.rows) {
      if (row.depth > hidden) continue;
      hidden = this.folded.has(row.id) ? row.depth : Infinity;
      seen.push(row);
    }
    this.seen = seen;
    this.list.set(seen.length, seen.findIndex((row) => row.id === this.chosen));
    if (!seen.length) fill(this.list.space, this.none());
  }

  none() {
    const filtered = this.search.value || this.state_.value || this.older.value;
    return h(
      "div",
      { class: "empty" },
      h("strong", null, filtered ? "No task is like that" : "No tasks"),
      filtered ? "Take a word out of the filter." : "No loop of this process has a task now.",
    );
  }

  row(row) {
    const open = row.below ? !this.folded.has(row.id) : null;
    const many = row.count > 1;
    const inner = innermost(row.chain);
    const names = many ? `${row.names.join(", ")}${row.count > row.names.length ? ", …" : ""}` : row.coro === row.names[0] ? "" : row.coro;
    const states = Object.entries(row.states).sort((a, b) => b[1] - a[1]);
    const element = h(
      "div",
      {
        class: "task",
        role: "treeitem",
        "aria-level": row.depth + 1,
        "aria-expanded": open === null ? null : String(open),
        onclick: () => {
          this.list.select(this.seen.indexOf(row));
          this.list.element.focus();
        },
      },
      h("span", { class: "twist", "aria-hidden": "true", onclick: (event) => this.fold(event, row) }, open === null ? "" : open ? "▼" : "▶"),
      h(
        "div",
        { class: "what" },
        many && h("span", { class: "times" }, `${count(row.count)} × `),
        h("strong", null, many ? row.coro : row.names[0]),
        " ",
        h("span", { class: "names" }, names),
      ),
      h(
        "div",
        { class: "side" },
        row.cancelled && h("span", { class: "tag" }, "cancelled"),
        states.slice(0, 2).map(([state, number]) => {
          return h("span", { class: `state ${state}` }, states.length > 1 ? `${count(number)} ${state}` : state);
        }),
        h("span", { title: many ? "the oldest" : "age" }, seconds(row.age)),
      ),
      h(
        "div",
        { class: "where" },
        inner ? `${inner[2]}  ${place(inner)}` : "",
        row.wait && h("span", { class: "to" }, `  → ${row.wait}`),
      ),
    );
    element.style.paddingLeft = `${8 + Math.min(row.depth, 12) * 18}px`;
    return element;
  }

  fold(event, row) {
    event.stopPropagation();
    if (!row.below) return;
    if (!this.folded.delete(row.id)) this.folded.add(row.id);
    this.draw();
  }

  key(event) {
    const row = this.seen[this.list.chosen];
    if (!row) return false;
    const folded = this.folded.has(row.id);
    if (event.key === "ArrowRight" && row.below) {
      if (folded) this.fold(event, row);
      else this.list.select(this.list.chosen + 1);
    } else if (event.key === "ArrowLeft") {
      if (row.below && !folded) this.fold(event, row);
      else this.toParent(row);
    } else if (event.key === "Enter" || event.key === " ") {
      this.detail.element.focus();
    } else {
      return false;
    }
    return true;
  }

  toParent(row) {
    for (let i = this.list.chosen - 1; i >= 0; i--) {
      if (this.seen[i].depth < row.depth) {
        this.list.select(i);
        return;
      }
    }
  }

  choose(row) {
    this.chosen = row.id;
    this.detail.show(row);
  }

  // One task by its number, from elsewhere.
  open(id) {
    this.detail.open(id);
  }
}

// The innermost line of the program's own: not native, and not in asyncio if there is another.
function innermost(chain) {
  const lines = chain.filter((frame) => frame[0] !== "<native>");
  return lines.filter((frame) => !frame[0].includes("/asyncio/")).pop() || lines.pop() || chain[chain.length - 1];
}
