// What was looked at and searched for, for the shop's own figures. No cookie, no name: a number that
// lives as long as the tab. Whoever asks not to be followed is not.
export function startTelling() {
  if (navigator.globalPrivacyControl || navigator.doNotTrack === "1") return;
  const { product, searched } = document.body.dataset;
  const events = [];
  const at = Date.now() / 1000;
  if (product) events.push({ type: "view", at, session: session(), product_id: product });
  if (searched) events.push({ type: "search", at, session: session(), query: searched });
  if (!events.length) return;
  const send = () => {
    const body = new Blob([JSON.stringify({ events })], { type: "application/json" });
    navigator.sendBeacon?.("/api/events", body);
  };
  if ("requestIdleCallback" in window) requestIdleCallback(send, { timeout: 2000 });
  else setTimeout(send, 500);
}

function session() {
  try {
    let found = sessionStorage.getItem("shop-session");
    if (!found) {
      found = crypto.randomUUID?.() || String(Math.random()).slice(2);
      sessionStorage.setItem("shop-session", found);
    }
    return found;
  } catch (error) {
    return "unknown";
  }
}
