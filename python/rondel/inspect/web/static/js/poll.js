// Asks again and again: not while the page is hidden or frozen, never twice at once, and less often
// when answers take long, so that a large process is not kept busy by being looked at.

export class Poll {
  // `work` resolves to how many seconds its answer took the process (or nothing).
  constructor(work, seconds, failed) {
    this.work = work;
    this.seconds = seconds;
    this.failed = failed;
    this.frozen = false;
    this.running = false;
    this.active = false;
    this.timer = 0;
    this.errors = 0;
    document.addEventListener("visibilitychange", () => this.now());
  }

  start() {
    this.active = true;
    this.now();
  }

  stop() {
    this.active = false;
    clearTimeout(this.timer);
  }

  freeze(frozen) {
    this.frozen = frozen;
    this.now();
  }

  // At once, also while frozen if it is `asked` for.
  async now(asked = false) {
    clearTimeout(this.timer);
    if (!this.active || document.hidden || (this.frozen && !asked)) return;
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    this.again = false;
    let took = 0;
    try {
      took = (await this.work()) || 0;
      this.errors = 0;
      this.failed(null);
    } catch (error) {
      this.errors += 1;
      this.failed(error);
    }
    this.running = false;
    if (this.again) {
      this.now(asked);
      return;
    }
    const wait = Math.max(this.seconds, took * 4) * Math.min(2 ** this.errors, 10);
    this.timer = setTimeout(() => this.now(), wait * 1000);
  }
}
