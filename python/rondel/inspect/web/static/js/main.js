// The page: which process, which view, and the beat of both.

import { ask } from "./api.js";
import { fill, h } from "./dom.js";
import { count } from "./format.js";
import { helpDialog, listen } from "./keys.js";
import { LoopsView } from "./loops.js";
import { Poll } from "./poll.js";
import { RequestsView } from "./requests.js";
import { StallsView } from "./stalls.js";
import { TasksView } from "./tasks.js";
import { toggleTheme } from "./theme.js";
import { RecordView } from "./record.js";

const shown = { pid: null, processes: [], show, openTask };
const views = [
  new TasksView(shown),
  new RecordView(shown),
  new LoopsView(shown),
  new RequestsView(shown),
  new StallsView(shown),
];
const place = document.getElementById("view");
const tabs = document.getElementById("tabs");
const notice = document.getElementById("notice");
const pulse = document.getElementById("pulse");
let view = views[0];
let frozen = false;
const failures = new Map();

const beat = new Poll(state, 1, (error) => told("state", error));
const look = new Poll(() => view.refresh(), 1, (error) => told("view", error));

function told(what, error) {
  if (error && error.name === "AbortError") return;
  failures.set(what, error);
  const worst = failures.get("state") || failures.get("view");
  notice.hidden = !worst;
  if (worst && notice.textContent !== worst.message) notice.textContent = worst.message;
  const lost = failures.get("state");
  pulse.className = `pulse ${lost ? "lost" : frozen ? "held" : "live"}`;
  pulse.textContent = lost ? "lost" : frozen ? "frozen" : "live";
}

async function state() {
  const answer = await ask("state");
  shown.processes = answer.processes;
  const able = answer.processes.filter((one) => !one.error && one.loops.length);
  if (!answer.processes.some((one) => one.pid === shown.pid)) {
    // The program itself; else the first worker.
    shown.pid = (able.find((one) => one.pid === answer.root) || able[0] || answer.processes[0] || {}).pid;
    chooser();
    look.now();
  } else if (able.length && !able.some((one) => one.pid === shown.pid) && shown.guessed !== false) {
    shown.pid = able[0].pid;
    look.now();
  }
  chooser();
  for (const one of views) one.state(answer);
  for (const tab of tabs.children) tab.lastElementChild.replaceChildren(...badge(tab));
}

function badge(tab) {
  const told = views[Number(tab.dataset.view)].badge();
  return told ? [h("span", { class: `count ${told.bad ? "bad" : ""}` }, count(told.count))] : [];
}

function chooser() {
  const area = document.getElementById("process");
  const loops = shown.processes.filter((one) => !one.loops || one.loops.length);
  const able = loops.length ? loops : shown.processes;
  const key = JSON.stringify(able.map((one) => [one.pid, one.program])) + shown.pid;
  if (area.dataset.key === key) return;
  area.dataset.key = key;
  const named = (one) => `${one.pid} · ${one.program || "?"}`;
  if (able.length === 1) {
    fill(area, h("span", { class: "only", title: named(able[0]) }, named(able[0])));
    return;
  }
  const options = able.map((one) => {
    return h("option", { value: String(one.pid), selected: one.pid === shown.pid }, named(one).slice(0, 90));
  });
  const select = h("select", { "aria-label": "Process" }, options);
  select.addEventListener("change", () => {
    shown.pid = Number(select.value);
    shown.guessed = false;
    for (const one of views) one.moved?.();
    look.now(true);
  });
  fill(area, select);
}

function show(next, focus = false) {
  view = typeof next === "string" ? views.find((one) => one.name === next) : next;
  fill(place, view.element);
  for (const tab of tabs.children) {
    const mine = views[Number(tab.dataset.view)] === view;
    tab.setAttribute("aria-selected", String(mine));
    tab.tabIndex = mine ? 0 : -1;
    if (mine && focus) tab.focus();
  }
  place.setAttribute("aria-labelledby", `tab-${view.name}`);
  document.title = `${view.title} – Rondel inspector`;
  history.replaceState(null, "", `#${view.name}`);
  failures.delete("view");
  look.now(true);
}

// From a request or a stall to its task.
function openTask(pid, id) {
  if (pid !== shown.pid) {
    shown.pid = pid;
    shown.guessed = false;
    views[0].moved();
    chooser();
  }
  show("tasks");
  views[0].open(id);
}

function freeze() {
  frozen = !frozen;
  document.getElementById("freeze").setAttribute("aria-pressed", String(frozen));
  beat.freeze(frozen);
  look.freeze(frozen);
  told("frozen", null);
}

function makeTabs() {
  views.forEach((one, number) => {
    tabs.append(
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${one.name}`,
          "aria-controls": "view",
          "data-view": number,
          title: `${one.title} (${number + 1})`,
          onclick: () => show(one),
        },
        one.title,
        h("span", { class: "badge" }),
      ),
    );
  });
  place.setAttribute("role", "tabpanel");
  tabs.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowLeft: -1 };
    const at = views.indexOf(view);
    let to = null;
    if (event.key in moves) to = (at + moves[event.key] + views.length) % views.length;
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = views.length - 1;
    if (to !== null) {
      event.preventDefault();
      show(views[to], true);
    }
  });
}

makeTabs();
document.getElementById("freeze").addEventListener("click", freeze);
document.getElementById("theme").addEventListener("click", toggleTheme);
const dialog = helpDialog();
document.getElementById("help").addEventListener("click", () => dialog.showModal());
const actions = {
  f: freeze,
  t: toggleTheme,
  "?": () => dialog.showModal(),
  "/": () => place.querySelector("input[type=search]")?.focus(),
  r: () => view.record?.(),
};
views.forEach((one, number) => (actions[String(number + 1)] = () => show(one)));
listen(actions);
shown.frozen = () => frozen;
shown.again = () => look.now(true);
show(views.find((one) => `#${one.name}` === location.hash) || views[0]);
beat.start();
look.start();
