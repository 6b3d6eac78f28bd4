// A list of any length of which only what is seen is in the document.
//
// The list has the focus; `aria-activedescendant` is the chosen row. Rows are made anew whenever the
// list changes or scrolls.

import { h } from "./dom.js";

export class Rows {
  // `make(index, chosen)` gives a row's element; `choose(index)` is told of the chosen one.
  constructor({ role, label, height, make, choose, keys }) {
    this.height = height;
    this.make = make;
    this.choose = choose;
    this.keys = keys;
    this.length = 0;
    this.chosen = -1;
    this.id = `rows-${Rows.next++}`;
    this.space = h("div", { class: "space", role: "presentation" });
    this.element = h(
      "div",
      { class: "rows", role, "aria-label": label, tabindex: "0", onscroll: () => this.draw() },
      this.space,
    );
    this.element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  set(length, chosen = this.chosen) {
    this.length = length;
    this.chosen = chosen < length ? chosen : -1;
    this.space.style.height = `${length * this.height}px`;
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(Math.floor(scrollTop / this.height) - 4, 0);
    const last = Math.min(Math.ceil((scrollTop + clientHeight) / this.height) + 4, this.length);
    const made = [];
    for (let i = first; i < last; i++) {
      const row = this.make(i, i === this.chosen);
      row.classList.add("row");
      row.id = `${this.id}-${i}`;
      row.style.top = `${i * this.height}px`;
      row.style.height = `${this.height}px`;
      row.setAttribute("aria-selected", String(i === this.chosen));
      row.setAttribute("aria-setsize", String(this.length));
      row.setAttribute("aria-posinset", String(i + 1));
      made.push(row);
    }
    this.space.replaceChildren(...made);
    const seen = this.chosen >= first && this.chosen < last;
    if (seen) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.chosen}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  select(index, { quietly = false } = {}) {
    if (index < 0 || index >= this.length) return;
    this.chosen = index;
    const top = index * this.height;
    const view = this.element;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + this.height > view.scrollTop + view.clientHeight) {
      view.scrollTop = top + this.height - view.clientHeight;
    }
    this.draw();
    if (!quietly) this.choose(index);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(Math.floor(this.element.clientHeight / this.height) - 1, 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    let to = null;
    if (event.key in moves) to = this.chosen < 0 ? 0 : this.chosen + moves[event.key];
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = this.length - 1;
    if (to !== null) {
      this.select(Math.min(Math.max(to, 0), this.length - 1));
      event.preventDefault();
    } else if (this.keys && this.keys(event)) {
      event.preventDefault();
    }
  }
}
Rows.next = 1;
