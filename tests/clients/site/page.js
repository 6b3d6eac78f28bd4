// Each step notes what it saw, or its error; `finished` is true when all is in the page.
const seen = (window.seen = {});
const key = new URLSearchParams(location.search).get("key");
const secure = location.protocol === "https:";

async function step(name, what) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("too late")), 60000));
  try {
    seen[name] = await Promise.race([what(), late]);
  } catch (error) {
    seen[name] = `${error}`;
  }
}

async function hex(data) {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return [...sum].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function bytes(size) {
  const data = new Uint8Array(size);
  for (let at = 0; at < size; at++) data[at] = (at * 7) & 255;
  return data;
}

const text = async (target, options) => (await fetch(target, options)).text();
const json = async (target, options) => (await fetch(target, options)).json();
const post = (body) => ({ method: "POST", body });

await step("protocol", async () => performance.getEntriesByType("navigation")[0].nextHopProtocol);
await step("module", async () => (await import("./module.js")).answer);
await step("style", async () => getComputedStyle(document.getElementById("seen")).color);
await step("hello", () => text("/hello"));

await step("methods", async () => {
  const told = [];
  for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
    told.push((await json("/digest", { method })).method);
  }
  return told;
});

await step("statuses", async () => {
  const told = [];
  for (const code of [200, 201, 204, 404, 418, 503]) {
    told.push((await fetch(`/status?code=${code}`)).status);
  }
  return told;
});

await step("head", async () => (await fetch("/hello", { method: "HEAD" })).headers.get("content-length"));

await step("compressed", async () => {
  const got = await fetch("/compressible?size=50000&count=3");
  return [got.headers.get("content-encoding"), (await got.text()).length];
});

await step("upload", async () => {
  const data = bytes(3000000);
  const told = await json("/digest", post(data));
  return [told.size, told.digest === (await hex(data))];
});

await step("form", async () => {
  const data = bytes(3000000), form = new FormData();
  form.append("title", "né");
  form.append("file", new File([data], "näme.bin"));
  const told = await json("/form", post(form));
  return [told.title.size, told.file.file, told.file.size, told.file.digest === (await hex(data))];
});

await step("upload stream", async () => {
  let count = 0;
  const body = new ReadableStream({
    pull(controller) {
      if (count++ === 30) controller.close();
      else controller.enqueue(bytes(100000));
    },
  });
  return (await json("/digest", { ...post(body), duplex: "half" })).size;
});

await step("upload progress", () => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest();
  let told = 0;
  request.upload.onprogress = (event) => { told = event.loaded; };
  request.onload = () => resolve([told, JSON.parse(request.responseText).size]);
  request.onerror = () => reject(new Error("of XMLHttpRequest"));
  request.open("POST", "/digest");
  request.send(bytes(2000000));
}));

await step("not read", () => text("/ignore", post(bytes(10000000))));
await step("too large", async () => (await fetch("/digest", post(bytes(60000000)))).status);
await step("after it", () => text("/hello"));

await step("stream", async () => {
  const got = await fetch(`/parts?count=3&gate=1&key=${key}stream`);
  const reader = got.body.pipeThrough(new TextDecoderStream()).getReader();
  const first = (await reader.read()).value;
  // The second is made once it is released: the first has come before.
  await fetch(`/release?key=${key}stream`);
  let rest = "";
  for (let part; !(part = await reader.read()).done;) rest += part.value;
  return [first, rest];
});

await step("events", () => new Promise((resolve, reject) => {
  // Two for each connection: the browser connects again, and says what it has.
  const source = new EventSource("/ticks"), told = [];
  source.onmessage = (event) => {
    told.push(event.data);
    if (told.length === 5) {
      source.close();
      resolve(told);
    }
  };
}));

await step("abort", async () => {
  const aborter = new AbortController();
  const held = fetch(`/disconnect?key=${key}abort`, { signal: aborter.signal });
  await fetch(`/events?key=${key}abort`);
  aborter.abort();
  const how = await held.catch((error) => error.name);
  return [how, ...(await json(`/events?key=${key}abort&count=2`)).slice(0, 2)];
});

