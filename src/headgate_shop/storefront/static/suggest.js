// Suggestions under the search field: a combobox as WAI-ARIA describes it.
const WAIT_MS = 140;

export function startSuggest() {
  const form = document.querySelector("form[data-suggest]");
  const input = form?.querySelector("input[type=search]");
  if (!input) return;
  const list = document.createElement("div");
  list.className = "suggest";
  list.id = "suggestions";
  list.hidden = true;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");
  form.append(list);
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");

  let timer = 0, asked = null, at = -1, shownFor = "";

  const close = () => {
    list.hidden = true;
    at = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (index) => {
    const rows = [...list.children];
    if (!rows.length) return;
    at = (index + rows.length) % rows.length;
    rows.forEach((row, number) => row.setAttribute("aria-selected", String(number === at)));
    input.setAttribute("aria-activedescendant", rows[at].id);
    rows[at].scrollIntoView({ block: "nearest" });
  };
  const show = (items) => {
    list.replaceChildren(...items.map(row));
    at = -1;
    list.hidden = items.length === 0;
    input.setAttribute("aria-expanded", String(items.length > 0));
    input.removeAttribute("aria-activedescendant");
  };
  const ask = async () => {
    const words = input.value.trim();
    if (words.length < 2) return close();
    if (words === shownFor && list.children.length) return reopen();
    asked?.abort();
    asked = new AbortController();
    try {
      const answer = await fetch(`/pieces/suggest?q=${encodeURIComponent(words)}`, {
        headers: { accept: "application/json" },
        signal: asked.signal,
      });
      if (!answer.ok) return close();
      const { items } = await answer.json();
      if (input.value.trim() !== words || document.activeElement !== input) return undefined;
      shownFor = words;
      return show(items);
    } catch (error) {
      if (error.name !== "AbortError") close();
      return undefined;
    }
  };
  const reopen = () => {
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
  };

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, WAIT_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !list.hidden) {
      event.preventDefault();
      mark(event.key === "ArrowDown" ? at + 1 : at < 0 ? -1 : at - 1);
    } else if (event.key === "Enter" && at >= 0 && !list.hidden) {
      event.preventDefault();
      location.href = list.children[at].dataset.url;
    }
  });
  input.addEventListener("blur", () => setTimeout(close, 150));
  list.addEventListener("pointerdown", (event) => {
    const found = event.target.closest("[data-url]");
    if (!found) return;
    event.preventDefault();
    location.href = found.dataset.url;
  });
}

function row(item, number) {
  const box = document.createElement("div");
  box.className = "suggest__row";
  box.id = `suggestion-${number}`;
  box.dataset.url = item.url;
  box.setAttribute("role", "option");
  box.setAttribute("aria-selected", "false");
  const picture = document.createElement(item.image ? "img" : "span");
  if (item.image) {
    picture.src = item.image;
    picture.alt = "";
  } else {
    picture.className = "suggest__blank";
  }
  const name = document.createElement("span");
  name.className = "suggest__name";
  name.textContent = item.name;
  const price = document.createElement("span");
  price.className = "suggest__price";
  price.textContent = item.price;
  box.append(picture, name, price);
  return box;
}
