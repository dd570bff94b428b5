// Roles and names that the theme leaves wrong for screen readers.
document.addEventListener("DOMContentLoaded", () => {
  for (const entry of document.querySelectorAll(".citation-list > .citation")) {
    entry.setAttribute("role", "listitem");
  }
  const mislabelled = ".search-button-field, .theme-switch-button, details > summary";
  for (const element of document.querySelectorAll(mislabelled)) {
    element.removeAttribute("aria-label");
  }
  const sidebar = document.querySelector(".bd-sidebar-primary");
  if (sidebar) {
    sidebar.setAttribute("role", "navigation");
    sidebar.setAttribute("aria-label", "Contents");
  }
});

// A link to folded code unfolds it: the anchor stands right before the cell.
function unfold() {
  const anchor = document.querySelector(".cell-anchor:target");
  let cell = anchor?.nextElementSibling;
  while (cell && !cell.matches(".cell")) cell = cell.nextElementSibling;
  const details = cell?.querySelector("details");
  if (details && !details.open) {
    details.open = true;
    anchor.scrollIntoView();
  }
}
window.addEventListener("hashchange", unfold);
window.addEventListener("load", unfold);

// Commands in running text get a button that copies them.
document.addEventListener("DOMContentLoaded", () => {
  for (const code of document.querySelectorAll(".bd-article code.literal")) {
    const command = code.textContent;
    if (!/^reprise run \S/.test(command) || command.includes("SLUG")) continue;
    const button = document.createElement("button");
    button.className = "copy-command";
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy ${command}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    code.after(" ", button);
  }
});

// A formula or a table that is wider than its place scrolls there: it can be reached with the keyboard, too.
function reachWide() {
  for (const wide of document.querySelectorAll("mjx-container, .bd-content table")) {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
    else wide.removeAttribute("tabindex");
  }
}
window.addEventListener("load", async () => {
  const article = document.querySelector(".bd-article");
  if (!article) return;
  if (window.MathJax?.startup) await window.MathJax.startup.promise;
  await document.fonts.ready;
  reachWide();
  new ResizeObserver(reachWide).observe(article);
});
