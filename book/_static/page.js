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
