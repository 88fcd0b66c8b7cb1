// Before anything is drawn: the colours that were chosen here the last time.
(() => {
  "use strict";
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("shop-theme");
  } catch (error) {
    // Storage may be shut; then the system's colours it is.
  }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  const isDark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.shown = isDark ? "dark" : "light";
})();
