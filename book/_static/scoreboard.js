// Filters and order of the scoreboard. Without this script the page shows every claim, by chapter.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".scoreboard-filters");
  if (!form) return;
  const table = document.querySelector("table.scoreboard");
  const bodies = [...table.tBodies];
  const claims = bodies.filter((body) => body.classList.contains("claim"));
  const filters = ["part", "verdict", "kind"].map((name) => [name, form.querySelector(`#filter-${name}`)]);
  const sort = form.querySelector("#sort");
  const VERDICTS = ["not reproduced", "partly", "reproduced", "not tested at this scale"];
  const order = {
    verdict: (claim) => VERDICTS.indexOf(claim.dataset.verdict),
    kind: (claim) => claim.dataset.kind,
    date: (claim) => -Date.parse(claim.dataset.date),
  };

  function show() {
    let shown = 0;
    for (const claim of claims) {
      claim.hidden = filters.some(([name, select]) => select.value && select.value !== claim.dataset[name]);
      shown += !claim.hidden;
    }
    const key = order[sort.value];
    const byKey = (a, b) => (key(a) > key(b)) - (key(a) < key(b));
    table.append(...(key ? [...claims].sort(byKey) : bodies));
    // The row of a chapter stands above its claims: only in that order, and only if one of them is shown.
    for (const body of bodies.filter((body) => !claims.includes(body))) {
      const own = [];
      for (let next = bodies[bodies.indexOf(body) + 1]; next && claims.includes(next); ) {
        own.push(next);
        next = bodies[bodies.indexOf(next) + 1];
      }
      body.hidden = Boolean(key) || own.every((claim) => claim.hidden);
    }
    table.classList.toggle("sorted", Boolean(key));
    form.querySelector(".scoreboard-count").textContent = `${shown} of ${claims.length} claims`;
  }

  const asked = new URLSearchParams(location.search);
  for (const [name, select] of filters) {
    if ([...select.options].some((option) => option.text === asked.get(name))) select.value = asked.get(name);
  }
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
});
