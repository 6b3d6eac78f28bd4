// Requests under way and the last ones that ended, each as a bar of where its time went, and what part
// of all was spent on hops between the loop and threads (Django's async tax).

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { count, percent, seconds } from "./format.js";
import { frames } from "./stack.js";

const SHOWN = 200;
const FALLING = 40; // of a waterfall

export class RequestsView {
  constructor(shown) {
    this.name = "requests";
    this.title = "Requests";
    this.shown = shown;
    this.under = 0;
    this.open = new Set(); // requests whose thread's stack is shown
    this.search = h("input", { type: "search", placeholder: "Path, view, method, status", "aria-label": "Filter requests", oninput: () => this.draw() });
    this.order = h(
      "select",
      { "aria-label": "Order", onchange: () => this.draw() },
      h("option", { value: "new" }, "newest first"),
      h("option", { value: "slow" }, "slowest first"),
      h("option", { value: "hops" }, "most hops first"),
      h("option", { value: "fall" }, "as a waterfall"),
    );
    this.sum = h("span", { class: "far number", role: "status" });
    this.tiles = h("dl", { class: "tiles" });
    this.body = h("tbody", null);
    this.none = h("div", { class: "empty" });
    this.table = h(
      "table",
      null,
      h(
        "thead",
        null,
        h("tr", null, ["", "Request", "View", "State"].map((name) => h("th", { scope: "col" }, name)), h("th", { class: "right", scope: "col" }, "Time"), h("th", { class: "right", scope: "col" }, "Hops"), h("th", { scope: "col" }, "Where the time went"), h("th", { scope: "col" }, "")),
      ),
      this.body,
    );
    this.element = h(
      "section",
      { class: "panel-view", "aria-label": "Requests" },
      h("div", { class: "card" }, this.tiles),
      h("div", { class: "bar" }, this.search, this.order, this.sum),
      h("div", { class: "card sheet", tabindex: "0", role: "region", "aria-label": "Table of requests" }, this.table, this.none),
      h(
        "div",
        { class: "keys", "aria-hidden": "true" },
        [["thread", "in a thread"], ["hop", "waits for a thread or the loop (hops)"], ["rest", "on the loop, or waiting for the world"]].map(([kind, text]) => h("span", null, h("i", { class: `key ${kind}` }), text)),
      ),
    );
    this.all = [];
  }

  badge() {
    return this.under ? { count: this.under } : null;
  }

  state() {}

  async refresh() {
    const answer = await ask("requests", this.open.size ? { stacks: 1 } : {});
    this.told = answer.processes.some((one) => !one.error);
    this.why = answer.processes.map((one) => one.error).find(Boolean);
    this.all = answer.processes.flatMap(read);
    const under = new Set(this.all.filter((request) => request.runs).map(key));
    this.under = under.size;
    for (const one of this.open) if (!under.has(one)) this.open.delete(one);
    this.draw();
  }

