// What loops counted, second by second: windows are the differences of two answers.

const KEPT = 300; // points of a loop

export class LoopHistory {
  constructor(pid, loop) {
    this.pid = pid;
    this.id = loop.id;
    this.times = [];
    this.busy = [];
    this.half = [];
    this.most = [];
    this.ready = [];
    this.tasks = [];
    this.steps = [];
    this.last = null;
  }

  // `at` is in seconds since 1970.
  add(at, loop) {
    const before = this.last;
    this.last = { at, loop };
    this.loop = loop;
    if (before === null || at <= before.at) return;
    const lag = loop.lag.map((number, i) => number - (before.loop.lag[i] || 0));
    // Both ends of it by the loop's own clock; an idle phase under way counts as well.
    const span = Math.max(loop.age - before.loop.age, 1e-3);
    const idle = idleOf(loop) - idleOf(before.loop);
    this.push(this.times, at);
    this.push(this.busy, Math.min(Math.max(1 - idle / span, 0), 1) * 100);
    this.push(this.half, late(lag, 0.5));
    this.push(this.most, late(lag, 0.99));
    this.push(this.ready, loop.ready);
    this.push(this.tasks, loop.tasks);
    this.push(this.steps, (loop.steps - before.loop.steps) / span);
  }

  push(list, value) {
    list.push(value);
    if (list.length > KEPT) list.shift();
  }

  now(name) {
    const list = this[name];
    return list.length ? list[list.length - 1] : null;
  }
}

function idleOf(loop) {
  return loop.idle + (loop.phase === "idle" ? loop.in_phase : 0);
}

// Seconds that this share of the timers was late by at most; none if no timer was due.
export function late(lag, share) {
  const all = lag.reduce((sum, number) => sum + number, 0);
  if (!all) return null;
  let seen = 0;
  for (let power = 0; power < lag.length; power++) {
    seen += lag[power];
    if (lag[power] && seen >= share * all) return 2 ** power * 1e-6;
  }
  return null;
}
