// What the timeline says: of a span, of a task, and what the whole recording amounts to.

import { h } from "../dom.js";
import { count, micros, plural } from "../format.js";

const KIND = { run: "runs", ready: "could run, others do", sleep: "sleeps", thread: "a thread works for it", world: "waits for the world", inside: "waits for other tasks" };
const LISTED = 40;

export function tipOf(model, row, found) {
  const time = h("span", { class: "number" }, `${micros(found.end - found.begin)}, from ${micros(found.begin - model.from)}`);
  if (found.call) return [h("strong", null, found.call.runs), "runs in a thread ", time];
  const title = h("strong", null, row.label.name);
  if (found.kind === "run") return [title, "runs ", time];
  const other = found.kind === "inside" && found.other >= 0 ? ` (${model.name(found.other)})` : "";
  return [title, `${KIND[found.kind]}: ${found.what}${other} `, time, found.place && h("span", { class: "place" }, found.place)];
}

export function detailOf(model, row, open) {
  const { task } = row;
  const link = (number) => h("button", { type: "button", class: "link", onclick: () => open(number) }, model.name(number));
  const steps = task.steps.length / 2;
  let longest = 0;
  for (let i = 0; i < task.steps.length; i += 2) longest = Math.max(longest, task.steps[i + 1] - task.steps[i]);
  const facts = [
    ["Ended", task.ended === null ? "not over" : { result: "with a result", exception: "failed", cancelled: "cancelled" }[task.outcome]],
    ["Lived", micros((task.ended ?? model.end) - task.created)],
    ["Ran", `${micros(task.ran)} in ${plural(steps, "step")}`],
    ["Longest step", steps ? micros(longest) : "–"],
    ["Created", `after ${micros(task.created - model.from)}`],
    task.place >= 0 ? ["At", h("code", null, model.text(task.place))] : null,
    task.parent >= 0 ? ["By", link(task.parent)] : null,
    ...task.cancels.map(([at, by]) => ["Cancel", [`after ${micros(at - model.from)}`, by >= 0 ? " by " : "", by >= 0 ? link(by) : ""]]),
  ];
  const sums = model.sums(task);
  return [
    h("h2", null, row.label.name),
    h("p", { class: "under mono" }, task.runs),
    h("dl", { class: "facts" }, facts.filter(Boolean).map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
    sums.length > 0 && h("h3", null, "Waits"),
    h(
      "ol",
      { class: "chain" },
      sums.slice(0, LISTED).map((sum) => {
        const often = sum.times > 1 ? `${count(sum.times)} times, ${micros(sum.total)}, at most ${micros(sum.longest)}` : micros(sum.total);
        return h("li", null, `${KIND[sum.kind]}: ${sum.what}`, h("span", { class: "soft number" }, `  ${often}`), sum.place && h("span", { class: "place" }, sum.place));
      }),
      sums.length > LISTED && h("li", null, `and ${plural(sums.length - LISTED, "other place")}`),
    ),
  ];
}

export function findingsOf(data) {
  const { summary, remarks } = data.findings;
  return h(
    "section",
    { class: "card findings", "aria-label": "Findings" },
    summary.length > 0 && h("p", null, summary.join(" ")),
    remarks.map((remark) => {
      return h("p", { class: "remark" }, h("strong", null, "! "), remark.replace(/^! /, ""));
    }),
  );
}
