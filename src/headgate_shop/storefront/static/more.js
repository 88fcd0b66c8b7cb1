// "Show more" puts the next goods below those that are there.
import { startAdding } from "./cart.js";
import { toast } from "./toast.js";

export function startMore() {
  const list = document.querySelector("[data-list]");
  list?.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-more]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    more(list, link);
  });
}

async function more(list, link) {
  if (link.getAttribute("aria-busy")) return;
  const grid = list.querySelector(".grid");
  link.setAttribute("aria-busy", "true");
  const bones = [...Array(4)].map(() => {
    const item = document.createElement("li");
    item.setAttribute("aria-hidden", "true");
    item.innerHTML = '<div class="card__pic bone"></div>';
    return item;
  });
  grid.append(...bones);
  try {
    const answer = await fetch(link.href, { signal: AbortSignal.timeout(15000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = [...page.querySelectorAll("[data-list] .grid > li")];
    const next = page.querySelector("[data-list] a[data-more]");
    bones.forEach((bone) => bone.remove());
    fresh.forEach((item) => startAdding(item));
    grid.append(...fresh);
    if (next) link.href = next.href;
    else link.remove();
    fresh[0]?.querySelector("a")?.focus({ preventScroll: true });
  } catch (error) {
    bones.forEach((bone) => bone.remove());
    toast("The next goods do not come just now. Please try again.", { bad: true });
  } finally {
    link.removeAttribute("aria-busy");
  }
}
