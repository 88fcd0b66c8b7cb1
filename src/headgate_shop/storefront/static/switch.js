// The switch between light and dark. What the system says holds until somebody chooses.
export function startTheme() {
  const root = document.documentElement;
  const button = document.querySelector("[data-theme-switch]");
  if (!button) return;
  const show = (name) => {
    root.dataset.shown = name;
    button.setAttribute("aria-pressed", String(name === "dark"));
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  show(root.dataset.theme || (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => {
    if (!root.dataset.theme) show(system.matches ? "dark" : "light");
  });
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = root.dataset.shown === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    show(next);
    try {
      localStorage.setItem("shop-theme", next);
    } catch (error) {
      // It holds for this page then.
    }
  });
}
