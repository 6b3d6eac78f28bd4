/* Listens to the feed and draws it; closes it at the end, or the browser would connect again. */
"use strict";

(function () {
  const feed = document.getElementById("feed");
  const state = document.getElementById("state");
  const progress = document.getElementById("progress");
  const ticks = document.getElementById("ticks");
  const again = document.getElementById("again");

  function listen() {
    const source = new EventSource(feed.dataset.url);
    ticks.replaceChildren();
    again.hidden = true;

    source.addEventListener("open", () => {
      state.textContent = "Connected · 已连接";
    });
    source.addEventListener("tick", (event) => {
      const tick = JSON.parse(event.data);
      const item = document.createElement("li");
      const at = new Date(tick.time * 1000).toLocaleTimeString();
      item.textContent = `${at} · tick ${tick.number} of ${tick.count} · ${tick.tasks} tasks on the loop`;
      ticks.append(item);
      progress.style.width = `${(100 * tick.number) / tick.count}%`;
    });
    source.addEventListener("end", () => {
      source.close();
      state.textContent = "Finished · 已结束";
      again.hidden = false;
    });
    source.addEventListener("error", () => {
      source.close();
      state.textContent = "The connection broke off · 连接中断";
      again.hidden = false;
    });
  }

  again.addEventListener("click", listen);
  listen();
})();