await step("abort of a stream", async () => {
  const got = await fetch(`/disconnect_while_streaming?key=${key}cancel`);
  await fetch(`/events?key=${key}cancel`);
  await got.body.cancel();
  return (await json(`/events?key=${key}cancel&count=2`)).slice(0, 2);
});

await step("cookies", async () => {
  const got = await fetch("/headers");
  const sent = (await json("/scope")).headers.filter(([name]) => name.bytes === "cookie");
  return [document.cookie, sent.map(([, value]) => value.bytes), got.headers.get("x-empty")];
});

await step("many", async () => {
  const ask = async (number) => {
    if (number % 20 === 0) return (await (await fetch("/static/large.bin")).arrayBuffer()).byteLength;
    if (number % 20 === 1) return (await json("/digest", post(bytes(1000000)))).size;
    return (await text("/echo", post(`${number} `.repeat(1000)))) === `${number} `.repeat(1000);
  };
  const told = await Promise.all([...Array(100).keys()].map(ask));
  return [4000000, 1000000, true].map((one) => told.filter((other) => other === one).length);
});

await step("clients", async () => {
  const told = await Promise.all([...Array(20).keys()].map(() => json("/scope")));
  return new Set(told.map((scope) => scope.client[1])).size;
});

await step("range", async () => {
  const got = await fetch("/static/large.bin", { headers: { range: "bytes=10-29" } });
  const data = new Uint8Array(await got.arrayBuffer());
  return [got.status, got.headers.get("content-range"), ...data.slice(0, 3)];
});

await step("revalidated", async () => {
  const told = [];
  for (const cache of ["default", "no-cache", "reload"]) {
    told.push((await (await fetch("/static/module.js", { cache })).text()).trim());
  }
  return told;
});

await step("redirect", async () => {
  const got = await fetch("/redirect", post(bytes(100000)));
  return [got.redirected, (await got.json()).size];
});

await step("beacon", async () => {
  navigator.sendBeacon(`/note?key=${key}beacon`, "from a beacon");
  return json(`/events?key=${key}beacon`);
});

function socket(target, protocols) {
  return new WebSocket(location.origin.replace("http", "ws") + target, protocols);
}

function closed(one) {
  return new Promise((resolve) => {
    one.onclose = (event) => resolve([event.code, event.reason, event.wasClean]);
  });
}

await step("websocket", () => new Promise((resolve, reject) => {
  const one = socket("/echo"), large = bytes(1000000), told = [];
  one.binaryType = "arraybuffer";
  one.onerror = () => reject(new Error("of a WebSocket"));
  one.onopen = () => {
    told.push(one.extensions.split(";")[0]);
    one.send("text é");
    one.send("");
    one.send(large);
  };
  one.onmessage = async (event) => {
    if (typeof event.data === "string") {
      told.push(event.data);
      return;
    }
    told.push((await hex(event.data)) === (await hex(large)));
    const end = closed(one);
    one.close(4001, "enough");
    resolve([...told, ...(await end)]);
  };
}));

await step("websocket closed by the server", async () => {
  const one = socket(`/close?code=4000&reason=over&key=${key}close`), told = [];
  one.onmessage = (event) => told.push(event.data);
  return [...(await closed(one)), ...told];
});

await step("websocket of a subprotocol", async () => {
  const one = socket("/accept?choose=chat", ["superchat", "chat"]);
  await new Promise((resolve) => { one.onopen = resolve; });
  const told = one.protocol, end = closed(one);
  one.close();
  return [told, (await end)[2]];
});

await step("websocket refused", async () => closed(socket(`/refuse?key=${key}refuse`)));

await step("websockets", async () => {
  const talk = (number) => new Promise((resolve, reject) => {
    const one = socket("/echo");
    one.onerror = () => reject(new Error("of a WebSocket"));
    one.onopen = () => one.send(`${number}`);
    one.onmessage = (event) => {
      resolve(event.data === `${number}`);
      one.close();
    };
  });
  return (await Promise.all([...Array(30).keys()].map(talk))).filter(Boolean).length;
});

await step("protocols", async () => {
  const entries = performance.getEntriesByType("resource");
  return [...new Set(entries.map((entry) => entry.nextHopProtocol))].filter(Boolean).sort();
});

document.getElementById("seen").textContent = JSON.stringify(seen);
window.finished = true;
