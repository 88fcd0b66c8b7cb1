// A word at the edge of the page, read out by screen readers, gone after some seconds.
export function toast(text, { link = null, bad = false } = {}) {
  const room = document.querySelector("[data-toasts]");
  if (!room) return;
  const box = document.createElement("div");
  box.className = bad ? "toast toast--bad" : "toast";
  const words = document.createElement("span");
  words.textContent = text;
  box.append(words);
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = link.href;
    anchor.textContent = link.text;
    box.append(anchor);
  }
  while (room.children.length > 1) room.firstElementChild.remove();
  room.append(box);
  let timer = setTimeout(() => box.remove(), 6000);
  const stay = () => clearTimeout(timer);
  const go = () => { timer = setTimeout(() => box.remove(), 3000); };
  box.addEventListener("mouseenter", stay);
  box.addEventListener("focusin", stay);
  box.addEventListener("mouseleave", go);
  box.addEventListener("focusout", go);
}
