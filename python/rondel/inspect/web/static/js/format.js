// Numbers and places as people read them.

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 86400) return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
  if (value >= 3600) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  if (value >= 100) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value >= 10) return `${value.toFixed(1)} s`;
  if (value >= 0.1) return `${value.toFixed(2)} s`;
  if (value >= 1e-3) return `${Number((value * 1e3).toPrecision(3))} ms`;
  return `${Number((value * 1e6).toPrecision(3))} µs`;
}

export function micros(value) {
  return value === null || value === undefined ? "–" : seconds(value / 1e6);
}

export function count(value) {
  if (value >= 1e7) return `${(value / 1e6).toFixed(0)} M`;
  if (value >= 1e5) return `${(value / 1e3).toFixed(0)} k`;
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, " ");
}

export function bytes(value) {
  if (value >= 2 ** 30) return `${(value / 2 ** 30).toFixed(1)} GiB`;
  return `${(value / 2 ** 20).toFixed(value < 2 ** 25 ? 1 : 0)} MiB`;
}

export function percent(share) {
  const value = share * 100;
  return `${value < 9.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}

// A file by its last two parts; the whole path is in the title.
export function short(file) {
  const parts = file.split("/");
  return parts.length > 3 ? parts.slice(-2).join("/") : file;
}

// [file, line, function] of a link of an await chain.
export function place(frame) {
  return frame[0] === "<native>" ? "" : `${short(frame[0])}:${frame[1]}`;
}

export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}
