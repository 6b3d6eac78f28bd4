// What is told of a row of the tree: a task with its await chain, or many and a list of them.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { count, place, plural, seconds } from "./format.js";

export class Detail {
  // `query` is the filter of the tree, `back` takes the focus there.
  constructor(shown, query, back) {
    this.shown = shown;
    this.query = query;
    this.element = h("aside", { class: "card detail", "aria-label": "Chosen task", tabindex: "-1" });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") back();
    });
    this.clear();
  }

  clear() {
    this.row = null;
    this.task = null;
    this.begin = 0;
    this.key = "";
    fill(this.element, h("div", { class: "empty" }, h("strong", null, "No task is chosen"), "Choose a row to see its await chain."));
  }

  show(row) {
    this.row = row;
    this.task = row.task;
    this.begin = 0;
    this.key = "";
    this.load();
  }

  open(id) {
    this.row = this.row && this.row.task === null ? this.row : null;
    this.task = id;
    this.key = "";
    this.load();
  }

  // The tree is another one: the chosen row's part of it.
  async refresh(rows) {
    if (this.row) {
      const now = rows.find((row) => row.id === this.row.id);
      if (now) {
        if (this.task !== null && this.task === this.row.task && now.task !== this.task) this.task = now.task;
        this.row = now;
      }
    }
    if (this.row || this.task !== null) await this.load();
  }

  async load() {
    const asked = [this.row && this.row.id, this.task, this.begin].join();
    this.asked = asked;
    let children;
    try {
      children = this.task !== null ? this.one(await ask("task", { pid: this.shown.pid, id: this.task })) : await this.many();
    } catch (error) {
      if (error.status !== 404) throw error;
      children = this.ended();
    }
    // Another row was chosen meanwhile, or somebody marks text in here.
    if (this.asked !== asked || (this.key === asked && this.isMarked())) return;
    const kept = this.key === asked ? this.element.scrollTop : 0;
    const had = this.element.contains(document.activeElement) && document.activeElement !== this.element;
    fill(this.element, children);
    this.element.scrollTop = kept;
    if (had) this.element.focus();
    this.key = asked;
  }

  isMarked() {
    const marked = getSelection();
    return Boolean(marked && !marked.isCollapsed && this.element.contains(marked.anchorNode));
  }

  ended() {
    return [this.back(), h("h2", null, "Ended"), h("p", { class: "under" }, "This task is not there any more.")];
  }

  back() {
    if (!this.row || this.row.task !== null || this.task === null) return null;
    const text = `‹ all ${count(this.row.count)}`;
    return h("button", { type: "button", class: "link", onclick: () => this.show(this.row) }, text);
  }

  one(task) {
    const facts = [
      ["State", h("span", { class: `state ${task.state}` }, task.state)],
      ["Age", seconds(task.age)],
      task.cancels ? ["Cancelled", plural(task.cancels, "time")] : null,
      task.created ? ["Created at", `${task.created[2]}  ${place(task.created)}`] : null,
      ["Number", `${task.id}, loop ${task.loop}`],
    ];
    return [
      this.back(),
      h("h2", null, task.name),
      h("p", { class: "under mono" }, task.coro),
      facts_(facts),
      h("h3", null, "Await chain"),
      chain(task.chain, task.wait),
      this.tasks("Waits for", task.awaits.length, task.awaits),
      this.tasks("Created by", task.creators.length, task.creators),
      this.tasks("Is waited for by", task.waited_by.count, task.waited_by.tasks),
      this.tasks("Has created", task.made.count, task.made.tasks),
    ];
  }

  async many() {
    const row = this.row;
    const asked = { ...this.query(), row: row.id, begin: this.begin };
    const answer = await ask("members", asked);
    const facts = [
      ["Tasks", count(row.count)],
      ...Object.entries(row.states).map(([state, number]) => [
        h("span", { class: `state ${state}` }, state),
        count(number),
      ]),
      ["Ages", `${seconds(row.youngest)} to ${seconds(row.age)}`],
    ];
    const step = (text, begin) => {
      return h("button", { type: "button", onclick: () => ((this.begin = begin), this.load()) }, text);
    };
    const last = answer.begin + answer.tasks.length;
    return [
      h("h2", null, row.coro),
      h("p", { class: "under" }, `${plural(row.count, "task")} that wait at the same place`),
      facts_(facts),
      h("h3", null, "Await chain"),
      chain(row.chain, row.wait),
      this.tasks("Tasks", answer.count, answer.tasks),
      h(
        "div",
        { class: "bar" },
        answer.begin > 0 && step("‹ earlier", Math.max(answer.begin - 200, 0)),
        last < answer.count && step(`${count(answer.count - last)} more ›`, last),
      ),
    ];
  }

  tasks(title, number, tasks) {
    if (!number) return null;
    return [
      h("h3", null, `${title}${number > 1 ? ` (${count(number)})` : ""}`),
      h(
        "ul",
        { class: "list" },
        tasks.map((task) => {
          return h(
            "li",
            null,
            h("button", { type: "button", class: "link", title: task.coro, onclick: () => this.open(task.id) }, task.name),
            h("span", { class: `state ${task.state}` }, task.state),
            h("span", { class: "number" }, seconds(task.age)),
          );
        }),
        number > tasks.length && title !== "Tasks" && h("li", null, h("span", { class: "soft" }, `and ${count(number - tasks.length)} more`)),
      ),
    ];
  }
}

function facts_(pairs) {
  const shown = pairs.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]);
  return h("dl", { class: "facts" }, shown);
}

function chain(frames, wait) {
  const links = frames.map((frame) => {
    return h("li", null, frame[2], place(frame) && h("span", { class: "place", title: frame[0] }, place(frame)));
  });
  if (wait) links.push(h("li", { class: "end" }, `→ ${wait}`));
  return links.length ? h("ol", { class: "chain" }, links) : h("p", { class: "soft" }, "It runs: where, its stack tells (`rondel stalls`, if it takes long).");
}