  draw() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (one) => `${one.method} ${one.path} ${one.view || ""} ${one.status || ""} ${one.state || ""}`.toLowerCase();
    const found = this.all.filter((one) => words.every((word) => text(one).includes(word)));
    const newest = (a, b) => a.since - b.since || b.id - a.id;
    const by = { new: newest, fall: newest, slow: (a, b) => b.time - a.time, hops: (a, b) => (b.hops || 0) - (a.hops || 0) };
    found.sort((a, b) => Number(b.runs) - Number(a.runs) || by[this.order.value](a, b));
    const falls = this.order.value === "fall";
    const shown = found.slice(0, falls ? FALLING : SHOWN);
    // In a waterfall all bars are on one axis of time, which ends now.
    const whole = Math.max(...shown.map((one) => (falls ? one.since : one.time)), 1e-6);
    const cut = found.length > shown.length ? `${shown.length} of ${count(found.length)}` : "";
    this.sum.textContent = falls && shown.length ? `${cut} the last ${seconds(whole)}` : cut;
    this.tax(found);
    const held = this.body.contains(document.activeElement) ? document.activeElement.dataset.button : "";
    fill(this.body, shown.flatMap((one) => [this.row(one, whole, falls), this.stack(one)]));
    // Rows are made anew: who is on a button by the keyboard stays there.
    if (held) [...this.body.querySelectorAll("button")].find((one) => one.dataset.button === held)?.focus();
    this.table.hidden = !shown.length;
    this.none.hidden = Boolean(shown.length);
    if (!shown.length) fill(this.none, this.nothing(words));
  }

  nothing(words) {
    if (this.told === false) return [h("strong", null, "These processes tell nothing of requests"), this.why || ""];
    if (words.length) return [h("strong", null, "No request is like that"), "Take a word out of the filter."];
    return [h("strong", null, "No requests yet"), "Those under way and the last 256 of each process are shown here."];
  }

  // Over all that are shown: how much of their time hops took.
  tax(found) {
    const sum = (name) => found.reduce((all, one) => all + (one[name] || 0), 0);
    const time = sum("time");
    const ended = found.filter((one) => !one.runs).map((one) => one.time).sort((a, b) => a - b);
    const at = (share) => (ended.length ? seconds(ended[Math.min(Math.floor(share * ended.length), ended.length - 1)]) : "–");
    const tile = (name, value, more) => h("div", { class: "tile" }, h("dt", null, name), h("dd", null, value, more && h("small", null, ` ${more}`)));
    fill(
      this.tiles,
      tile("Under way", count(found.filter((one) => one.runs).length)),
      tile("Ended", count(ended.length), "shown"),
      tile("Median", at(0.5)),
      tile("99 % within", at(0.99)),
      tile("Hops", found.length ? (sum("hops") / found.length).toFixed(1) : "–", "a request"),
      tile("Async tax", time ? percent(Math.min(sum("hop_wait") / time, 1)) : "–", "of the time"),
    );
  }

  row(one, whole, falls) {
    const hop = Math.min(one.hop_wait || 0, one.time);
    const thread = Math.min(one.thread_run || 0, one.time - hop);
    const rest = Math.max(one.time - hop - thread, 0);
    const part = (kind, value) => value > 0 && h("i", { class: kind, title: seconds(value), style: { width: `${(value / whole) * 100}%` } });
    const told = `hops ${seconds(hop)}, in a thread ${seconds(thread)}, else ${seconds(rest)}`;
    const state = one.runs ? h("span", { class: `state ${STATES[one.state] || ""}` }, one.state || "under way") : h("span", { class: `status-${String(one.status || "")[0]}` }, one.status || "–");
    return h(
      "tr",
      null,
      h("td", null, one.websocket ? "WS" : one.method || ""),
      h("td", { class: "path", title: one.path }, one.path || ""),
      h("td", { class: "path", title: one.view }, one.view || "–"),
      h("td", null, state),
      h("td", { class: "right" }, seconds(one.time)),
      h("td", { class: "right" }, one.hops ?? "–"),
      h("td", null, h("div", { class: "fall", role: "img", "aria-label": told, title: told }, falls && part("blank", whole - one.since), part("hop", hop), part("thread", thread), part("rest", rest))),
      h(
        "td",
        null,
        one.task && one.runs ? h("button", { type: "button", class: "link", "data-button": `task ${key(one)}`, onclick: () => this.shown.openTask(one.pid, one.task) }, "task") : "",
        " ",
        one.runs && one.state === "thread" ? h("button", { type: "button", class: "link", "data-button": `stack ${key(one)}`, "aria-expanded": String(this.open.has(key(one))), onclick: () => this.toggle(one) }, "stack") : "",
      ),
    );
  }

  // The stack of the thread that is at a request, in a row of its own.
  stack(one) {
    if (!one.runs || !this.open.has(key(one)) || one.state !== "thread") return null;
    const told = one.stack && one.stack.length ? frames(one.stack) : h("span", { class: "soft" }, one.stack ? "No stack could be taken." : "Asking …");
    return h("tr", { class: "inner" }, h("td", { colspan: "8" }, told));
  }

  toggle(one) {
    if (!this.open.delete(key(one))) this.open.add(key(one));
    this.draw();
    this.refresh().catch(() => {});
  }
}

const key = (one) => `${one.pid}:${one.id}`;

const STATES = { queued: "ready", loop: "running", thread: "running", waiting: "waiting" };

// One process's requests; `since` is how long ago each began. Views are known of those under way, and
// of slow ones.
function read(one) {
  const views = new Map((one.slow || []).map((request) => [request.id, request.view]));
  return [
    ...(one.requests || []).map((request) => ({ ...request, pid: one.pid, runs: true, time: request.age || 0, since: request.age || 0 })),
    ...(one.recent || []).map((request) => {
      const time = request.seconds || 0;
      return { ...request, view: request.view ?? views.get(request.id), pid: one.pid, runs: false, time, since: (request.ago || 0) + time };
    }),
  ];
}
