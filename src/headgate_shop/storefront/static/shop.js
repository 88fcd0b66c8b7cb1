// What the pages do more of where scripts run. Each part looks for its own marks and needs nobody.
import { startAdding, startCart } from "./cart.js";
import { startForms } from "./forms.js";
import { startMore } from "./more.js";
import { startPending } from "./pending.js";
import { startRecent } from "./recent.js";
import { startSuggest } from "./suggest.js";
import { startTelling } from "./telling.js";
import { startTheme } from "./switch.js";

for (const start of [
  startTheme,
  startSuggest,
  startForms,
  startAdding,
  startCart,
  startMore,
  startPending,
  startRecent,
  startTelling,
]) {
  try {
    start();
  } catch (error) {
    console.error(error); // one part that fails leaves the others, and the page works without it
  }
}
