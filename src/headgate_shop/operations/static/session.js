// Keeps whoever watches signed in: a page that stays open all day must not end after ten minutes.

const EVERY_MS = 4 * 60_000; // a session lives for ten
const LOOK_MS = 10_000; // timers of a page in the background, or of a machine asleep, come late

let renewedAt = Date.now();
let underWay = null;

// Whether there is a session now. Several who ask at once share one answer.
export function renew() {
  underWay ??= fetch("/session/renew", { method: "POST" })
    .then((answer) => answer.ok, () => false)
    .finally(() => {
      renewedAt = Date.now();
      underWay = null;
    });
  return underWay;
}

// `fetch`, and once more where the session had ended meanwhile.
export async function ask(url, options) {
  const answer = await fetch(url, options);
  return answer.status === 401 && (await renew()) ? fetch(url, options) : answer;
}

function look() {
  if (Date.now() - renewedAt > EVERY_MS) renew();
}

setInterval(look, LOOK_MS);
document.addEventListener("visibilitychange", look);
