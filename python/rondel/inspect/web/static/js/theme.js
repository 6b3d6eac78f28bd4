// Dark or light: the system's, or what the reader chose here (kept, where the browser keeps things).

const KEY = "rondel-theme";
const listeners = [];

function kept() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // a page from disk may have no storage
  }
}

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // for this visit only
  }
  changed();
}

// Canvases draw themselves anew.
export function onTheme(listener) {
  listeners.push(listener);
}

function changed() {
  for (const listener of listeners) listener();
}

const before = kept();
if (before === "dark" || before === "light") document.documentElement.dataset.theme = before;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
