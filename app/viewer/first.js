"use strict";

/* Before the first paint, so not a module: the chosen theme, or the page would flash in the other one. */
try {
  const { theme } = JSON.parse(localStorage.getItem("tickhub.viewer") || "{}");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Nothing is remembered then; the system's choice holds.
}
