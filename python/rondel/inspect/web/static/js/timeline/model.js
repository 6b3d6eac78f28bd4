// The recording as rows: a task each, and below it one for the calls that threads made for it (a task
// waits for one at a time, so they stand in a row).
// Times are microseconds (`inspect/web/timeline.py` has the format).

export const KINDS = ["ready", "sleep", "thread", "world", "inside"];
const WAIT = 6; // numbers of a wait

export class Model {
  constructor(data) {
    this.data = data;
    this.end = Math.max(data.seconds * 1e6, 1);
    // From the first task to the last end.
    const tasks = data.tasks;
    this.from = tasks.length ? Math.min(...spread(tasks, (task) => task.created)) : 0;
    this.to = tasks.length ? Math.max(...spread(tasks, (task) => task.ended ?? this.end)) : this.end;
    if (this.to <= this.from) this.to = this.from + 1;
    this.idle = tasks.filter((task) => !task.steps.length).length;
    this.choose({ idle: false, words: "" });
  }

  // Which tasks are rows: with or without those that never ran, and of all these words; with their
  // creators.
  choose({ idle, words }) {
    const { data } = this;
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = data.tasks.map((task) => {
      const text = `${task.name} ${task.runs} ${this.text(task.place)}`.toLowerCase();
      return (idle || task.steps.length > 0) && wanted.every((word) => text.includes(word));
    });
    // Children stand behind their parents.
    for (let i = shown.length - 1; i >= 0; i--) {
      if (shown[i] && data.tasks[i].parent >= 0) shown[data.tasks[i].parent] = true;
    }
    this.rows = [];
    this.rowOfTask = new Array(data.tasks.length).fill(-1);
    data.tasks.forEach((task, number) => {
      if (!shown[number]) return;
      this.rowOfTask[number] = this.rows.length;
      this.rows.push({ task, number, depth: task.depth, label: labelOf(task), calls: null });
      const calls = [];
      for (let i = 0; i < task.waits.length; i += WAIT) {
        const call = KINDS[task.waits[i + 2]] === "thread" ? data.calls[task.waits[i + 5]] : null;
        if (call && call.begun !== null) calls.push(call);
      }
      if (calls.length) {
        const names = [...new Set(calls.map((call) => call.runs))];
        const name = names.length === 1 ? `in a thread: ${names[0]}` : `in threads: ${names.join(", ")}`;
        this.rows.push({ task, number, depth: task.depth + 1, label: { name, more: "" }, calls });
      }
    });
  }

  text(number) {
    return number < 0 ? "" : this.data.texts[number];
  }

  name(number) {
    const task = this.data.tasks[number];
    return task ? labelOf(task).name : "";
  }

  wait(task, i) {
    const [begin, end, kind, what, place, other] = task.waits.slice(i * WAIT, i * WAIT + WAIT);
    return { begin, end, kind: KINDS[kind], what: this.text(what), place: this.text(place), other };
  }

  // What is at a moment of a row: a step, a wait, or nothing.
  at(row, time, slack) {
    const { task, calls } = row;
    if (calls) {
      const call = calls.find((one) => time >= one.begun - slack && time <= (one.ended ?? this.end) + slack);
      return call ? { kind: "call", begin: call.begun, end: call.ended ?? this.end, call } : null;
    }
    let best = null;
    const steps = task.steps;
    let i = Math.max(below(steps, 2, time - slack) - 1, 0);
    for (; i * 2 < steps.length && steps[i * 2] <= time + slack; i++) {
      if (steps[i * 2 + 1] >= time - slack) best = { kind: "run", begin: steps[i * 2], end: steps[i * 2 + 1], step: i };
      if (best && best.begin <= time && best.end >= time) break;
    }
    if (best) return best;
    const j = below(task.waits, WAIT, time + 1e-9) - 1;
    if (j >= 0) {
      const wait = this.wait(task, j);
      if (wait.end >= time) return wait;
    }
    return null;
  }

  // Where a task's time went: waits of a kind at a place, the longest first.
  sums(task) {
    const found = new Map();
    for (let i = 0; i * WAIT < task.waits.length; i++) {
      const wait = this.wait(task, i);
      const key = `${wait.kind}/${wait.what}/${wait.place}`;
      const sum = found.get(key) || { ...wait, times: 0, total: 0, longest: 0 };
      sum.times += 1;
      sum.total += wait.end - wait.begin;
      sum.longest = Math.max(sum.longest, wait.end - wait.begin);
      found.set(key, sum);
    }
    return [...found.values()].sort((a, b) => b.total - a.total);
  }

  // The share of each of `cells` parts of a time in which some task ran.
  density(cells, { from, to }) {
    const share = new Float32Array(cells);
    const size = (to - from) / cells;
    for (const { steps } of this.data.tasks) {
      for (let i = 0; i < steps.length; i += 2) {
        let at = steps[i] - from;
        const end = steps[i + 1] - from;
        for (let cell = Math.floor(at / size); at < end && cell < cells; cell++) {
          const until = Math.min(end, (cell + 1) * size);
          if (cell >= 0) share[cell] += (until - at) / size;
          at = until;
        }
      }
    }
    return share;
  }
}

// Chunks: a call has no place for a hundred thousand arguments.
function spread(tasks, of) {
  const found = [];
  for (let i = 0; i < tasks.length; i += 10000) {
    const part = tasks.slice(i, i + 10000).map(of);
    found.push(Math.min(...part), Math.max(...part));
  }
  return found;
}

function labelOf(task) {
  const plain = task.name === "?" || /^Task-\d+$/.test(task.name);
  return plain ? { name: task.runs, more: "" } : { name: task.name, more: task.runs };
}

// How many of the spans (of `width` numbers each) begin before `time`.
export function below(spans, width, time) {
  let low = 0;
  let high = spans.length / width;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans[middle * width] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}
