// A chart of some loops over the last minutes, by uPlot.

import { colour, h } from "./dom.js";
import { onTheme } from "./theme.js";

const COLOURS = ["#6366f1", "#0ea5a4", "#e0822b", "#d6409f", "#4c9f38", "#b58900", "#7c6f9b", "#c2410c"];

// What lies between two lines of a scale of whole numbers.
const WHOLE = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();

export function colourOf(number) {
  return COLOURS[number % COLOURS.length];
}

export class Chart {
  // `format` writes a value, `whole` says that it has no parts; `least` is the smallest top of the scale; `top` a fixed one.
  constructor({ title, note, name, format, least, top, whole }) {
    Object.assign(this, { name, format, least, top, whole });
    this.plot = null;
    this.place = h("div", { class: "plot" });
    this.element = h(
      "div",
      { class: "card chart", role: "img", "aria-label": title },
      h("h2", null, title, h("span", null, note)),
      this.place,
    );
    this.size = 0;
    new ResizeObserver(() => this.fit()).observe(this.place);
    onTheme(() => {
      this.drop();
      if (this.loops) this.draw(this.loops);
    });
  }

  fit() {
    const width = this.place.clientWidth;
    if (width && this.plot && width !== this.size) {
      this.size = width;
      this.plot.setSize({ width, height: 170 });
    }
  }

  drop() {
    if (this.plot) this.plot.destroy();
    this.plot = null;
  }

  draw(loops) {
    this.loops = loops;
    const key = loops.map((one) => `${one.pid}/${one.id}`).join();
    if (key !== this.key) this.drop();
    this.key = key;
    const width = this.place.clientWidth;
    if (!width || !loops.length) return;
    const data = joined(loops, this.name);
    if (this.plot) this.plot.setData(data);
    else this.make(loops, data, width);
  }

  make(loops, data, width) {
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    this.size = width;
    this.plot = new uPlot(
      {
        width,
        height: 170,
        padding: [8, 14, 0, 0],
        legend: { show: false },
        cursor: { points: { size: 6 }, drag: { setScale: false } },
        scales: {
          x: { range: (_, least, most) => [Math.max(Math.min(least, most - 60), most - 300), most] },
          y: { range: (_, __, most) => [0, this.top || Math.max(most * 1.1 || 0, this.least)] },
        },
        axes: [
          { ...axis, size: 30, space: 80, values: (_, times) => times.map(clock) },
          { ...axis, size: 58, incrs: this.whole ? WHOLE : undefined, values: (_, values) => values.map((value) => this.format(value)) },
        ],
        series: [
          {},
          ...loops.map((one, number) => ({
            stroke: colourOf(number),
            fill: loops.length === 1 ? `${colourOf(number)}22` : undefined,
            width: 1.6,
            spanGaps: true,
            points: { show: false },
          })),
        ],
      },
      data,
      this.place,
    );
  }
}

function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour12: false });
}

// One axis of times for all of them.
function joined(loops, name) {
  const times = [...new Set(loops.flatMap((one) => one.times))].sort((a, b) => a - b);
  const place = new Map(times.map((at, i) => [at, i]));
  return [
    times,
    ...loops.map((one) => {
      const values = new Array(times.length).fill(null);
      one.times.forEach((at, i) => (values[place.get(at)] = one[name][i]));
      return values;
    }),
  ];
}
