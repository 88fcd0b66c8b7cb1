// Hints in forms, before anything is sent; the server judges all the same.
export function startForms() {
  for (const form of document.querySelectorAll("form[data-check]")) check(form);
  for (const form of document.querySelectorAll("form[data-once]")) once(form);
  for (const form of document.querySelectorAll("form[data-token]")) token(form);
  for (const box of document.querySelectorAll("[data-reveal]")) reveal(box);
  for (const box of document.querySelectorAll("[data-stepper]")) stepper(box);
  for (const form of document.querySelectorAll("form[data-filters]")) filters(form);
  for (const form of document.querySelectorAll("form[data-sure]")) {
    form.addEventListener("submit", (event) => {
      if (!confirm(form.dataset.sure)) event.preventDefault();
    });
  }
  for (const form of document.querySelectorAll("form[data-sign-out]")) {
    form.addEventListener("submit", () => {
      try {
        localStorage.removeItem("shop-recent");
        sessionStorage.clear();
      } catch (error) {
        // There was nothing kept, then.
      }
    });
  }
  document.querySelector("input[data-card]")?.addEventListener("input", (event) => {
    const field = event.target;
    if (field.selectionStart !== field.value.length) return; // mending in the middle
    field.value = field.value.replace(/\D/g, "").slice(0, 19).replace(/(.{4})(?=.)/g, "$1 ");
  });
  document.querySelector("input[data-expiry]")?.addEventListener("input", (event) => {
    const field = event.target;
    if (field.selectionStart !== field.value.length || event.inputType?.startsWith("delete")) return;
    const digits = field.value.replace(/\D/g, "").slice(0, 4);
    field.value = digits.length > 2 ? `${digits.slice(0, 2)}/${digits.slice(2)}` : digits;
  });
  document.querySelector("[data-focus]")?.focus();
}

function check(form) {
  form.noValidate = true; // our words, beside the field, instead of the browser's bubbles
  form.addEventListener("submit", (event) => {
    let first = null;
    for (const field of form.elements) {
      if (!field.willValidate || !field.id) continue;
      if (judge(field)) continue;
      first ||= field;
    }
    if (first) {
      event.preventDefault();
      event.stopImmediatePropagation();
      first.focus();
    }
  });
  form.addEventListener("focusout", (event) => {
    const field = event.target;
    if (field.getAttribute?.("aria-invalid") === "true" && field.willValidate) judge(field);
  });
}

function judge(field) {
  const place = document.getElementById(`${field.id}-fault`);
  const isFine = field.checkValidity();
  if (isFine) field.removeAttribute("aria-invalid");
  else field.setAttribute("aria-invalid", "true");
  if (place) place.textContent = isFine ? "" : words(field);
  return isFine;
}

function words(field) {
  if (field.validity.valueMissing) {
    return field.tagName === "SELECT" ? "Please choose." : "This is needed.";
  }
  if (field.validity.typeMismatch && field.type === "email") {
    return "An e-mail address, such as ada@example.org.";
  }
  return field.validationMessage;
}

function once(form) {
  form.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "1";
    const button = form.querySelector("button:not([type=button])");
    button?.setAttribute("aria-busy", "true");
    const label = form.querySelector("[data-once-words]");
    if (label) label.textContent = "One moment …";
  });
  // Back from the next page: the form is as it was, and may be sent again.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

function token(form) {
  const given = decodeURIComponent(location.hash.slice(1));
  if (!/^[\w.~-]{8,512}$/.test(given)) return;
  form.querySelector("[name=token]").value = given;
  form.querySelector("[data-token-field]").hidden = true;
  // It need not stand in the history.
  history.replaceState(null, "", location.pathname);
}

function reveal(box) {
  const input = box.querySelector("input");
  const button = document.createElement("button");
  button.type = "button";
  const show = (isShown) => {
    input.type = isShown ? "text" : "password";
    button.textContent = isShown ? "Hide" : "Show";
    button.setAttribute("aria-pressed", String(isShown));
    button.setAttribute("aria-label", "Show the password");
  };
  show(false);
  button.addEventListener("click", () => show(input.type === "password"));
  input.form?.addEventListener("submit", () => show(false));
  box.append(button);
}

function stepper(box) {
  const input = box.querySelector("input");
  box.className = "stepper";
  input.classList.remove("input");
  const bounds = () => [Number(input.min || 1), Number(input.max || 99)];
  const show = () => {
    const now = Number.parseInt(input.value, 10);
    const [low, high] = bounds();
    // Not `disabled`: that would take the focus away from whoever presses it the last time.
    less.setAttribute("aria-disabled", String(now <= low));
    more.setAttribute("aria-disabled", String(now >= high));
  };
  const make = (step, text, label) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => {
      const [low, high] = bounds();
      const now = Number.parseInt(input.value, 10) || low;
      input.value = String(Math.min(high, Math.max(low, now + step)));
      show();
    });
    return button;
  };
  const [less, more] = [make(-1, "−", "One less"), make(1, "+", "One more")];
  box.prepend(less);
  box.append(more);
  input.addEventListener("input", show);
  show();
}

function filters(form) {
  const wide = matchMedia("(min-width: 56rem)");
  form.addEventListener("change", (event) => {
    if (wide.matches && event.target.matches("select, input[type=checkbox]")) form.requestSubmit();
  });
  form.addEventListener("submit", () => {
    // An empty field need not stand in the address.
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
  addEventListener("pageshow", () => {
    for (const field of form.elements) field.disabled = false;
  });
}
