// The page of `rondel run --profile`: one recording, all of it in this file.

import { fill, h } from "./dom.js";
import { plural, seconds } from "./format.js";
import { listen } from "./keys.js";
import { toggleTheme } from "./theme.js";
import { Timeline } from "./timeline/view.js";

const data = JSON.parse(document.getElementById("recording").textContent);
const timeline = new Timeline(data);
fill(document.getElementById("process"), h("span", { class: "only", title: data.program }, data.program));
fill(document.getElementById("told"), `${seconds(data.seconds)}, ${plural(data.tasks.length, "task")}, ${data.when}`);
document.title = `${data.program} – Rondel`;
fill(document.getElementById("view"), h("section", { class: "panel-view" }, timeline.element));
document.getElementById("theme").addEventListener("click", toggleTheme);
listen({ t: toggleTheme });
document.addEventListener("keydown", (event) => {
  if (document.activeElement === document.body) timeline.key(event);
});
