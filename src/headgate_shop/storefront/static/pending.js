// An order that is being paid: ask what became of it, less and less often.
export function startPending() {
  const { pending: url, again } = document.body.dataset;
  if (again !== undefined) setTimeout(() => location.reload(), 5000);
  if (!url) return;
  let wait = 1000;
  const look = async () => {
    try {
      const answer = await fetch(url, {
        headers: { accept: "application/json" },
        signal: AbortSignal.timeout(10000),
      });
      if (answer.ok && (await answer.json()).status !== "pending") {
        location.reload();
        return;
      }
    } catch (error) {
      // Asked again below.
    }
    wait = Math.min(wait * 1.4, 15000);
    setTimeout(look, wait);
  };
  setTimeout(look, wait);
}
