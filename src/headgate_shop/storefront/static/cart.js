// Put into the cart without leaving the page; change the cart without loading it anew.
import { toast } from "./toast.js";

const WORDS = document.querySelector("[data-cart-words]");
const COUNT = document.querySelector("[data-cart-count]");

export function showCount(count) {
  if (!COUNT || typeof count !== "number") return;
  COUNT.textContent = String(count);
  COUNT.hidden = count === 0;
  if (WORDS) WORDS.textContent = count === 0 ? "" : count === 1 ? " thing in it" : " things in it";
}

export function startAdding(root = document) {
  for (const form of root.querySelectorAll("form[data-add]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      add(form, event.submitter);
    });
  }
}

async function add(form, button) {
  if (form.dataset.busy) return;
  form.dataset.busy = "1";
  button?.setAttribute("aria-busy", "true");
  const name = form.dataset.name || "It";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
      signal: AbortSignal.timeout(15000),
    });
    const said = await answer.json();
    if (answer.ok && said.ok) {
      if (said.count === null) refreshCount();
      else showCount(said.count);
      toast(`${name} is in your cart.`, { link: { href: "/cart", text: "See the cart" } });
    } else {
      toast(said.detail || "That did not work. Please try again.", { bad: true });
    }
  } catch (error) {
    toast("The shop does not answer. Please try again in a moment.", { bad: true });
  } finally {
    delete form.dataset.busy;
    button?.removeAttribute("aria-busy");
  }
}

async function refreshCount() {
  try {
    const answer = await fetch("/pieces/cart", { headers: { accept: "application/json" } });
    if (answer.ok) showCount((await answer.json()).count);
  } catch (error) {
    // The old number stays.
  }
}

export function startCart() {
  // A page that comes back out of the browser's memory may show an old number.
  addEventListener("pageshow", (event) => {
    if (event.persisted) refreshCount();
  });
  wire(document);
}

function wire(root) {
  for (const form of root.querySelectorAll("form[data-cart-form]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      change(form, event.submitter);
    });
    const input = form.querySelector('input[type="number"]');
    input?.addEventListener("change", () => form.requestSubmit());
  }
}

async function change(form, button) {
  const main = document.querySelector("#main");
  if (main.getAttribute("aria-busy")) return;
  main.setAttribute("aria-busy", "true");
  const fields = new URLSearchParams(new FormData(form));
  if (button?.name) fields.set(button.name, button.value);
  const label = document.activeElement?.getAttribute("aria-label");
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: fields,
      signal: AbortSignal.timeout(15000),
    });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("#main");
    if (!fresh) throw new Error("no page");
    main.replaceChildren(...fresh.childNodes);
    showCount(Number(page.querySelector("[data-cart-count]")?.textContent || 0));
    wire(main);
    const told = main.querySelector("[data-cart-notices] .notice");
    if (told) toast(told.textContent.trim(), { bad: told.classList.contains("notice--bad") });
    // Whoever works by keyboard goes on where they were, or at the heading.
    const same = label && [...main.querySelectorAll("[aria-label]")].find(
      (each) => each.getAttribute("aria-label") === label,
    );
    (same || main).focus({ preventScroll: Boolean(same) });
  } catch (error) {
    toast("The shop does not answer. Nothing was changed.", { bad: true });
  } finally {
    main.removeAttribute("aria-busy");
  }
}
