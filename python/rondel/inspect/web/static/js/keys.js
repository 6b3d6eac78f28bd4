// Keys of the whole page, and the dialog that lists them.

import { h } from "./dom.js";

const KEYS = [
  ["1 – 5", "the views"],
  ["← →", "among the tabs, when one has the focus"],
  ["/", "to the filter"],
  ["f", "freeze, and go on"],
  ["t", "light or dark"],
  ["r", "in the timeline: record"],
  ["↑ ↓", "in a list: choose; PgUp, PgDn, Home and End too"],
  ["← →", "in the tree: fold and unfold; in the timeline: earlier and later"],
  ["+ − 0", "in the timeline: closer, farther, all of it"],
  ["Enter", "in a list: to what is told of the chosen row"],
  ["Esc", "back to the list"],
  ["?", "this"],
];

export function helpDialog() {
  const close = h("button", { type: "button", onclick: () => dialog.close() }, "Close");
  const dialog = h(
    "dialog",
    { "aria-labelledby": "help-title" },
    h("h2", { id: "help-title" }, "Keys"),
    h("dl", null, KEYS.map(([key, what]) => [h("dt", null, h("kbd", null, key)), h("dd", null, what)])),
    close,
  );
  document.body.append(dialog);
  return dialog;
}

// `actions` by key; typing in a field is left alone.
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("input, select, textarea")) return;
    const action = actions[event.key];
    if (action !== undefined && document.querySelector("dialog[open]") === null) {
      event.preventDefault();
      action();
    }
  });
}
