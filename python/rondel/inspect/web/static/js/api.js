// Questions to the page's own process, and nobody else.

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: the page's process does not answer
  }
}

export async function ask(question, params = {}, { method = "GET", signal } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  }
  let response;
  try {
    response = await fetch(`api/${question}?${query}`, { method, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("the page's process does not answer; it ends with the program that it shows", 0);
  }
  if (response.ok) return response.json();
  const text = await response.text();
  let words = text;
  try {
    words = JSON.parse(text).error;
  } catch {
    // a refusal is plain text
  }
  throw new Failure(words, response.status);
}
