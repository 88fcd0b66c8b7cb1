// Elements made by hand: text is always text, so nothing that comes from elsewhere is markup.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  set(made, attributes);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
}

// Rows by their key: those that stay keep their element, so a focus or an open menu stays too.
export function reconcile(parent, rows, keyOf, make, update) {
  const known = new Map();
  for (const child of parent.children) {
    if (child.dataset.key !== undefined) known.set(child.dataset.key, child);
    else child.remove();
  }
  let at = parent.firstElementChild;
  for (const row of rows) {
    const key = String(keyOf(row));
    let element = known.get(key);
    known.delete(key);
    if (!element) {
      element = make(row);
      element.dataset.key = key;
      parent.insertBefore(element, at);
    } else if (element !== at) {
      parent.insertBefore(element, at);
    } else {
      at = at.nextElementSibling;
    }
    update?.(element, row);
  }
  for (const gone of known.values()) gone.remove();
}

export function text(element, said) {
  if (element.textContent !== said) element.textContent = said;
}

export const byId = (id) => document.getElementById(id);
export const mark = () => el("span", { class: "mark", "aria-hidden": "true" });
