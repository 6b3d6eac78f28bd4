// A thread's stack, innermost first, up to the loop that runs it.

import { h } from "./dom.js";

export function frames(stack) {
  const end = stack.findIndex((frame) => frame[2] === "EventLoop.run_forever");
  const shown = end < 0 ? stack : stack.slice(0, end);
  return h(
    "ol",
    { class: "frames", "aria-label": "Stack, innermost first" },
    shown.map(([file, line, name]) => h("li", null, name, file === "<native>" ? "" : h("span", null, `  ${file}:${line}`))),
  );
}
