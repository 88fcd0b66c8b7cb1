// What this browser has looked at stays in this browser. The server is told ids, to draw cards.
import { startAdding } from "./cart.js";

const KEY = "shop-recent";
const MOST = 12;

export function startRecent() {
  const here = document.body.dataset.product || "";
  const seen = read();
  const place = document.querySelector("[data-recent]");
  const others = seen.filter((id) => id !== here).slice(0, 8);
  if (place && others.length) show(place, others);
  if (here) write([here, ...seen.filter((id) => id !== here)].slice(0, MOST));
}

async function show(place, ids) {
  try {
    const answer = await fetch(`/pieces/recent?ids=${ids.map(encodeURIComponent).join(",")}`);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const section = page.querySelector("section");
    if (!section) return;
    startAdding(section);
    place.replaceChildren(section);
  } catch (error) {
    // The page is whole without it.
  }
}

function read() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) || "[]");
    return Array.isArray(found) ? found.filter((id) => /^[\w.~-]{1,80}$/.test(id)) : [];
  } catch (error) {
    return [];
  }
}

function write(ids) {
  try {
    localStorage.setItem(KEY, JSON.stringify(ids));
  } catch (error) {
    // Not kept, then.
  }
}
