// Keys for those who want them; every page works without. An element says its key by data-key, and is pressed, or (with
// data-do="focus") brought into focus.
"use strict";
(() => {
  const writes = (at) => at.matches("textarea, select, input:not([type=checkbox]):not([type=radio])");
  const step = (by) => {
    const rows = [...document.querySelectorAll("[data-row]")];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement);
    rows[at < 0 ? 0 : Math.min(Math.max(at + by, 0), rows.length - 1)].focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (writes(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const wanted = CSS.escape(event.key);
    const found = document.querySelector(`[data-key="${wanted}"]`);
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    else if (event.key === "e") document.querySelector("#evidence input[type=checkbox]")?.focus();
    else if (!found) return;
    else if (found.dataset.do === "focus") { found.focus(); found.scrollIntoView({ block: "nearest" }); }
    else found.click();
    event.preventDefault();
  });
})();
